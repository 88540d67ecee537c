"""What is said on the terminal: lines, warnings and progress bars."""

import datetime
import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from sphereface_jax.data.finder import describe_passed_over
from sphereface_jax.data.text import IN_PLAIN_LETTERS, printable


class RateColumn(ProgressColumn):
    """Things done a second."""

    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Returns the rate, or a dash before the first advance."""
        return Text(f"{task.speed:,.1f} {self.unit}/s" if task.speed else f"– {self.unit}/s")


def progress_bar(console: Console, unit: str) -> Progress:
    """A bar with what is done, the rate and the time left; silent where there is no terminal.

    Args:
      console: where to show it.
      unit: what is counted, for the rate.

    Returns:
      The bar, a context.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        RateColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def counting(
    console: Console,
    description: str,
    unit: str,
    total: int,
    *,
    every: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], None]]:
    """Shows a bar while the context lasts.

    Where there is no terminal for a bar, such as in a file, it prints a line per minute.

    Args:
      console: where to show it.
      description: what is being done.
      unit: to what.
      total: how many there are.
      every: seconds between lines.
      clock: tells the time in seconds.

    Yields:
      The function that counts things done; it is given how many since the last call.
    """
    if console.is_terminal:
        with progress_bar(console, unit) as progress:
            task = progress.add_task(description, total=total)
            yield lambda count: progress.advance(task, count)
        return
    done, start = 0, clock()
    due = start + every

    def advance(count: int) -> None:
        nonlocal done, due
        done += count
        now = clock()
        if now < due or not done:
            return
        due = now + every
        speed = done / (now - start)
        left = datetime.timedelta(seconds=round(max(total - done, 0) / speed))
        say(console, f"{description}: {done:,} of {total:,} {unit}, {speed:,.1f}/s, {left} left")

    yield advance


def show_anywhere() -> None:
    """Lets standard output and error print any text, whatever their encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=IN_PLAIN_LETTERS)


def say_found(console: Console, source: object) -> None:
    """Says what a source found beside its images: its remarks, and what it passed over.

    Args:
      console: where to print.
      source: of faces; without remarks nothing is said.
    """
    for line in getattr(source, "remarks", ()):
        warn(console, line)
    for line in describe_passed_over(getattr(source, "passed_over", ())):
        say(console, line)


def say(console: Console, line: str, *, style: str | None = None) -> None:
    """Prints a line as it is: brackets are not markup, and what the terminal lacks is spelt out.

    Args:
      console: where to print.
      line: plain text.
      style: of rich, such as "yellow".
    """
    text = printable(line, console.encoding)
    console.print(text, style=style, highlight=False, markup=False)


def warn(console: Console, message: str) -> None:
    """Prints a warning that the user should act on.

    Args:
      console: where to print.
      message: what is wrong and what to do.
    """
    say(console, f"warning: {message}", style="yellow")
