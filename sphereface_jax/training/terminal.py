"""What is said on the terminal: lines, warnings and progress bars."""

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


class RateColumn(ProgressColumn):
    """Things done a second."""

    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Returns the rate, or a dash before the first advance."""
        return Text(f"{task.speed:,.1f} {self.unit}/s" if task.speed else f"– {self.unit}/s")


def progress_bar(console: Console, unit: str) -> Progress:
    """A bar with what is done, the rate and the time left; silent where there is no terminal."""
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
    console: Console, description: str, unit: str, total: int
) -> Iterator[Callable[[int], None]]:
    """Shows a bar while the context lasts; yields the function that counts things done."""
    with progress_bar(console, unit) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


def say(console: Console, line: str, *, style: str | None = None) -> None:
    """Prints a line as it is: brackets in a path or in an error are no markup."""
    console.print(line, style=style, highlight=False, markup=False)


def warn(console: Console, message: str) -> None:
    """Says something that the user should act on."""
    say(console, f"warning: {message}", style="yellow")
