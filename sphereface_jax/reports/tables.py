"""The table of an evaluation: a line a protocol, under the headings of its kind of result."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sphereface_jax.evaluation.geometry_measures import GeometryResult
from sphereface_jax.evaluation.identification import IdentificationResult
from sphereface_jax.evaluation.statistics import McNemarResult
from sphereface_jax.evaluation.templates import (
    TemplateIdentificationResult,
    TemplateVerificationResult,
)
from sphereface_jax.evaluation.verification import VerificationResult

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
    lines = []
    for name, result in results.items():
        cells = result_cells(result)
        if name in intervals:
            low, high = intervals[name]["accuracy_10_fold"]
            cells["95%\ninterval"] = f"{100 * low:.1f}–{high:.1%}"
        lines.append((name, cells))
        if isinstance(result, GeometryResult) and result.prototypes is not None:
            lines.append(("prototypes", _prototype_cells(result)))
    console.print(title, highlight=False, markup=False)
    _print_lines(lines, console)
    if any(getattr(result, "optimistic", False) for result in results.values()):
        console.print(
            "* optimistic: the threshold is chosen on the very pairs that it is scored on"
        )
    for line in dict.fromkeys(itertools.chain.from_iterable(map(_left_open, results.values()))):
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
                "accuracy\nof B": _accuracy(result),
                "right\nonly by A": f"{test.only_first:,}",
                "right\nonly by B": f"{test.only_second:,}",
                "McNemar's\np": f"{test.p_value:.2g}",
            },
        )
        for name, (result, test) in baselines.items()
    ]
    console.print(title, highlight=False, markup=False)
    _print_lines(lines, console)


def result_cells(result: Any) -> Cells:
    """What the table says of a result, by heading."""
    match result:
        case VerificationResult():
            accuracy = {"accuracy": _accuracy(result), "95%\ninterval": ""}
            return accuracy | _curve_cells(result) | _rates("TAR at", result.tar_at_far)
        case TemplateVerificationResult():
            return _curve_cells(result) | _rates("TAR at", result.tar_at_far)
        case IdentificationResult():
            return (
                _rank_cells(result)
                | _rates("TAR at", result.tar_at_far)
                | _rates("DIR at", result.dir_at_far)
            )
        case TemplateIdentificationResult():
            return _rank_cells(result) | _rates("DIR at", result.dir_at_far)
        case GeometryResult():
            angles = result.angles
            return {
                "angular\nFisher": f"{result.angular_fisher_score:.4f}",
                "to own\nmean": f"{angles.intra_class_mean:.1f}° ± {angles.intra_class_std:.1f}°",
                "nearest\nother": f"{angles.inter_class_nearest_mean:.1f}°",
                "nearest\nof all": f"{angles.inter_class_nearest_min:.1f}°",
                "any two\npeople": f"{angles.inter_class_mean:.1f}°",
                "people": f"{angles.num_classes:,}",
            }
        case _:
            raise TypeError(f"result: expected what a protocol returns, got {type(result)}")


def _prototype_cells(result: GeometryResult) -> Cells:
    assert result.prototypes is not None
    spread = result.prototypes
    return dict.fromkeys(result_cells(result), "") | {
        "nearest\nother": f"{spread.nearest_mean:.1f}°",
        "nearest\nof all": f"{spread.nearest_min:.1f}°",
        "any two\npeople": f"{spread.mean:.1f}°",
        "people": f"{spread.num_prototypes:,}",
    }


def _accuracy(result: VerificationResult) -> str:
    spread = "" if result.accuracy_std is None else f" ± {result.accuracy_std:.2%}"
    return f"{result.accuracy_10_fold:.2%}{spread}" + "*" * result.optimistic


def _curve_cells(result: VerificationResult | TemplateVerificationResult) -> Cells:
    return {"AUC": f"{result.auc:.4f}", "EER": f"{result.equal_error_rate:.2%}"}


def _rank_cells(result: IdentificationResult | TemplateIdentificationResult) -> Cells:
    return {f"rank\n{k}": f"{result.rank_k[k]:.2%}" for k in _RANKS}


def _rates(measure: str, rates: Mapping[str, float | None]) -> Cells:
    return {
        f"{measure}\n{far}": "–" if rate is None else f"{rate:.1%}" for far, rate in rates.items()
    }


def _left_open(result: Any) -> Iterator[str]:
    """Says which rates too few comparisons leave open, and how few they are."""
    match result:
        case VerificationResult() | TemplateVerificationResult():
            counts = {"tar_at_far": (result.num_pairs - result.num_same, "different pairs")}
        case IdentificationResult():
            counts = {
                "tar_at_far": (result.num_impostor_scores, "impostor comparisons"),
                "dir_at_far": (result.num_unmated, "probes without a mate"),
            }
        case TemplateIdentificationResult():
            counts = {"dir_at_far": (result.num_probes, "probes")}
        case _:
            counts = {}
    for field, (count, unit) in counts.items():
        if None in getattr(result, field).values():
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
