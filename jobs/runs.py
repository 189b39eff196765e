"""python -m jobs.runs [FOLDER]

The training runs below a folder: those that ended, with the figures of their best epoch, and those that can go on.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dermaray.training.runs import RunSummary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="where to look (default: runs)")


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from rich.table import Column, Table

    from dermaray.training.runs import list_runs
    from jobs.console import console, say

    runs = list_runs(args.folder)
    if not runs:
        say(f"No runs below {args.folder}")
        return 0
    table = Table(
        Column("run", overflow="fold"),
        "ended",
        "backbone",
        "epochs",
        "best",
        "val. loss",
        "val. accuracy",
        box=None,
        pad_edge=False,
    )
    for found in runs:
        table.add_row(
            str(found.out),
            found.changed.astimezone().strftime("%Y-%m-%d %H:%M") if found.finished else "not yet",
            found.backbone,
            *_figures(found),
        )
    console.print(table)
    return 0


def _figures(run: "RunSummary") -> list[str]:
    """Return the cells of a run's best epoch; of one that has not ended nothing is known."""
    if not run.finished:
        return []
    best = run.figures
    return [str(run.epochs), f"{best['epoch']:.0f}", f"{best['val_loss']:.3f}", f"{best['val_accuracy']:.1%}"]


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("runs"))
