"""What a person sees: progress on stderr, results on stdout. Pretty on a terminal, plain lines where output is piped."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import typer

_EVERY_S = 5.0  # how often a log that nobody redraws gets a line about a step that goes on


class Steps(Protocol):
    """Progress of a long job as a row of steps."""

    def step(self, text: str) -> None:
        """The step before is done, this one begins."""
        ...

    def update(self, done: int, total: int | None = None, *, detail: str = "") -> None:
        """How far the running step is, in its own unit; `detail` says more of it in words, such as a rate."""
        ...

    def note(self, text: str) -> None:
        """A line that stays, such as a warning."""
        ...


class PlainSteps:
    """One line for each step, and one every few seconds for a step that goes on: what a CI log can show."""

    def __init__(self) -> None:
        self._text = ""
        self._next_line = 0.0

    def step(self, text: str) -> None:
        """Begin a step."""
        self._text, self._next_line = text, time.monotonic() + _EVERY_S
        typer.echo(text, err=True)

    def update(self, done: int, total: int | None = None, *, detail: str = "") -> None:
        """Tell of it now and then."""
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _EVERY_S
            of = f" of {total:,}" if total else ""
            typer.echo(f"{self._text}: {done:,}{of}" + (f" ({detail})" if detail else ""), err=True)

    def note(self, text: str) -> None:
        """Write the line."""
        typer.echo(text, err=True)


class RichSteps:
    """A bar for each step on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - loads only where there is a terminal
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        self._console = Console(stderr=True, highlight=False)
        columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), BarColumn(bar_width=24))
        detail = TextColumn("{task.fields[detail]}", style="dim")
        self.progress = Progress(*columns, MofNCompleteColumn(), TimeElapsedColumn(), detail, console=self._console)
        self._task: Any = None

    def step(self, text: str) -> None:
        """Finish the bar before and begin one."""
        self.finish()
        self._task = self.progress.add_task(text, total=None, detail="")

    def update(self, done: int, total: int | None = None, *, detail: str = "") -> None:
        """Move the bar."""
        self.progress.update(self._task, completed=done, total=total, detail=detail)

    def note(self, text: str) -> None:
        """Write the line above the bars."""
        self._console.print(text, markup=False)

    def finish(self) -> None:
        """Fill the running bar."""
        if self._task is not None:
            task = self.progress.tasks[self._task]
            total = task.total or task.completed or 1
            self.progress.update(self._task, total=total, completed=total)


@contextmanager
def open_steps() -> Iterator[Steps]:
    """Progress on stderr, fit for what stderr is."""
    if not sys.stderr.isatty():
        yield PlainSteps()
        return
    steps = RichSteps()
    with steps.progress:
        yield steps
        steps.finish()


def write(text: str = "", *, end: str = "\n") -> None:
    """A line on stdout, at once: what is streamed is seen while it comes."""
    typer.echo(text + end, nl=False)


def tell(text: str) -> None:
    """A line on stderr: not the result, but what a person at the terminal or in a log wants to know. Losing it ends nothing."""
    with suppress(OSError):  # a full disk, a reader that is gone
        typer.echo(text, err=True)


def write_json(value: Mapping[str, Any]) -> None:
    """One line on stdout for a machine."""
    typer.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def bold(text: str) -> str:
    """The text in bold; `typer.echo` takes the style off again where stdout is no terminal."""
    return typer.style(text, bold=True)


def dim(text: str) -> str:
    """The text less prominent, likewise."""
    return typer.style(text, dim=True)
