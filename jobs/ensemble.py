"""python -m jobs.ensemble --models DIR [DIR ...] --data MANIFEST --out DIR [key.path=value ...]

Several models as one, which answers with their mean; its decisions are fitted anew on the validation images. Of one
model it makes the same with other decisions (`decisions.alert_sensitivity=0.95`) or more views (`views=4`).
"""

import argparse
import sys
from pathlib import Path

from jobs.options import add_address, add_allow_leaks, add_data, add_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    parser.add_argument(
        "--models", type=Path, nargs="+", required=True, metavar="DIR", help="models, or the folders of their runs"
    )
    add_data(parser)
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="set one key: name=five views=4 decisions.coverage=0.95"
    )
    add_allow_leaks(parser)
    add_out(parser)
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.quiet import silent_stderr
    from cluster.runtime import check_lasting
    from dermaray.errors import ConfigError
    from dermaray.evaluation.checks import check_measurable
    from dermaray.files import atomic_directory, check_output
    from dermaray.models.artifact import open_artifact
    from dermaray.training.ensembles import check_members, ensemble_config, write_ensemble
    from jobs.console import say, waiting
    from jobs.options import manifest_of
    from jobs.session import ray_session

    check_lasting(args.out)
    check_output(args.out, overwrite=args.overwrite)
    # An option of several values takes what stands behind it.
    folders = [path for path in args.models if "=" not in path.name or path.exists()]
    changes = [str(path) for path in args.models if path not in folders]
    if not folders:
        raise ConfigError(f"--models names no model. Folders were expected. Received: {', '.join(changes)}")
    artifacts = [open_artifact(path.resolve()) for path in folders]
    config = ensemble_config(artifacts, [*changes, *args.overrides])
    check_members(artifacts, config)
    manifest = manifest_of(args)
    for artifact in artifacts:
        artifact.verify()
    leaks = check_measurable(artifacts, manifest, "val", allow_leaks=args.allow_leaks)
    with ray_session(args), atomic_directory(args.out, overwrite=args.overwrite) as out:
        from jobs.training import import_keras_on_cpus, say_model

        with waiting("Fitting decisions on the validation images"), silent_stderr(verbose=args.verbose):
            import_keras_on_cpus()
            write_ensemble(out / "model", artifacts, manifest, config, leaks=leaks)
    say(f"{len(artifacts)} model(s), {config.views} view(s) of each image")
    say_model(args.out / "model")
    return 0


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("ensemble"))
