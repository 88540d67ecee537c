"""Plots of what a run logged while it learnt."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from sphereface_jax.reports.plot import Plot, axis, line, make_figure
from sphereface_jax.reports.run_record import Numbers, RunRecord

_MOST_POINTS = 600
_SMOOTHING = 0.02


@dataclasses.dataclass(frozen=True)
class _Panel:
    key: str
    title: str
    unit: str
    caption: str
    log: bool = False
    share: bool = False
    smooth: bool = True


_PANELS = (
    _Panel(
        "loss",
        "Loss",
        "loss",
        "It should fall and keep falling after λ has reached its floor. A jump that stays is a run "
        "that broke; a plateau at the dotted line, where drawn, is a run that guesses.",
    ),
    _Panel(
        "annealing_lambda",
        "Annealing λ",
        "λ",
        "How much of the plain softmax is still mixed in: the margin's share is 1 / (1 + λ). The "
        "loss may rise while λ falls, for the task gets harder.",
        log=True,
        smooth=False,
    ),
    _Panel(
        "target_angle",
        "Angle to the target prototype",
        "degrees",
        "From 90° (no relation) downwards. The margin pulls it below what a softmax needs; on a "
        "network that merely memorises it nears 0° while test accuracy stands still.",
    ),
    _Panel(
        "embedding_norm",
        "Embedding norm ‖x‖",
        "norm",
        "In A-Softmax it is the scale of the logits and is learnt. Growth without end goes with a "
        "margin that no longer bites.",
    ),
    _Panel(
        "learning_rate",
        "Learning rate",
        "rate",
        "Steps down should show as drops of the loss.",
        smooth=False,
    ),
    _Panel(
        "accuracy",
        "Training accuracy",
        "accuracy",
        "Measured without the margin, on the batch. It may reach 100 % on few people and still say "
        "little about strangers.",
        share=True,
    ),
    _Panel(
        "gradient_norm",
        "Gradient norm",
        "norm",
        "Before clipping. Spikes come before a loss that jumps.",
        log=True,
    ),
)
_GUESSES = ("softmax", "sphereface")


def training_plots(runs: Sequence[RunRecord]) -> list[Plot]:
    """A plot for each quantity that any of the runs logged."""
    plots = [_panel(panel, runs) for panel in _PANELS]
    return [plot for plot in [*plots, _validation(runs)] if plot is not None]


def _panel(panel: _Panel, runs: Sequence[RunRecord]) -> Plot | None:
    traces, ends = [], []
    alone = len(runs) == 1
    for number, run in enumerate(runs):
        x, y = _column(run.metrics, panel.key)
        if not len(x):
            continue
        smoothed = smooth(y) if panel.smooth else y
        kept = _thin(len(x))
        if alone and panel.smooth:
            thin: dict[str, Any] = {"line": {"width": 1}, "opacity": 0.28, "showlegend": False}
            traces.append(line(x[kept], y[kept], "batch", number, **thin))
        name = panel.unit if alone else run.name
        traces.append(line(x[kept], smoothed[kept], name, number, showlegend=not alone))
        ends.append(f"{run.name} ends at {smoothed[-1]:.3g}")
    if not traces:
        return None
    if panel.key == "loss":
        traces += _guessing(runs)
    y_axis: dict[str, Any] = axis(panel.unit)
    drops = all(run.config["optimizer"]["schedule"] == "step" for run in runs)
    if panel.log or (panel.key == "learning_rate" and drops):
        y_axis |= {"type": "log", "tickformat": "~g"}
        if min(map(_decades, traces)) > 1.5:
            y_axis["dtick"] = 1
    if panel.share:
        y_axis |= {"tickformat": ".0%", "range": [0, 1.02]}
    figure = make_figure(
        traces,
        xaxis=axis("step"),
        yaxis=y_axis,
        showlegend=True,
        hovermode="x unified",
    )
    return Plot(
        panel.title, panel.caption, f"{panel.title} against the step; {', '.join(ends)}.", figure
    )


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A bell-shaped moving average, which does not lag; shorter at both ends.

    Example:
      >>> smooth(np.ones(3)).tolist()
      [1.0, 1.0, 1.0]
    """
    width = max(1.0, _SMOOTHING * len(values))
    sums, weights = (
        gaussian_filter1d(each, width, mode="constant", truncate=3)
        for each in (values, np.ones(len(values)))
    )
    return sums / weights


def _column(records: Sequence[Numbers], key: str) -> tuple[NDArray, NDArray]:
    rows = [(record["step"], record[key]) for record in records if key in record]
    points = np.array(rows, float).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def _decades(trace: Any) -> float:
    """How many powers of ten a line spans."""
    y = np.asarray(trace.y, float)
    y = y[y > 0]
    return float(np.log10(y.max() / y.min())) if len(y) else 0.0


def _thin(count: int) -> NDArray[np.int64]:
    """At most some hundred indices, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).round().astype(np.int64))


def _guessing(runs: Sequence[RunRecord]) -> list[Any]:
    """The loss of guessing, ln C, where all runs have that loss and as many classes."""
    counts = {int(run.prototypes.num_prototypes) for run in runs if run.prototypes is not None}
    names = {run.config["loss"]["name"] for run in runs}
    if len(counts) != 1 or not names.issubset(_GUESSES):
        return []
    classes = counts.pop()
    last = max(record["step"] for run in runs for record in run.metrics)
    chance = math.log(classes)
    dotted = {"dash": "dot", "width": 1.5}
    return [line([0, last], [chance] * 2, f"guessing: ln {classes:,}", "soft", line=dotted)]


def _validation(runs: Sequence[RunRecord]) -> Plot | None:
    traces = []
    for number, run in enumerate(runs):
        x, y = _column(run.validation, "accuracy_10_fold")
        if len(x):
            trace = line(x, y, run.name, number)
            traces.append(trace.update(mode="lines+markers"))
    if not traces:
        return None
    figure = make_figure(
        traces,
        xaxis=axis("step"),
        yaxis=axis("accuracy", tickformat=".1%"),
        showlegend=len(traces) > 1,
    )
    return Plot(
        "Accuracy on held-out people",
        "Pairs of people who were kept out of training. The step at which it stops rising is the "
        "step at which to stop.",
        "Ten-fold accuracy on held-out identities against the step.",
        figure,
    )
