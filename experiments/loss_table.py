"""The table of losses: writes docs/losses.md and docs/images/loss_gradients.svg.

    python -m experiments.loss_table

Formulas and sources come from the losses' docstrings, defaults from their signatures; slopes and
curves are computed by the library. tests/repository/test_docs.py holds that the page is what this
file writes.
"""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import plots
from experiments.pages import IMAGES, table, write
from sphereface_jax import LOSSES

ANGLES = (30, 60, 80)  # degrees
NORM, NUM_CLASSES = 30.0, 10_572

PAGE = """\
# Losses

Written by `python -m experiments.loss_table`; do not edit.

    NAME_loss(embeddings [B, D], prototypes [C, D], labels [B], *, ...) -> [B]

Hyper-parameters are scalars, or arrays [B] with one value per example. `margin_loss` is the engine
beneath, open to [a margin of your own](how-to/write-my-own-margin.md).

A loss works in any JAX loop; nothing else of the project is needed:

```python
{example}```

## The table

x is an embedding, w_j the prototype of class j, c_j the cosine between them and θ_j its angle; y is
the example's class, f are logits, and the loss is their softmax cross entropy where nothing else is
said. Slope is −∂f_y/∂θ_y at {angles}, divided by the scale: how hard the target's angle is pulled
in, where the plain cosine's would be sin θ = {sines} (‖x‖ = {norm:g}; states as they start with
{classes:,} classes). It does not show what a loss does to the other classes, where the margins of
`sphereface_r` v2 and `curricularface` are.

{losses}

![Slopes of the target's logit by its angle](images/loss_gradients.svg)

## State

{stateful} take `state` and return
`(loss, state)`; `LOSSES[name].init_state(num_classes)` is what they start with. The biases of
SphereFace2 and UniFace take gradient; the other states follow the batch.

The ElasticFace losses take a PRNG `key`, and draw by it alone; the trainer derives a key per
example from the seed, the step and the example's place in the batch. `ldam` and `dynamic_arcface`
take `class_margins` [C], which `class_size_margins` makes from the images per class; the trainer
counts them, and `--loss.options factor 0.8 upper 0.6` shapes them.

## Interclass filtering

`filter_threshold=t`, of every softmax loss, leaves out other classes whose cosine is above t, for
data where one person has two names. arcface_torch (`interclass_filtering_threshold`) sets such
cosines to 0 instead, so that each still counts exp(0).

## Gradients

`gradient="exact"` (the default) differentiates the formula.

`gradient="detached"` gives logits the gradient of the plain cosine: s·(c + stop_gradient(ψ(c) −
c)); the margin moves the value alone, the target's and, for `sphereface_r` v2, `sphereface2` and
`curricularface`, the others' too. It is OpenSphere's "characteristic gradient detachment", and in
effect how InsightFace's arcface_torch trains ArcFace. OpenSphere also projects its prototypes to
unit length before each step, which changes how far an update turns them; here prototypes keep their
lengths, so training as OpenSphere does agrees in the embeddings' gradient and not in the course of
the prototypes.

`gradient="caffe"`, of SphereFace, is that of the authors' layer. With κ = (ψ − cψ′)/‖x‖, the exact
gradient by x, v = ψ′w + κx, is divided by √(ψ′² + κ²), then mixed: ∂f_y/∂x = (v + λw)/(1 + λ). The
prototypes' gradient is the plain linear layer's and takes them to be of unit length: project them
after every update, as that layer does.

## Where others differ

- arcface_torch's `CombinedMarginLoss` ignores m1 and m2 where m3 > 0; `combined_margin` does not.
- Defaults here are the papers'. The authors' code has others in places: SphereFace2's loss weight
  50 (here 10), the MHE weight of SphereFace+ 1.0 (0.1), CosFace's margin 0.40 in arcface_torch
  (0.35), MagFace's λ_g 20 in FaceX-Zoo (35).
- AdaFace has no deviation of a single norm: with a batch of one, σ stays as it is.
- Sub-centres that are equally near share the gradient.
- UniFace's code clips logits to [−s, s] against overflow and gives no gradient there; here nothing
  is clipped.
- ElasticFace's released code for the "+" forms indexes the sorted margins by the order of the
  cosines instead of their ranks: `ranking="released"`.

## Against pytorch-metric-learning 2

`tests/losses/test_parity_losses.py` compares values and gradients.

| theirs | ours | where they differ |
| --- | --- | --- |
| `SphereFaceLoss(margin=m)` | `sphereface_loss(margin=m)` | theirs has no λ, and a further \
factor `scale` |
| `ArcFaceLoss(margin=28.6)` | `arcface_loss(margin=0.4992, beyond="linear")` | theirs takes \
degrees (version 3: radians), and has NaN gradients at cosines of ±1 |
| `CosFaceLoss(margin=0.35)` | `cosface_loss(margin=0.35)` | |
| `NormalizedSoftmaxLoss(temperature=t)` | `normalized_softmax_loss(scale=1/t)` | |
| `SubCenterArcFaceLoss` | `subcenter_arcface_loss(beyond="linear")` | degrees, as above |

Their losses own their weights and return the mean of the batch.
"""

