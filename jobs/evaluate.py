"""python -m jobs.evaluate --model DIR --data MANIFEST [--split test] [--fold I] --out DIR

A model and a manifest to `metrics.json`, `report.html`, plots, and one row of scores per image.
"""

import argparse
import sys
from contextlib import suppress

from jobs.options import add_address, add_allow_leaks, add_measured, add_model, add_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    add_model(parser)
    add_measured(parser)
    parser.add_argument(
        "--min-tpr",
        type=_sensitivity,
        metavar="RATE",
        help="sensitivity for melanoma from which on the partial AUC counts (default: 0.8, as ISIC 2024 has it)",
    )
    parser.add_argument("--card", action="store_true", help="write the figures into the model's card as well")
    add_allow_leaks(parser)
    add_out(parser)
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.runtime import check_lasting
    from dermaray.errors import DataError
    from dermaray.evaluation.card import write_card
    from dermaray.evaluation.checks import check_measurable
    from dermaray.files import atomic_directory, check_output
    from dermaray.models.artifact import open_artifact
    from jobs.console import say, tracked
    from jobs.options import manifest_of
    from jobs.session import ray_session

    check_lasting(args.out)
    if args.card:
        check_lasting(args.model)
    check_output(args.out, overwrite=args.overwrite)
    artifact = open_artifact(args.model.resolve())
    artifact.verify()
    manifest = manifest_of(args)
    leaks = check_measurable([artifact], manifest, args.split, allow_leaks=args.allow_leaks)
    if args.card and (leaks or args.split != "test"):
        raise DataError("--card takes the figures of a test split that does not leak, and of no other images")
    with ray_session(args) as cluster, atomic_directory(args.out, overwrite=args.overwrite) as out:
        from dermaray.evaluation.evaluate import evaluate
        from dermaray.evaluation.metrics import MIN_TPR
        from dermaray.evaluation.tables import HEADLINES

        min_tpr = MIN_TPR if args.min_tpr is None else args.min_tpr
        cluster.check_actors(1)
        with tracked("Evaluating", manifest.rows(args.split).num_rows) as tracker:
            metrics = evaluate(artifact, manifest, args.split, leaks, out, tracker.advance, min_tpr)
    say(f"{artifact.name} on {metrics['images']:,} {args.split} images, with 95 % intervals:")
    for name, title in HEADLINES.items():
        if metrics[name] is not None:
            interval = metrics["intervals"][name]
            told = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
            say(f"  {title:22} {metrics[name]:.3f}{told}")
    say(f"Report: {args.out / 'report.html'}")
    if args.card:
        facts = metrics["facts"]
        write_card(artifact, metrics, {name: facts[name] for name in ("Data", "Data digest", "Split", "Images")})
        say(f"Card: {artifact.path / 'model_card.html'}")
    return 0


def _sensitivity(text: str) -> float:
    """Read a sensitivity that may be asked for, 0 to below 1."""
    with suppress(ValueError):
        if 0 <= float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"a number from 0 to below 1 was expected. Received: {text}")


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("evaluate"))
