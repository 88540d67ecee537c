"""Tables of what protocols measured: on the terminal, and in a report for one run or several."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sphereface_jax.evaluation.statistics import McNemarResult
from sphereface_jax.evaluation.verification import VerificationResult
from sphereface_jax.reports.html import table
from sphereface_jax.reports.run_record import Numbers, RunRecord, Score

_RANKS = ("1", "5", "10")
Cells = dict[str, str]
Interval = tuple[float, float]


def print_results(
    results: Mapping[str, Any],
    console: Console,
    *,
    title: str,
    intervals: Mapping[str, Mapping[str, Interval]] | None = None,
) -> None:
    """Prints a table with a line a protocol.

    Args:
      results: the result of each protocol, by its name.
      console: where to print.
      title: what was scored.
      intervals: for some protocols the 95 % interval of `accuracy_10_fold`.
    """
    intervals = intervals or {}
    measured = {name: result.to_json() for name, result in results.items()}
    lines = []
    for name, numbers in measured.items():
        cells = _cells(numbers)
        if name in intervals:
            low, high = intervals[name]["accuracy_10_fold"]
            cells["95%\ninterval"] = f"{100 * low:.1f}–{high:.1%}"
        lines.append((name, cells))
        if numbers.get("prototypes") is not None:
            lines.append(("prototypes", _prototype_cells(cells, numbers["prototypes"])))
    console.print(title, highlight=False, markup=False)
    _print_lines(lines, console)
    if any(numbers.get("optimistic") for numbers in measured.values()):
        console.print(
            "* optimistic: the threshold is chosen on the very pairs that it is scored on"
        )
    for line in dict.fromkeys(itertools.chain.from_iterable(map(_left_open, measured.values()))):
        console.print(line, highlight=False)


def print_baselines(
    baselines: Mapping[str, tuple[VerificationResult, McNemarResult]],
    console: Console,
    *,
    title: str,
) -> None:
    """Prints how another run fares on the same pairs, and how likely chance alone is.

    Args:
      baselines: by protocol, the other's result and McNemar's test, this run being its first.
      console: where to print.
      title: what is compared with what.
    """
    lines = [
        (
            name,
            {
                "accuracy\nof B": _accuracy(result.to_json()),
                "right\nonly by A": f"{test.only_first:,}",
                "right\nonly by B": f"{test.only_second:,}",
                "McNemar's\np": f"{test.p_value:.2g}",
            },
        )
        for name, (result, test) in baselines.items()
    ]
    console.print(title, highlight=False, markup=False)
    _print_lines(lines, console)


def _cells(numbers: Numbers) -> Cells:
    """What a table says of a result of any kind, by heading."""
    cells: Cells = {}
    if "accuracy_10_fold" in numbers:
        cells |= {"accuracy": _accuracy(numbers), "95%\ninterval": ""}
    if "auc" in numbers:
        cells |= {"AUC": f"{numbers['auc']:.4f}", "EER": f"{numbers['equal_error_rate']:.2%}"}
    if "rank_k" in numbers:
        cells |= {f"rank\n{k}": f"{numbers['rank_k'][k]:.2%}" for k in _RANKS}
    for key, measure in {"tar_at_far": "TAR at", "dir_at_far": "DIR at"}.items():
        cells |= {f"{measure}\n{far}": _share(rate) for far, rate in numbers.get(key, {}).items()}
    if "angular_fisher_score" in numbers:
        angles = numbers["angles"]
        cells |= {
            "angular\nFisher": f"{numbers['angular_fisher_score']:.4f}",
            "to own\nmean": f"{angles['intra_class_mean']:.1f}° ± {angles['intra_class_std']:.1f}°",
            "nearest\nother": f"{angles['inter_class_nearest_mean']:.1f}°",
            "nearest\nof all": f"{angles['inter_class_nearest_min']:.1f}°",
            "any two\npeople": f"{angles['inter_class_mean']:.1f}°",
            "people": f"{angles['num_classes']:,}",
        }
    return cells


def _prototype_cells(cells: Cells, spread: Numbers) -> Cells:
    return dict.fromkeys(cells, "") | {
        "nearest\nother": f"{spread['nearest_mean']:.1f}°",
        "nearest\nof all": f"{spread['nearest_min']:.1f}°",
        "any two\npeople": f"{spread['mean']:.1f}°",
        "people": f"{spread['num_prototypes']:,}",
    }


def _accuracy(numbers: Numbers) -> str:
    spread = numbers.get("accuracy_std")
    said = f"{numbers['accuracy_10_fold']:.2%}" + ("" if spread is None else f" ± {spread:.2%}")
    return said + "*" * bool(numbers.get("optimistic"))


def _share(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.1%}"


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


def _print_lines(lines: list[tuple[str, Cells]], console: Console) -> None:
    """One table for each run of lines that share headings, their names in one column."""
    width = max(len(name) for name, _ in lines)
    for _, group in itertools.groupby(lines, key=lambda line: next(iter(line[1]))):
        console.print()
        console.print(_table(list(group), width))
    console.print()


def _table(lines: list[tuple[str, Cells]], width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("protocol", min_width=width, overflow="fold", vertical="bottom")
    headings = _in_order(cells for _, cells in lines)
    filled = [name for name in headings if any(cells.get(name) for _, cells in lines)]
    for heading in filled:
        justify: Literal["left", "right"] = "left" if heading == "accuracy" else "right"
        table.add_column(heading, no_wrap=True, vertical="bottom", justify=justify)
    for name, cells in lines:
        table.add_row(Text(name), *(cells.get(heading, "") for heading in filled))
    return table


def _in_order(cells: Iterable[Cells]) -> list[str]:
    """Every heading once, in the order in which they first come."""
    return list(dict.fromkeys(itertools.chain.from_iterable(cells)))


def tables_of_one(run: RunRecord) -> list[str]:
    """Every number of every protocol of a run, a table a kind."""
    deciding = [score for score in run.scores if "auc" in score.numbers]
    finding = [score for score in run.scores if "rank_k" in score.numbers]
    tables = []
    if deciding:
        places = {score.on for score in deciding}
        where = f" on {places.pop()}" if len(places) == 1 else ""
        fars = list(dict.fromkeys(f for s in deciding for f in s.numbers.get("tar_at_far", {})))
        headings = ["protocol", "on", "accuracy", "95 % interval", "AUC", "EER"]
        headings += [f"TAR at {far}" for far in fars] + ["mirror", "threshold"]
        rows = [_verification_row(score, fars) for score in deciding]
        if where:
            headings, rows = headings[:1] + headings[2:], [row[:1] + row[2:] for row in rows]
        optimistic = any(score.numbers.get("optimistic") for score in deciding)
        note = "; * its threshold is chosen on the pairs it is scored on" * optimistic
        tables.append(table(headings, rows, caption=f"Verification{where}{note}"))
    if finding:
        headings = ["protocol", "on", "rank 1", "rank 5", "rank 10", "searches", "DIR at FAR"]
        rows = [_identification_row(score) for score in finding]
        tables.append(table(headings, rows, caption="Identification: who is it?"))
    shapes = [score for score in run.scores if "angular_fisher_score" in score.numbers]
    if shapes:
        headings = ["protocol", "on", "angular Fisher", "to own mean", "nearest other", "people"]
        rows = [_geometry_row(score) for score in shapes]
        tables.append(table(headings, rows, caption="Geometry: how do people lie?"))
    return tables


def _verification_row(score: Score, fars: Sequence[str]) -> list[str]:
    numbers, cells = score.numbers, _cells(score.numbers)
    interval = numbers.get("intervals_95", {}).get("accuracy_10_fold")
    return [
        score.protocol,
        score.on,
        cells.get("accuracy", "–"),
        f"{100 * interval[0]:.1f} – {interval[1]:.1%}" if interval else "–",
        cells["AUC"],
        cells["EER"],
        *(cells.get(f"TAR at\n{far}", "–") for far in fars),
        numbers.get("flip", "–"),
        f"{numbers['threshold']:.3f}" if "threshold" in numbers else "–",
    ]


def _identification_row(score: Score) -> list[str]:
    numbers = score.numbers
    alarms = ", ".join(
        f"{rate:.1%} at {far}" for far, rate in numbers["dir_at_far"].items() if rate is not None
    )
    ranks = [_share(numbers["rank_k"].get(rank)) for rank in _RANKS]
    searches = numbers.get("num_searches", 0)
    return [score.protocol, score.on, *ranks, f"{searches:,}", alarms or "–"]


def _geometry_row(score: Score) -> list[str]:
    cells = _cells(score.numbers)
    shown = ("angular\nFisher", "to own\nmean", "nearest\nother", "people")
    return [score.protocol, score.on, *(cells[heading] for heading in shown)]


def table_of_many(runs: Sequence[RunRecord]) -> str:
    """The first number of every protocol, a column a run."""
    by_run = [{(s.protocol, s.on): s for s in run.scores} for run in runs]
    keys = list(dict.fromkeys(key for each in by_run for key in each))
    rows = []
    for protocol, on in keys:
        cells = [_headline(each.get((protocol, on))) for each in by_run]
        if any(cells):
            rows.append([protocol, on, *(cell or "–" for cell in cells)])
    return table(
        ["protocol", "on", *(run.name for run in runs)],
        rows,
        caption="Accuracy of verification (or AUC), rank-1 rate of identification",
    )


def _headline(score: Score | None) -> str | None:
    if score is None:
        return None
    if score.verifies:
        return _accuracy(score.numbers)
    if "rank_k" in score.numbers:
        return f"{score.numbers['rank_k']['1']:.2%} rank 1"
    return f"AUC {score.numbers['auc']:.4f}" if "auc" in score.numbers else None
