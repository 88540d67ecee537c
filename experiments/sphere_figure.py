"""Draws the results of sphere3d.py: a still of spheres over histograms, and spheres that turn.

Angles are all that the loss sees, so every sphere is turned (and mirrored where need be) to bring
its prototypes as near as it can to those of the last, and the same colour lies in the same place.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from plotly.subplots import make_subplots

from experiments.plots import COLOURS, GREY, INK, save

SAME, DIFFERENT = COLOURS[:2]
SHADE = LinearSegmentedColormap.from_list("sphere", ["#ffffff", "#eef2f7", "#c9d3e0"])
QUANTILE = 1.0  # per cent of the pairs that a mark leaves outside
Spheres = dict[str, tuple[np.ndarray, np.ndarray]]


def aligned_spheres(results: Mapping[str, Any]) -> Spheres:
    """Points [N, 3] and prototypes [C, 3] of each variant, turned alike and to face the reader."""
    variants = {
        name: (np.array(found["points"]), np.array(found["prototypes"]))
        for name, found in results["variants"].items()
    }
    last = [*variants.values()][-1][1]
    view = best_view(last)
    spheres = {}
    for name, (points, prototypes) in variants.items():
        left, _, right = np.linalg.svd(prototypes.T @ last)
        turn = left @ right @ view
        spheres[name] = points @ turn, prototypes @ turn
    return spheres


def best_view(prototypes: np.ndarray) -> np.ndarray:
    """The rotation, out of some thousand, that hides no prototype behind another or at the rim."""
    draws = np.random.default_rng(0).normal(size=(4000, 3, 3))
    turns = np.linalg.qr(draws)[0]
    flat = (prototypes @ turns)[..., :2]
    gaps = np.linalg.norm(flat[:, :, None] - flat[:, None], axis=-1)
    gaps += 2 * np.eye(len(prototypes))
    rims = np.linalg.norm(flat, axis=-1).max(axis=1)
    return turns[(gaps.min(axis=(1, 2)) - rims).argmax()]


def pair_angles(points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The angles in degrees of all pairs of one person, and of all pairs of two."""
    upper = np.triu_indices(len(points), 1)
    cosines = (points @ points.T)[upper]
    norms = np.linalg.norm(points, axis=1)
    angles = np.degrees(np.arccos(np.clip(cosines / (norms[upper[0]] * norms[upper[1]]), -1, 1)))
    is_same = labels[upper[0]] == labels[upper[1]]
    return angles[is_same], angles[~is_same]


