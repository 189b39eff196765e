"""What a person sees while a job runs: progress with rate and time left; where it is piped, results alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Console(Console):
    """Leaves it to `run_job` what becomes of a job whose output nobody reads any more."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console = _Console(highlight=False, soft_wrap=True)


class _Rate(ProgressColumn):
    """Items a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f} {self._unit}/s" if task.speed else "", style="progress.data.speed")


@dataclass
class Tracker:
    """One running bar."""

    _progress: Progress
    _task: int

    def advance(self, count: int) -> None:
        """Count items as done."""
        self._progress.advance(self._task, count)  # type: ignore[arg-type]

    def update(self, completed: int, note: str = "", total: int | None = None) -> None:
        """Set how many items are done, a short note beside the bar, and how many there are, once that is known."""
        self._progress.update(self._task, completed=completed, note=note, total=total)  # type: ignore[arg-type]


@contextmanager
def tracked(description: str, total: int | None, unit: str = "images") -> Iterator[Tracker]:
    """Show a bar while the block runs; show nothing where the output is not a terminal.

    Args:
        description: What is going on.
        total: How many items there are, or None where nobody knows yet.
        unit: What is counted.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Tracker(progress, progress.add_task(description, total=total, note=""))


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """Show a spinner while something of unknown length runs; nothing where the output is not a terminal."""
    if not console.is_terminal:
        yield
        return
    with console.status(description):
        yield


def how_to_go_on(*, new: bool) -> str:
    """Say by what command an interrupted job goes on, of which `--new` may have been part."""
    return "The same command without --new goes on" if new else "The same command goes on; --new begins anew"


def say(message: str) -> None:
    """Print one line of a job's result."""
    console.print(message, markup=False)
