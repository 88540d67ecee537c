"""Tables of what protocols measured: on the terminal, and in a report for one run or several."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sphereface_jax.evaluation.results import Numbers, result_cells
from sphereface_jax.reports.html import table
from sphereface_jax.reports.run_record import RunRecord

Line = tuple[str, dict[str, str]]
_TOO_WIDE = ("rank\n20", "mirror", "threshold", "searches")
_KINDS = {
    "auc": "Verification; * its threshold is chosen on the pairs it is scored on",
    "rank_k": "Identification: who is it?",
    "angular_fisher_score": "Geometry: how do people lie?",
}


def print_results(protocols: Mapping[str, Numbers], console: Console, *, title: str) -> None:
    """Prints a table with a line per protocol.

    Args:
      protocols: the numbers of each protocol, as an evaluation's JSON has them.
      console: where to print.
      title: what was scored.
    """
    lines = [line for name, numbers in protocols.items() for line in _lines(name, numbers)]
    console.print(title, highlight=False, markup=False)
    _print_lines([(name, _without(cells, _TOO_WIDE)) for name, cells in lines], console)
    if any(numbers.get("optimistic") for numbers in protocols.values()):
        console.print(
            "* optimistic: the threshold is chosen on the very pairs that it is scored on"
        )
    for line in dict.fromkeys(itertools.chain.from_iterable(map(_left_open, protocols.values()))):
        console.print(line, highlight=False)


def print_baselines(protocols: Mapping[str, Numbers], console: Console, *, title: str) -> None:
    """Prints how another run fares on the same pairs, and how likely chance alone is.

    Args:
      protocols: as in `print_results`; those without "against" are left out.
      console: where to print.
      title: what is compared with what.
    """
    lines = [
        (
            name,
            {
                "accuracy\nof B": result_cells(other)["accuracy"],
                "right\nonly by A": f"{other['only_first']:,}",
                "right\nonly by B": f"{other['only_second']:,}",
                "McNemar's\np": f"{other['p_value']:.2g}",
            },
        )
        for name, numbers in protocols.items()
        if (other := numbers.get("against")) is not None
    ]
    console.print(title, highlight=False, markup=False)
    _print_lines(lines, console)


def _lines(name: str, numbers: Numbers) -> Iterator[Line]:
    """The line of a protocol, and one of the prototypes where it has them."""
    cells = result_cells(numbers)
    yield name, cells
    spread = numbers.get("prototypes")
    if spread is not None:
        yield (
            "prototypes",
            dict.fromkeys(cells, "")
            | {
                "nearest\nother": f"{spread['nearest_mean']:.1f}°",
                "nearest\nof all": f"{spread['nearest_min']:.1f}°",
                "any two\npeople": f"{spread['mean']:.1f}°",
                "people": f"{spread['num_prototypes']:,}",
            },
        )


def _without(cells: dict[str, str], headings: Sequence[str]) -> dict[str, str]:
    return {heading: text for heading, text in cells.items() if heading not in headings}


def _left_open(numbers: Numbers) -> Iterator[str]:
    """Says which rates too few comparisons leave open, and how few they are."""
    counts = {}
    if "auc" in numbers:
        counts = {"tar_at_far": (numbers["num_pairs"] - numbers["num_same"], "different pairs")}
    elif "num_unmated" in numbers:
        counts = {
            "tar_at_far": (numbers["num_impostor_scores"], "impostor comparisons"),
            "dir_at_far": (numbers["num_unmated"], "probes without a mate"),
        }
    elif "rank_k" in numbers:
        counts = {"dir_at_far": (numbers["num_probes"], "probes")}
    for field, (count, unit) in counts.items():
        if None in numbers[field].values():
            yield f"– fewer than 1 in {count:,} cannot be shown with {count:,} {unit}"


def _print_lines(lines: Sequence[Line], console: Console) -> None:
    """One table for each run of lines that share headings, their names in one column."""
    width = max(len(name) for name, _ in lines)
    for _, group in itertools.groupby(lines, key=lambda line: next(iter(line[1]))):
        console.print()
        console.print(_table(list(group), width))
    console.print()


def _table(lines: list[Line], width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("protocol", min_width=width, overflow="fold", vertical="bottom")
    filled = _filled_headings(cells for _, cells in lines)
    for heading in filled:
        justify: Literal["left", "right"] = "left" if heading == "accuracy" else "right"
        table.add_column(heading, no_wrap=True, vertical="bottom", justify=justify)
    for name, cells in lines:
        table.add_row(Text(name), *(cells.get(heading, "") for heading in filled))
    return table


def _filled_headings(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """Every heading with a text in some row, once, in the order in which they first come."""
    rows = list(rows)
    headings = dict.fromkeys(itertools.chain.from_iterable(rows))
    return [heading for heading in headings if any(row.get(heading) for row in rows)]


def tables_of_one(run: RunRecord) -> list[str]:
    """Every number of every protocol of a run, a table per kind."""
    tables = []
    for field, caption in _KINDS.items():
        lines = [
            (name, {"on": score.on} | cells)
            for score in run.scores
            if field in score.numbers
            for name, cells in _lines(score.protocol, score.numbers)
        ]
        if lines:
            headings = _filled_headings(cells for _, cells in lines)
            rows = [[name, *(cells.get(h) or "–" for h in headings)] for name, cells in lines]
            shown = [heading.replace("\n", " ") for heading in headings]
            tables.append(table(["protocol", *shown], rows, caption=caption))
    return tables


def table_of_many(runs: Sequence[RunRecord]) -> str:
    """The first number of every protocol, a column per run."""
    by_run = [{(s.protocol, s.on): _first_number(s.numbers) for s in run.scores} for run in runs]
    keys = list(dict.fromkeys(key for each in by_run for key in each))
    rows = [[*key, *(each.get(key) or "–" for each in by_run)] for key in keys]
    return table(
        ["protocol", "on", *(run.name for run in runs)],
        [row for row in rows if set(row[2:]) != {"–"}],
        caption="Accuracy of verification (or AUC), rank-1 rate of identification",
    )


def _first_number(numbers: Numbers) -> str | None:
    cells = result_cells(numbers)
    if "accuracy" in cells:
        return cells["accuracy"]
    heading = next((name for name in ("rank\n1", "AUC") if name in cells), None)
    return heading and f"{heading} {cells[heading]}".replace("\n", " ")
