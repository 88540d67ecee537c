"""The pictures of docs/tutorial.md, every curve and every region computed by the library.

    python -m experiments.tutorial_figures

A region is drawn where `sphereface_logits`, told that a point belongs to a class, gives that class
the largest logit: where the loss is content.
"""

from collections.abc import Callable

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.pages import IMAGES
from experiments.plots import COLOURS, save
from sphereface_jax import annealed_lambda, monotone_psi, sphereface_logits, sphereface_loss
from sphereface_jax.geometry import cos_multiple
from sphereface_jax.margins import sphereface

MARGINS = (1, 2, 3, 4)
GREY = "#d9d9d9"
STYLE = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "font.size": 10,
}


def accepted(
    points: np.ndarray, prototypes: np.ndarray, *, margin: int, annealing_lambda: float = 0.0
) -> np.ndarray:
    """The class for which each point [N, D] satisfies the loss, or −1 where there is none."""
    claimed = np.full(len(points), -1)
    for label in range(len(prototypes)):
        logits = sphereface_logits(
            jnp.asarray(points),
            jnp.asarray(prototypes),
            jnp.full(len(points), label),
            margin=margin,
            annealing_lambda=annealing_lambda,
        )
        claimed[np.asarray(logits.argmax(axis=1)) == label] = label
    return claimed


def on_circle(degrees: np.ndarray) -> np.ndarray:
    """Unit vectors [N, 2]."""
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


def draw_circle() -> Figure:
    """Two classes on a circle: what each margin accepts."""
    prototypes = on_circle(np.array([135.0, 45.0]))
    degrees = np.arange(0, 180, 0.1)
    figure = Figure(figsize=(10, 1.7), layout="constrained")
    for axes, margin in zip(figure.subplots(1, 4), MARGINS, strict=True):
        claimed = accepted(on_circle(degrees), prototypes, margin=margin)
        for label in (-1, 0, 1):
            arc = np.where((claimed == label)[:, None], on_circle(degrees), np.nan)
            colour, width = (COLOURS[label], 5) if label >= 0 else (GREY, 2)
            axes.plot(*arc.T, color=colour, linewidth=width, solid_capstyle="butt")
        for label, (x, y) in enumerate(prototypes):
            arrow = {"arrowstyle": "-|>", "color": COLOURS[label], "linewidth": 2}
            axes.annotate("", (0.93 * x, 0.93 * y), (0, 0), arrowprops=arrow)
            axes.text(1.16 * x, 1.12 * y, f"$w_{label + 1}$", ha="center", va="center")
        reach = degrees[claimed == 1].max() - 45
        axes.set_title(f"m = {margin}: {reach:.0f}° towards the other")
        axes.set(xlim=(-1.3, 1.3), ylim=(-0.05, 1.2), aspect="equal")
        axes.set_axis_off()
    return figure


def draw_psi() -> Figure:
    """cos(mθ) and its monotone extension ψ."""
    degrees = np.linspace(0, 180, 721)
    cosine = jnp.cos(jnp.radians(degrees))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for margin, colour in zip(MARGINS, COLOURS, strict=False):
        left.plot(degrees, cos_multiple(cosine, margin), color=colour, label=f"m = {margin}")
        right.plot(degrees, monotone_psi(cosine, margin), color=colour, label=f"m = {margin}")
    left.set_title("cos(mθ) rises again")
    right.set_title("ψ(θ) falls all the way to 1 − 2m")
    for axes in (left, right):
        _angle_axis(axes)
    right.legend(frameon=False)
    return figure


