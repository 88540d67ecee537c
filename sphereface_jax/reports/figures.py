"""Still pictures of a run: training curves, angle distributions, ROC.

Drawn with Matplotlib's objects and its Agg canvas, never through pyplot, so that nothing global
is touched and no display is needed. Colours are Okabe and Ito's, which colour-blind readers can
tell apart, and lines differ in dash as well.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike

from sphereface_jax.data.files import AtomicFile
from sphereface_jax.evaluation.pairs import to_degrees
from sphereface_jax.evaluation.roc import check_scores

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_INK, _GRID = "#333333", "#E4E4E4"
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_DOTS_PER_INCH = 150

# A key of metrics.jsonl, the panel's title, whether its axis is logarithmic.
TRAINING_PANELS = (
    ("loss", "Loss", False),
    ("annealing_lambda", "Annealing λ", True),
    ("accuracy", "Training accuracy without the margin", False),
    ("target_angle", "Angle to the own prototype (degrees)", False),
    ("embedding_norm", "Mean embedding norm ‖x‖", False),
    ("learning_rate", "Learning rate", True),
)


def plot_training_curves(metrics: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> None:
    """Draws what a run logged against the step, one panel a quantity.

    Args:
      metrics: rows of `metrics.jsonl`, each with `step` and any of the keys of
        `TRAINING_PANELS`; a quantity that no row has is left out.
      path: the PNG to write; written whole or not at all.

    Raises:
      ValueError: where no row has `step` and a quantity to draw.
    """
    rows = [row for row in metrics if "step" in row]
    panels = [panel for panel in TRAINING_PANELS if any(panel[0] in row for row in rows)]
    if not panels:
        keys = ", ".join(key for key, _, _ in TRAINING_PANELS)
        raise ValueError(f"metrics: expected rows with step and one of {keys}; found none")
    num_columns = min(3, len(panels))
    num_rows = -(-len(panels) // num_columns)
    figure = _figure(4.2 * num_columns, 2.9 * num_rows)
    for number, (key, title, is_log) in enumerate(panels, start=1):
        axes = _dress(figure.add_subplot(num_rows, num_columns, number))
        points = np.array([(row["step"], row[key]) for row in rows if key in row], float)
        axes.plot(*points.T, color=BLUE, linewidth=1.4, marker="o" if len(points) == 1 else "")
        axes.set_title(title)
        axes.set_xlabel("Step")
        if is_log and (points[:, 1] > 0).all():
            axes.set_yscale("log")
        if key == "accuracy":
            axes.set_ylim(0, 1.02)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    _save(figure, path)


def plot_angle_distributions(
    cosine: ArrayLike,
    is_same: ArrayLike,
    path: str | os.PathLike,
    *,
    threshold: float | None = None,
) -> None:
    """Draws the angles between the embeddings of same and of different pairs as two histograms.

    Args:
      cosine: [P] cosines of pairs.
      is_same: [P] booleans.
      path: the PNG to write.
      threshold: a cosine to mark, the operating point, where there is one.

    Raises:
      ValueError: for shapes that differ, values that are not finite, or no same or no
        different pairs.
    """
    cosine, is_same = check_scores(cosine, is_same)
    angle = to_degrees(cosine)
    low, high = np.floor(angle.min()), np.ceil(angle.max())
    bins = np.linspace(low, max(high, low + 1), 61).tolist()
    figure = _figure(7.0, 4.0)
    axes = _dress(figure.add_subplot())
    for name, chosen, colour, hatch in (
        ("same person", is_same, BLUE, ""),
        ("different people", ~is_same, ORANGE, "////"),
    ):
        weights = np.full(chosen.sum(), 1 / chosen.sum())
        label = f"{name} ({chosen.sum():,} pairs, mean {angle[chosen].mean():.1f}°)"
        axes.hist(angle[chosen], bins, weights=weights, color=colour, alpha=0.35)
        axes.hist(
            angle[chosen], bins, weights=weights, histtype="step", color=colour, label=label,
            linewidth=1.4, hatch=hatch, hatch_linewidth=0.4,
        )  # fmt: skip
    if threshold is not None:
        boundary = float(to_degrees(threshold))
        axes.axvline(
            boundary, color=_INK, linewidth=1.2, linestyle="--", label=f"threshold {boundary:.1f}°"
        )
    axes.set_title("Angles between the two embeddings of a pair")
    axes.set_xlabel("Angle (degrees)")
    axes.set_ylabel("Fraction of the pairs")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    axes.set_ylim(top=axes.get_ylim()[1] * 1.3)
    _legend(axes, "upper center")
    _save(figure, path)


def plot_roc(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], path: str | os.PathLike) -> None:
    """Draws ROC curves by name over a logarithmic false accept rate.

    Args:
      curves: name to (far, tar), each [K], far rising to 1. Points of far 0 lie off a
        logarithmic axis, so a curve starts at its first false accept.
      path: the PNG to write.

    Raises:
      ValueError: for no curves, or a curve whose far and tar differ in shape.
    """
    if not curves:
        raise ValueError("curves: expected at least one, got none")
    figure = _figure(6.0, 4.6)
    axes = _dress(figure.add_subplot())
    smallest = 1.0
    for (name, (far, tar)), colour, dash in zip(
        curves.items(), itertools.cycle(_COLOURS), itertools.cycle(_DASHES), strict=False
    ):
        far, tar = np.asarray(far, float), np.asarray(tar, float)
        if far.ndim != 1 or far.shape != tar.shape or not (far > 0).any():
            shapes = f"{list(far.shape)} and {list(tar.shape)}"
            raise ValueError(f"curves[{name!r}]: expected far and tar of shape [K], got {shapes}")
        # One point a false accept rate, its best; earlier ones would hang at the left edge.
        drawn = (far > 0) & (far != np.append(far[1:], np.inf))
        smallest = min(smallest, far[drawn][0])
        axes.plot(
            far[drawn], tar[drawn], color=colour, linestyle=dash, linewidth=1.6, label=name,
            drawstyle="steps-post",
        )  # fmt: skip
    chance = np.geomspace(min(smallest, 0.1), 1, 200)
    axes.plot(chance, chance, color="#999999", linewidth=1, linestyle=":", label="chance")
    axes.set_xscale("log")
    axes.set_xlim(chance[0], 1)
    axes.set_ylim(0, 1.01)
    axes.set_title("What a threshold accepts")
    axes.set_xlabel("False accept rate (different people taken for the same)")
    axes.set_ylabel("True accept rate")
    _legend(axes, "lower right" if smallest > 0.05 else "lower left")
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(
        figsize=(width, height),
        dpi=_DOTS_PER_INCH,
        facecolor="white",
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1),
    )
    FigureCanvasAgg(figure)
    return figure


def _dress(axes: Axes) -> Axes:
    """Light axes: two spines, a pale grid behind the data, small dark text."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.title.set(fontsize=10, color=_INK)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=9, color=_INK)
    return axes


def _legend(axes: Axes, place: Literal["upper center", "lower left", "lower right"]) -> None:
    axes.legend(loc=place, fontsize=8, labelcolor=_INK, edgecolor="none", framealpha=1)


def _save(figure: Figure, path: str | os.PathLike) -> None:
    with AtomicFile(Path(path)) as file:
        figure.savefig(file, format="png")
