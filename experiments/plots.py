"""The look of the figures of docs/, and those of docs/results.md besides the spheres."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.pages import Results

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, GREY = "#24292f", "#6e7781"


def new_figure(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """A white figure with a row of plain axes."""
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, columns, column + 1) for column in range(columns)]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.spines[["left", "bottom"]].set_color(GREY)
        each.tick_params(colors=INK, labelsize=8.5)
        each.grid(color="#e4e4e4", linewidth=0.8)
        each.set_axisbelow(True)
        each.title.set_color(INK)
    return figure, axes


def save(figure: Figure, path: Path, *, dpi: int | None = None) -> None:
    """Writes a picture, an SVG with its text as text, that is the same whenever it is drawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_vector = path.suffix == ".svg"
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sphereface_jax"}):
        figure.savefig(path, dpi=dpi, metadata={"Date": None} if is_vector else {"Software": None})


def scored(results: Results) -> dict[str, Results]:
    """The variants that reached the exam."""
    return {name: row for name, row in results["variants"].items() if "verification" in row}


def draw_study(results: Results, path: Path) -> None:
    """Accuracy with the folds' deviation, TAR, and angles within and between people."""
    rows = scored(results)
    height = 1.3 + 0.32 * len(rows)
    figure, (left, middle, right) = new_figure(10.5, height, 3)
    places = np.arange(len(rows))[::-1]
    verified = [row["verification"] for row in rows.values()]
    angles = [row["geometry"]["angles"] for row in rows.values()]
    left.errorbar(
        [found["accuracy_10_fold"] for found in verified],
        places,
        xerr=[found["accuracy_std"] for found in verified],
        fmt="o",
        color=COLOURS[0],
        capsize=3,
    )
    left.set_title("accuracy on people never seen")
    middle.barh(
        places, [found["tar_at_far"]["1e-2"] or 0 for found in verified], 0.6, color=COLOURS[2]
    )
    middle.set_title("TAR at FAR 1e-2")
    for axes in (left, middle):
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    within = [found["intra_class_mean"] for found in angles]
    between = [found["inter_class_nearest_mean"] for found in angles]
    right.hlines(places, within, between, color="#c9d3e0", linewidth=4)
    right.plot(within, places, "o", color=COLOURS[0], label="to own mean")
    right.plot(between, places, "s", color=COLOURS[1], label="mean to nearest other")
    right.set_title("angles (degrees)")
    right.legend(
        fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2
    )
    left.set_yticks(places, [*rows])
    left.set_ylim(-0.6, len(rows) - 0.4)
    for axes in (middle, right):
        axes.set_yticks(places, [])
        axes.set_ylim(left.get_ylim())
    save(figure, path)


def draw_curves(results: Results, path: Path) -> None:
    """λ and the training loss of every variant over the steps."""
    with_lambda = any(
        "annealing_lambda" in row["training"]["curve"] for row in results["variants"].values()
    )
    figure, axes = new_figure(10, 3.6, 1 + with_lambda)
    for number, (name, row) in enumerate(results["variants"].items()):
        curve = row["training"]["curve"]
        look = {
            "color": (*COLOURS, "#24292f", "#8b6f47")[number % 8],
            "linestyle": ("-", "--")[number // 4 % 2],
            "linewidth": 1.5,
        }
        axes[-1].plot(curve["step"], curve["loss"], label=name, **look)
        if "annealing_lambda" in curve:
            axes[0].plot(curve["step"], curve["annealing_lambda"], **look)
        if "diverged" in row:
            axes[-1].plot(curve["step"][-1], curve["loss"][-1], "x", color=look["color"])
    if with_lambda:
        axes[0].set_yscale("symlog", linthresh=1)
        axes[0].set_title("λ")
    axes[-1].set_title("training loss")
    for each in axes:
        each.set_xlabel("step", color=INK, fontsize=9)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    save(figure, path)


def draw_classes(results: Results, path: Path) -> None:
    """Time and memory of each head."""
    rows = results["variants"]
    figure, axes = new_figure(8.5, 2.6, 2)
    places = np.arange(len(rows))[::-1]
    for each, key, title in (
        (axes[0], "seconds_per_step", "seconds a step"),
        (axes[1], "peak_gib", "peak memory (GiB)"),
    ):
        each.barh(places, [row[key] for row in rows.values()], 0.6, color=COLOURS[0])
        each.set_title(title)
        each.set_yticks(places, [*rows] if each is axes[0] else [])
    save(figure, path)


def draw_accuracy(results: Results, path: Path) -> None:
    """The first steps' relative differences, and both sides' smoothed losses."""
    figure, (left, right) = new_figure(10, 3.6, 2)
    goal = results["goals"]["first_steps"]["at_most"]
    for number, (name, seed) in enumerate(results["seeds"].items()):
        here, there = (np.array(seed[side]["losses"]) for side in ("here", "there"))
        colour = COLOURS[number]
        apart = np.maximum(np.abs(here / there - 1), 1e-9)
        left.plot(np.arange(1, len(apart) + 1), apart, color=colour, linewidth=1.2)
        size = min(20, len(here))
        window, steps = np.ones(size) / size, np.arange(size, len(here) + 1)
        right.plot(
            steps, np.convolve(there, window, "valid"), color=colour, linewidth=4, alpha=0.3,
            label=f"{name}, PyTorch",
        )  # fmt: skip
        right.plot(
            steps, np.convolve(here, window, "valid"), color=colour, linewidth=1.3,
            label=f"{name}, here",
        )  # fmt: skip
    left.plot([1, 20], [goal, goal], color=INK, linestyle="--", linewidth=1.2)
    left.text(21, goal, "goal for the first 20 steps", fontsize=8, color=INK, va="center")
    left.set_yscale("log")
    left.set_title("relative difference of the losses, here against PyTorch")
    right.set_title("training loss, mean of 20 steps")
    right.legend(fontsize=8, frameon=False)
    for each in (left, right):
        each.set_xlabel("step", color=INK, fontsize=9)
    save(figure, path)
