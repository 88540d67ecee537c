"""Plots of the hypersphere: people on it in three dimensions, how tight they are, prototypes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from sphereface_jax.reports.plot import (
    Plot,
    axis,
    histogram,
    line,
    make_figure,
    percent_axis,
    steps,
    titled,
    tone,
)
from sphereface_jax.reports.run_record import RunRecord
from sphereface_jax.reports.stored import StoredPeople, StoredPrototypes

_BALL, _LIFTED = 0.985, 1.012


@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """Unit vectors seen in three dimensions.

    Attributes:
      points: [S, 3] unit vectors.
      prototypes: [K, 3] unit vectors, or [0, 3].
      kept: fraction of the squared lengths about the mean that three dimensions hold; 1 where there
        are only three.
    """

    points: NDArray[np.float64]
    prototypes: NDArray[np.float64]
    kept: float


def project(embeddings: NDArray[np.floating], prototypes: NDArray[np.floating]) -> Projection:
    """The view of unit vectors along their three principal axes, put back onto a sphere.

    In three dimensions the vectors stay as they are. In more, their mean is subtracted (as the
    authors' protocol does), the three directions of the largest variance are kept, and what is
    left is scaled to unit length: only directions are compared.

    Args:
      embeddings: [S, D] unit vectors, D at least 3.
      prototypes: [K, D] unit vectors, seen along the same axes.

    Returns:
      A `Projection`.

    Example:
      >>> project(np.eye(3), np.empty((0, 3))).kept
      1.0
    """
    vectors, own = embeddings.astype(np.float64), prototypes.astype(np.float64)
    if vectors.shape[1] == 3:
        return Projection(_unit(vectors), _unit(own), 1.0)
    mean = vectors.mean(axis=0)
    _, lengths, axes = np.linalg.svd(vectors - mean, full_matrices=False)
    axes, energy = axes[:3], np.square(lengths)
    kept = float(energy[:3].sum() / energy.sum()) if energy.sum() > 0 else 1.0
    return Projection(_unit((vectors - mean) @ axes.T), _unit((own - mean) @ axes.T), kept)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def sphere_plot(title: str, stored: StoredPeople) -> Plot | None:
    """Some people's embeddings on a sphere that turns.

    Args:
      title: of the plot.
      stored: of a set of people.

    Returns:
      The plot, or None below three dimensions.
    """
    if stored.embeddings.shape[1] < 3:
        return None
    view = project(stored.embeddings, stored.prototypes)
    traces: list[Any] = [_ball(), *_graticule()]
    for number, name in enumerate(stored.shown.tolist()):
        points = view.points[stored.shown_index == number]
        traces.append(_scatter(_LIFTED * points, name, number, size=4.5))
        if len(view.prototypes):
            ray = np.stack([np.zeros(3), 1.18 * view.prototypes[number]])
            traces.append(_ray(ray, f"prototype of {name}", number))
    hidden = {"visible": False, "showspikes": False, "range": [-1.12, 1.12]}
    figure = make_figure(
        traces,
        scene={
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "aspectmode": "cube",
            "dragmode": "turntable",
            "camera": {"eye": _best_view(view.points)},
        },
        showlegend=False,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        uirevision="sphere",
    )
    return Plot(
        title,
        _sphere_caption(stored, view),
        f"Embeddings of {len(stored.shown)} people on a sphere, a colour a person.",
        figure,
        wide=True,
        spins=True,
    )


def _best_view(points: NDArray[np.float64]) -> dict[str, float]:
    """The place around the equator from which the most points are to be seen, a little above it."""
    turns = np.radians(np.arange(0, 360, 10))
    eyes = np.stack([1.2 * np.cos(turns), 1.2 * np.sin(turns), np.full(len(turns), 0.36)], axis=1)
    x, y, z = eyes[np.argmax((points @ eyes.T > 0.5).sum(axis=0))].tolist()
    return {"x": x, "y": y, "z": z}


def _sphere_caption(stored: StoredPeople, view: Projection) -> str:
    dimension = stored.embeddings.shape[1]
    text = (
        "Each point is an image, each colour a person; tight and far apart is what a margin is "
        "for. Drag to turn."
    )
    if len(view.prototypes):
        text += " A ray is the person's prototype, the direction that training pulls towards."
    if dimension == 3:
        return f"{text} This is the embedding itself: the network has three dimensions."
    return (
        f"{text} Of {dimension} dimensions three are drawn, the principal axes of these points "
        f"about their mean; they hold {view.kept:.0%} of the scatter, so people who touch here may "
        "be far apart."
    )


def _ball() -> go.Surface:
    polar, around = np.meshgrid(np.linspace(0, np.pi, 25), np.linspace(0, 2 * np.pi, 49))
    return go.Surface(
        x=_BALL * np.sin(polar) * np.cos(around),
        y=_BALL * np.sin(polar) * np.sin(around),
        z=_BALL * np.cos(polar),
        surfacecolor=np.zeros(polar.shape, np.uint8),
        showscale=False,
        hoverinfo="skip",
        contours={each: {"highlight": False} for each in "xyz"},
        lighting={"ambient": 1, "diffuse": 0, "specular": 0, "fresnel": 0},
        meta=tone("ball"),
    )


def _graticule() -> list[go.Scatter3d]:
    circle = np.linspace(0, 2 * np.pi, 73)
    rings = []
    for height in np.radians([-60, -30, 0, 30, 60]):
        ring = np.cos(height) * np.cos(circle), np.cos(height) * np.sin(circle)
        rings.append(np.stack([*ring, np.full(len(circle), np.sin(height))], axis=1))
    for turn in np.radians(np.arange(0, 180, 30)):
        ring = np.cos(circle) * np.cos(turn), np.cos(circle) * np.sin(turn)
        rings.append(np.stack([*ring, np.sin(circle)], axis=1))
    gap = np.full((1, 3), np.nan)
    path = np.concatenate([part for ring in rings for part in (ring, gap)])
    return [
        go.Scatter3d(
            x=path[:, 0],
            y=path[:, 1],
            z=path[:, 2],
            mode="lines",
            line={"width": 1},
            hoverinfo="skip",
            meta=tone("grid"),
        )
    ]


def _scatter(points: NDArray, name: str, colour: int, *, size: float) -> go.Scatter3d:
    x, y, z = points.T
    return go.Scatter3d(
        x=x, y=y, z=z, name=name, mode="markers", marker={"size": size, "line": {"width": 0}},
        hovertemplate="%{fullData.name}<extra></extra>", meta=tone(colour),
    )  # fmt: skip


def _ray(points: NDArray, name: str, colour: int) -> go.Scatter3d:
    x, y, z = points.T
    return go.Scatter3d(
        x=x, y=y, z=z, name=name, mode="lines+markers", line={"width": 4},
        marker={"size": [0, 6], "symbol": "diamond", "line": {"width": 0}},
        hovertemplate="%{fullData.name}<extra></extra>", meta=tone(colour),
    )  # fmt: skip


def people_plot(run: RunRecord, title: str, stored: StoredPeople, *, alone: bool) -> Plot:
    """How tight each person is against how near the nearest other person is.

    Args:
      run: whose people they are.
      title: of the set of people.
      stored: of the set.
      alone: whether the report is of one run.

    Returns:
      The plot, one point per person.
    """
    spread, nearest = stored.spread, stored.nearest
    end = float(max(spread.max(), nearest.max())) * 1.05
    confused = int((spread >= nearest).sum())
    points = go.Scatter(
        x=spread,
        y=nearest,
        name="a person",
        mode="markers",
        marker={"size": 6, "opacity": 0.55, "line": {"width": 0}},
        text=[
            f"{name}<br>nearest: {other}"
            for name, other in zip(stored.people, stored.nearest_name, strict=True)
        ],
        hovertemplate="%{text}<br>spread %{x:.1f}°, to nearest %{y:.1f}°<extra></extra>",
        meta=tone(0),
    )
    border = line([0, end], [0, end], "as far as one's own spread", "ink",
                  line={"dash": "dash", "width": 1.2})  # fmt: skip
    figure = make_figure(
        [points, border],
        xaxis=axis("mean angle to the mean of the same person", ticksuffix="°", rangemode="tozero"),
        yaxis=axis("angle to the nearest other person", ticksuffix="°", rangemode="tozero"),
        hovermode="closest",
    )
    return Plot(
        titled("" if alone else run.name, f"people of {title}"),
        "Left is tight, high is alone; a good run is a cloud in the upper left corner. "
        f"{confused:,} of {len(spread):,} people lie on or below the line: somebody else is as "
        "near to them as their own images are.",
        f"{len(spread):,} people; median spread {np.median(spread):.1f}°, median angle to the "
        f"nearest other person {np.median(nearest):.1f}°.",
        figure,
    )


def prototype_plot(runs: Sequence[RunRecord]) -> Plot | None:
    """The angles between the prototypes of each run."""
    known = [(number, run) for number, run in enumerate(runs) if run.prototypes is not None]
    if not known:
        return None
    alone, traces, said = len(runs) == 1, [], []
    for number, run in known:
        spread = run.prototypes
        assert spread is not None
        edges = np.arange(0.0, 182.0, 2.0)
        near = steps(edges, histogram(spread.nearest, edges))
        label = "to the nearest" if alone else run.name
        traces.append(line(*near, label, 0 if alone else number, fill=0.22 if alone else None))
        if alone:
            traces.append(line(*steps(edges, _pairs(spread)), "any two", 2, fill=0.14))
        said.append(f"{run.name}: nearest on average {spread.nearest.mean():.1f}°")
    low, high = _range(known)
    figure = make_figure(
        traces,
        xaxis=axis("angle between prototypes", ticksuffix="°", range=[low, high]),
        yaxis=percent_axis("share", rangemode="tozero"),
    )
    return Plot(
        "Prototypes on the hypersphere",
        _prototype_caption(known, alone=alone),
        "; ".join(said) + ".",
        figure,
    )


def _pairs(spread: StoredPrototypes) -> NDArray[np.float64]:
    counts = spread.angles.reshape(-1, 2).sum(axis=1)
    return counts / max(counts.sum(), 1)


def _range(known: Sequence[tuple[int, RunRecord]]) -> tuple[float, float]:
    lows, highs = [], []
    for _, run in known:
        assert run.prototypes is not None
        occupied = np.flatnonzero(run.prototypes.angles)
        lows.append(min(float(run.prototypes.nearest.min()), float(occupied.min())))
        highs.append(float(occupied.max()) + 1)
    return max(min(lows) - 4, 0), min(max(*highs, 90) + 4, 180)


def _prototype_caption(known: Sequence[tuple[int, RunRecord]], *, alone: bool) -> str:
    text = (
        "Well-spread prototypes stand near 90° to each other, and none has a near neighbour. A "
        "tail to the left is two classes that may be one person."
    )
    if alone:
        spread = known[0][1].prototypes
        assert spread is not None
        count = int(spread.num_prototypes)
        text += f" {count:,} prototypes in {int(spread.dimension)} dimensions"
        taken = len(spread.nearest)
        text += "." if taken == count else f", measured at {taken:,} of them."
    return text
