"""What a protocol measured: as plain values for JSON, and as the words of every table and card."""

import dataclasses
from collections.abc import Mapping
from typing import Any

Numbers = Mapping[str, Any]
"""The entry of a protocol in an evaluation's JSON."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What something measured; its fields are its JSON, but for arrays, which have `repr=False`."""

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain values, an entry of `{"protocols": {...}}` for a protocol's."""
        return _plain(self)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        shown = (field.name for field in dataclasses.fields(value) if field.repr)
        return {name: _plain(getattr(value, name)) for name in shown}
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return value


def result_cells(numbers: Numbers) -> dict[str, str]:
    r"""The numbers of a protocol of any kind as text, by heading.

    Args:
      numbers: a result's `to_json`, with "intervals_95" where they were measured.

    Returns:
      Text by heading, in the order of columns. A heading has a line break where a narrow column
      may break it; "–" is a rate that too few comparisons leave open.

    Example:
      >>> result_cells({"accuracy_10_fold": 0.875, "accuracy_std": 0.01, "optimistic": True})
      {'accuracy': '87.50% ± 1.00%*', '95%\ninterval': ''}
    """
    cells: dict[str, str] = {}
    if "accuracy_10_fold" in numbers:
        spread, intervals = numbers.get("accuracy_std"), numbers.get("intervals_95")
        text = f"{numbers['accuracy_10_fold']:.2%}" + ("" if spread is None else f" ± {spread:.2%}")
        cells |= {"accuracy": text + "*" * bool(numbers.get("optimistic")), "95%\ninterval": ""}
        if intervals is not None:
            low, high = intervals["accuracy_10_fold"]
            cells["95%\ninterval"] = f"{100 * low:.1f}–{high:.1%}"
    if "auc" in numbers:
        cells |= {"AUC": f"{numbers['auc']:.4f}", "EER": f"{numbers['equal_error_rate']:.2%}"}
    cells |= {f"rank\n{k}": f"{rate:.2%}" for k, rate in numbers.get("rank_k", {}).items()}
    for key, measure in {"tar_at_far": "TAR at", "dir_at_far": "DIR at"}.items():
        cells |= {
            f"{measure}\n{far}": "–" if rate is None else f"{rate:.1%}"
            for far, rate in numbers.get(key, {}).items()
        }
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
    if "threshold" in numbers:
        cells |= {"mirror": numbers["flip"], "threshold": f"{numbers['threshold']:.3f}"}
    if "num_searches" in numbers:
        cells["searches"] = f"{numbers['num_searches']:,}"
    return cells