def marks(points: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The angle that 99 % of one person's pairs stay below, and that 99 % of two's stay above."""
    same, different = pair_angles(points, labels)
    return float(np.percentile(same, 100 - QUANTILE)), float(np.percentile(different, QUANTILE))


def draw_still(results: Mapping[str, Any], path: Path) -> None:
    """Writes the still, in the format that the path ends in."""
    spheres, labels = aligned_spheres(results), np.array(results["labels"])
    columns = len(spheres)
    figure = Figure(figsize=(3.1 * columns, 5.2), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, columns, height_ratios=(3, 1.35), left=0.02, right=0.98, top=0.92, bottom=0.115,
        hspace=0.1, wspace=0.08,
    )  # fmt: skip
    for column, (name, (points, prototypes)) in enumerate(spheres.items()):
        draw_sphere(figure.add_subplot(grid[0, column]), points, prototypes, labels, name)
        axes = figure.add_subplot(grid[1, column])
        draw_histogram(axes, points, labels)
    figure.text(
        0.5,
        0.012,
        "angle between two images, in degrees, and the share of pairs that have it",
        ha="center",
        color=INK,
        fontsize=10,
    )
    save(figure, path, dpi=160)


def draw_sphere(
    axes: Axes, points: np.ndarray, prototypes: np.ndarray, labels: np.ndarray, title: str
) -> None:
    """A sphere as seen from far away: what lies behind shines through."""
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08))
    across = np.linspace(-1, 1, 200)
    distance = np.hypot(across[None] + 0.35, across[:, None] - 0.4) / 1.55
    disc = axes.imshow(
        distance, cmap=SHADE, extent=(-1, 1, -1, 1), origin="lower", vmin=0, vmax=1, zorder=0,
        interpolation="bilinear",
    )  # fmt: skip
    edge = Circle((0, 0), 1, facecolor="none", edgecolor="#9aa7b8", linewidth=0.8, zorder=3)
    axes.add_patch(edge)
    disc.set_clip_path(edge)
    draw_grid(axes)
    colours = np.array(COLOURS)[labels % len(COLOURS)]
    for is_front, size, alpha, order in ((False, 7, 0.28, 2), (True, 11, 0.75, 5)):
        shown = (points[:, 2] >= 0) == is_front
        axes.scatter(
            *points[shown, :2].T, s=size, c=colours[shown], alpha=alpha, linewidths=0, zorder=order
        )
        for number in np.flatnonzero((prototypes[:, 2] >= 0) == is_front):
            x, y = prototypes[number, :2]
            strength = 1.0 if is_front else 0.4
            axes.plot(
                [0, x], [0, y], color=COLOURS[number % len(COLOURS)], linewidth=1.6,
                alpha=0.8 * strength, zorder=order + 1, solid_capstyle="round",
            )  # fmt: skip
            axes.scatter(
                x, y, s=52, c=COLOURS[number % len(COLOURS)], edgecolors="white", linewidths=1.2,
                alpha=strength, zorder=order + 2,
            )  # fmt: skip
    axes.set_title(title, fontsize=15, color=INK, pad=4)


def draw_grid(axes: Axes) -> None:
    """Circles of latitude and longitude, the front ones stronger."""
    tilt = np.radians(18)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    around = np.linspace(0, 2 * np.pi, 181)
    circles = []
    for latitude in np.radians([-60, -30, 0, 30, 60]):
        ring = np.cos(latitude) * np.array([np.cos(around), 0 * around, np.sin(around)])
        circles.append((ring + np.array([[0], [np.sin(latitude)], [0]])).T)
    for longitude in np.radians(range(0, 180, 30)):
        ring = np.cos(around) * np.array([[np.cos(longitude)], [0], [np.sin(longitude)]])
        circles.append((ring + np.sin(around) * np.array([[0], [1], [0]])).T)
    for circle in circles:
        x, y, depth = turn @ circle.T
        for is_shown, alpha in ((depth >= 0, 0.4), (depth < 0, 0.13)):
            arcs = np.where(is_shown, x, np.nan), np.where(is_shown, y, np.nan)
            axes.plot(*arcs, color="#8796aa", linewidth=0.5, alpha=alpha, zorder=1)


def draw_histogram(axes: Axes, points: np.ndarray, labels: np.ndarray) -> None:
    """The angles of pairs of one person and of two, and the gap between 99 % of both."""
    same, different = pair_angles(points, labels)
    low, high = marks(points, labels)
    bins = np.arange(0, 181, 3)
    for angles, colour in ((same, SAME), (different, DIFFERENT)):
        heights, _ = np.histogram(angles, bins)
        axes.stairs(heights / heights.max(), bins, fill=True, color=colour, alpha=0.3)
        axes.stairs(heights / heights.max(), bins, color=colour, linewidth=1.1)
    for angle, colour in ((low, SAME), (high, DIFFERENT)):
        axes.plot([angle, angle], [0, 1.05], color=colour, linewidth=1, linestyle=(0, (3, 2)))
    if high > low:
        axes.axvspan(low, high, ymax=1.05 / 1.65, color="#009E73", alpha=0.12, linewidth=0)
    said = {
        SAME: f"same person: 99 % below {low:.0f}°",
        DIFFERENT: f"different people: 99 % above {high:.0f}°",
    }
    for height, (colour, text) in zip((1.42, 1.16), said.items(), strict=True):
        axes.text(90, height, text, color=colour, ha="center", fontsize=9)
    axes.set(xlim=(0, 180), ylim=(0, 1.65), xticks=[0, 45, 90, 135, 180], yticks=[])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=8.5)


def draw_turning(results: Mapping[str, Any], path: Path) -> None:
    """Writes one page with a sphere for each variant, to be turned; plotly is inside."""
    spheres, labels = aligned_spheres(results), np.array(results["labels"])
    figure = make_subplots(
        rows=2,
        cols=-(-len(spheres) // 2),
        specs=[[{"type": "scene"}] * (-(-len(spheres) // 2))] * 2,
        subplot_titles=[*spheres],
        horizontal_spacing=0.01,
        vertical_spacing=0.04,
    )
    for number, (points, prototypes) in enumerate(spheres.values()):
        row, column = divmod(number, -(-len(spheres) // 2))
        for trace in sphere_traces(points, prototypes, labels, is_first=number == 0):
            figure.add_trace(trace, row=row + 1, col=column + 1)
    figure.update_scenes(
        xaxis_visible=False,
        yaxis_visible=False,
        zaxis_visible=False,
        aspectmode="cube",
        camera={"eye": {"x": 0.0, "y": 0.0, "z": 1.3}, "up": {"x": 0, "y": 1, "z": 0}},
    )
    figure.update_layout(
        template="plotly_white",
        margin={"l": 0, "r": 0, "t": 30, "b": 0},
        height=820,
        legend={"orientation": "h", "y": -0.02, "itemsizing": "constant"},
    )
    path.write_text(
        figure.to_html(include_plotlyjs=True, full_html=True, div_id="spheres"), encoding="utf-8"
    )


def sphere_traces(
    points: np.ndarray, prototypes: np.ndarray, labels: np.ndarray, *, is_first: bool
) -> list[go.Scatter3d | go.Surface]:
    """A pale ball, and each person's points and prototype."""
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 49), np.linspace(0, np.pi, 25))
    ball = 0.985 * np.stack([np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)])
    shade = [[0, "#e3e9f1"], [1, "#e3e9f1"]]
    traces = [
        go.Surface(
            x=ball[0].round(3),
            y=ball[1].round(3),
            z=ball[2].round(3),
            opacity=0.35,
            showscale=False,
            colorscale=shade,
            hoverinfo="skip",
            lighting={"ambient": 1, "diffuse": 0, "specular": 0},
        )
    ]
    for person, prototype in enumerate(prototypes):
        x, y, z = points[labels == person].T.round(3)
        look = {
            "name": f"person {person + 1}",
            "legendgroup": str(person),
            "hoverinfo": "name",
        }
        colour = COLOURS[person % len(COLOURS)]
        traces += [
            go.Scatter3d(
                x=x, y=y, z=z, mode="markers", marker={"size": 2.5, "color": colour},
                showlegend=is_first, **look,
            ),
            go.Scatter3d(
                **{axis: [0, value] for axis, value in zip("xyz", prototype.round(3), strict=True)},
                mode="lines", line={"color": colour, "width": 5}, showlegend=False, **look,
            ),
        ]  # fmt: skip
    return traces