EXAMPLE = """\
import jax
import optax

from sphereface_jax import annealed_lambda, sphereface_loss

keys = jax.random.split(jax.random.key(0), 3)
x, w, prototypes = map(jax.random.normal, keys, [(256, 20), (20, 8), (4, 8)])
labels, params, tx = x[:, :4].argmax(axis=1), (w, prototypes), optax.adam(0.01)


@jax.jit
def loss(params, step):
    λ = annealed_lambda()(step)
    return sphereface_loss(x @ params[0], params[1], labels, annealing_lambda=λ).mean()


opt_state = tx.init(params)
for step in range(200):
    updates, opt_state = tx.update(jax.grad(loss)(params, step), opt_state)
    params = optax.apply_updates(params, updates)
"""


def slope(name: str, degrees: jax.Array) -> jax.Array:
    """−∂(f_y / scale)/∂θ of a loss at its defaults, by its logits."""
    row = LOSSES[name]
    assert row.logits is not None
    options = {"state": row.init_state(NUM_CLASSES)} if row.start else {}
    options |= {"rate": 0.0} if "rate" in row.hyperparameters else {}  # the state as it starts
    scale = row.hyperparameters.get("scale") or NORM
    prototypes = jnp.eye(2)
    if row.num_subcenters:
        prototypes = jnp.stack([prototypes] * row.num_subcenters, axis=1)

    def target(angle: jax.Array) -> jax.Array:
        x = NORM * jnp.stack([jnp.cos(angle), jnp.sin(angle)])[None]
        result = row.logits(x, prototypes, jnp.zeros(1, jnp.int32), **options)
        return (result[0] if row.start else result)[0, 0] / scale

    return -jax.vmap(jax.grad(target))(jnp.radians(degrees))


def described(name: str) -> tuple[str, str]:
    """A loss's formula and source, from its docstring."""
    text = inspect.getdoc(LOSSES[name].loss) or ""
    before, _, rest = text.partition("\n\nArgs:\n")
    formula = before.partition("\n\n")[2]
    source = rest.partition("References:\n")[2]
    return formula.replace("\n\n", "\n"), " ".join(source.split())


def table_row(name: str) -> list[str]:
    """A loss as a row of the page's table."""
    row = LOSSES[name]
    defaults = ", ".join(
        f"{key} {value}" for key, value in row.hyperparameters.items() if key != "filter_threshold"
    )
    slopes = "–"
    if row.logits is not None:
        slopes = ", ".join(f"{value:.2f}" for value in slope(name, jnp.array(ANGLES, jnp.float32)))
    formula, source = described(name)
    return [f"`{name}`", formula.replace("\n", "<br>"), defaults, slopes, source]


def page() -> str:
    """The text of docs/losses.md."""
    return PAGE.format(
        example=EXAMPLE,
        angles=", ".join(f"{angle}°" for angle in ANGLES),
        sines=", ".join(f"{np.sin(np.radians(angle)):.2f}" for angle in ANGLES),
        norm=NORM,
        classes=NUM_CLASSES,
        losses=table(
            ("loss", "formula", "defaults", "slope", "source"),
            map(table_row, LOSSES),
            numbers=False,
        ),
        stateful=", ".join(f"`{name}`" for name, row in LOSSES.items() if row.start),
    )


def draw(path: Path) -> None:
    """Plots the slopes of all losses over the angle."""
    degrees = np.linspace(1, 179, 179)
    figure = Figure(figsize=(9, 9), layout="constrained")
    axes = figure.subplots(4, 3, sharex=True)
    shown = [
        name
        for name, row in LOSSES.items()
        if row.logits is not None and name not in ("softmax", "subcenter_arcface")
    ]
    for axis, name in zip(axes.flat, shown, strict=False):
        axis.plot(degrees, np.sin(np.radians(degrees)), color="0.7", linewidth=1)
        axis.plot(degrees, slope(name, jnp.asarray(degrees)), color="tab:blue")
        marks = np.array(ANGLES, float)
        axis.plot(marks, slope(name, jnp.asarray(marks)), "o", color="tab:red", markersize=4)
        axis.set_title(name, fontsize=10)
        axis.set_xticks([0, 60, 120, 180])
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    figure.supxlabel("angle to the target's prototype in degrees")
    figure.supylabel("slope of the target's logit, by the scale; grey: without a margin")
    plots.save(figure, path)


def main() -> None:
    """Writes the page and its figure."""
    draw(IMAGES / "loss_gradients.svg")
    write("losses.md", page())


if __name__ == "__main__":
    main()