def draw_lambda() -> Figure:
    """λ over the steps, and the target's function at some λ."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = np.arange(5000)
    for gamma, colour in ((0.12, COLOURS[0]), (0.012, COLOURS[1])):
        schedule = annealed_lambda(gamma=gamma)
        left.plot(steps, schedule(steps), color=colour, label=f"γ = {gamma}")
    left.set(yscale="log", xlabel="step", title="λ falls to its floor of 5")
    left.legend(frameon=False)
    degrees = np.linspace(0, 180, 721)
    cosine = jnp.cos(jnp.radians(degrees))
    for value, colour in zip((1000.0, 20.0, 5.0, 1.0, 0.0), COLOURS, strict=False):
        mixed = sphereface(cosine, jnp.ones_like(cosine), margin=4, annealing_lambda=value)
        right.plot(degrees, mixed, color=colour, label=f"λ = {value:g}")
    right.set_title("m = 4: from the cosine to ψ as λ falls")
    _angle_axis(right)
    right.legend(frameon=False)
    return figure


def draw_norm() -> Figure:
    """The loss over the embedding's length, at angles on both sides of the boundary."""
    prototypes = jnp.asarray(on_circle(np.array([0.0, 90.0])))
    lengths = np.geomspace(0.3, 100, 300)
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for degrees, colour in zip((10, 20, 30, 35, 40, 44), COLOURS, strict=True):
        points = lengths[:, None] * on_circle(np.array([float(degrees)]))
        loss = sphereface_loss(
            jnp.asarray(points),
            prototypes,
            jnp.zeros(len(points), int),
            margin=4,
            annealing_lambda=5.0,
        )
        axes.plot(lengths, loss, color=colour, label=f"θ = {degrees}°")
    axes.set(xscale="log", yscale="log", ylim=(1e-4, 30), xlabel="length of the embedding, ‖x‖")
    axes.set_ylabel("loss (m = 4, λ = 5)")
    axes.legend(frameon=False, loc="lower left")
    return figure


def draw_sphere(pixels: int = 420) -> Figure:
    """Six classes on a sphere in three dimensions, seen from the front."""
    x, y = np.meshgrid(np.linspace(-1.02, 1.02, pixels), np.linspace(1.02, -1.02, pixels))
    inside = x**2 + y**2 <= 1
    depth = np.sqrt(np.where(inside, 1 - x**2 - y**2, 0))
    points = np.stack([x, y, depth], axis=-1)[inside].astype(np.float32)
    prototypes = _octahedron()
    figure = Figure(figsize=(10, 2.75), layout="constrained")
    for axes, margin in zip(figure.subplots(1, 4), MARGINS, strict=True):
        claimed = accepted(points, prototypes, margin=margin)
        palette = np.array([matplotlib.colors.to_rgb(colour) for colour in (*COLOURS, GREY)])
        picture = np.ones((pixels, pixels, 3))
        shade = 0.55 + 0.45 * points[:, 2:]
        picture[inside] = palette[claimed] * shade
        axes.imshow(picture, extent=(-1.02, 1.02, -1.02, 1.02))
        seen = prototypes[prototypes[:, 2] > 0]
        axes.plot(*seen[:, :2].T, "o", color="white", markeredgecolor="black", markersize=5)
        axes.set_title(f"m = {margin}")
        axes.set_axis_off()
    return figure


def _octahedron() -> np.ndarray:
    """Six prototypes at right angles, three of them in front."""
    turn, tilt = np.radians(45), np.radians(35)
    around_y = np.array(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    )
    around_x = np.array(
        [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    )
    corners = np.concatenate([np.eye(3), -np.eye(3)])
    return (corners @ (around_x @ around_y).T).astype(np.float32)


def _angle_axis(axes: Axes) -> None:
    axes.set_xlabel("angle θ to the own prototype")
    axes.set_xticks([0, 45, 90, 135, 180], ["0°", "45°", "90°", "135°", "180°"])
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)


FIGURES: dict[str, Callable[..., Figure]] = {
    "angular_margin.svg": draw_circle,
    "psi.svg": draw_psi,
    "annealed_lambda.svg": draw_lambda,
    "norm.svg": draw_norm,
    "sphere_regions.png": draw_sphere,
}


def main() -> None:
    """Draws every picture."""
    with matplotlib.rc_context(STYLE):
        for name, draw in FIGURES.items():
            save(draw(), IMAGES / name, dpi=110)
            print(IMAGES / name)


if __name__ == "__main__":
    main()
