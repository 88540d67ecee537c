"""Every loss with the options that change its formula, and problems with known angles for them."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import reference

from sphereface_jax import LOSSES, NormStatistics

_EACH = np.array([0.30, 0.42, 0.12, 0.51, 0.25, 0.37, 0.48, 0.19])  # one per example
_OPTIONS = [
    ("softmax", {}),
    ("softmax", {"bias": np.linspace(-1, 1, 6)}),
    ("normalized_softmax", {}),
    ("sphereface", {"margin": 1}),
    ("sphereface", {"margin": 2, "annealing_lambda": 0.5}),
    ("sphereface", {"margin": 3, "annealing_lambda": 5.0}),
    ("sphereface", {}),
    ("sphereface", {"margin": 5, "scale": 30.0}),
    ("sphereface_r", {"version": "v0", "margin": 1.7}),
    ("sphereface_r", {"version": "v0", "margin": 3.0, "scale": None}),
    ("sphereface_r", {"version": "v1"}),
    ("sphereface_r", {}),
    ("sphereface_r", {"scale": None}),
    ("sphereface_plus", {}),
    ("sphereface2", {}),
    ("sphereface2", {"variant": "A", "alpha": 0.6}),
    ("sphereface2", {"variant": "M", "exponent": 2.5}),
    ("cosface", {}),
    ("arcface", {}),
    ("arcface", {"beyond": "linear"}),
    ("arcface", {"beyond": "clamp", "scale": None}),
    ("combined_margin", {}),
    ("combined_margin", {"m1": 0.9, "m2": 0.4, "m3": 0.15}),
    ("subcenter_arcface", {}),
    ("curricularface", {}),
    ("magface", {}),
    ("adaface", {}),
    ("elastic_arcface", {}),
    ("elastic_arcface_plus", {}),
    ("elastic_arcface_plus", {"ranking": "released"}),
    ("elastic_cosface", {"sigma": 0.1}),
    ("elastic_cosface_plus", {}),
    ("ldam", {}),
    ("dynamic_arcface", {}),
    ("uniface", {}),
    ("uniface", {"negative_weight": 0.3}),
    # A margin, a scale or a λ of each example's own
    ("sphereface", {"margin": np.array([1.0, 2, 3, 4, 5, 4, 3, 2]), "annealing_lambda": _EACH}),
    ("sphereface_r", {"version": "v2", "margin": 1 + _EACH}),
    ("sphereface2", {"margin": _EACH, "alpha": _EACH, "scale": 30 + _EACH}),
    ("cosface", {"margin": _EACH, "scale": 30 + 10 * _EACH}),
    ("arcface", {"margin": _EACH, "beyond": "linear"}),
    ("combined_margin", {"m1": 1 + _EACH / 10, "m3": _EACH}),
    ("curricularface", {"margin": _EACH}),
    ("magface", {"lower_margin": _EACH, "norm_weight": 10 * _EACH}),
    ("adaface", {"margin": _EACH}),
    # Interclass filtering
    ("cosface", {"filter_threshold": 0.2}),
    ("sphereface", {"filter_threshold": _EACH - 0.1}),
    ("curricularface", {"filter_threshold": 0.3}),
]


def _case_id(name, options):
    values = [key if np.ndim(value) else f"{key}={value}" for key, value in options.items()]
    return "-".join([name, *values])


# By an id that is the loss's name alone where all options are at their defaults.
CASES = {_case_id(name, options): (name, options) for name, options in _OPTIONS}

# From straight ahead to almost opposite, each more than 1e-3 rad from every kink of CASES.
ANGLES = np.array([0.1, 0.4, 0.7, 1.1, 1.5, 1.9, 2.4, 3.0])
NORMS = np.array([0.5, 3.0, 9.0, 15.0, 30.0, 50.0, 80.0, 115.0])
LABELS = np.array([0, 1, 2, 3, 4, 5, 0, 1])
STATES = {
    "sphereface2": 3.0,
    "curricularface": 0.3,
    "adaface": (15.0, 30.0),
    "uniface": 4.0,
}
# What a loss is given besides: a key to draw with, margins by class.
KEY = jax.random.key(7)
GIVEN = {
    **{name: {"key": KEY} for name in LOSSES if name.startswith("elastic_")},
    **{name: {"class_margins": np.linspace(0.1, 0.6, 6)} for name in ("ldam", "dynamic_arcface")},
}


def problem(name, dtype=jnp.float32, seed=0):
    """Embeddings [8, 5] at ANGLES from their prototypes [6, 5], rounded to a dtype."""
    rng = np.random.default_rng(seed)
    size = (6, 3, 5) if LOSSES[name].num_subcenters else (6, 5)
    prototypes = rng.normal(size=size) * rng.uniform(0.5, 2, size=(*size[:-1], 1))
    nearest = prototypes[LABELS, 0] if len(size) == 3 else prototypes[LABELS]
    ahead = nearest / np.linalg.norm(nearest, axis=1, keepdims=True)
    aside = rng.normal(size=ahead.shape)
    aside -= ahead * np.sum(ahead * aside, axis=1, keepdims=True)
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    x = NORMS[:, None] * (np.cos(ANGLES)[:, None] * ahead + np.sin(ANGLES)[:, None] * aside)
    return as_problem(jnp.asarray(x, dtype), jnp.asarray(prototypes, dtype))


def as_problem(x, prototypes):
    """The arrays, and the same numbers, rounding included, for the oracle."""
    return SimpleNamespace(
        x=x,
        prototypes=prototypes,
        x64=np.asarray(x, np.float64),
        prototypes64=np.asarray(prototypes, np.float64),
    )


def initial_state(name):
    """A state in mid-training, or what else a loss is given; {} for most."""
    if name in GIVEN:
        return jax.tree.map(lambda v: v if v is KEY else jnp.float32(v), GIVEN[name])
    if name not in STATES:
        return {}
    value = STATES[name]
    if name == "adaface":
        return {"state": NormStatistics(*map(jnp.float32, value))}
    return {"state": jnp.float32(value)}


@functools.cache
def _compiled(name, static, signature):
    del signature  # one function a shape, which is to be traced once
    traces = []

    def total(x, prototypes, labels, arrays):
        traces.append(x.shape)
        assert len(traces) == 1, f"{name} was traced again for the same shapes: {traces}"
        result = LOSSES[name].loss(x, prototypes, labels, **dict(static), **arrays)
        losses = result[0] if LOSSES[name].start else result
        return losses.sum(), losses

    return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))


def evaluate(name, options, x, prototypes, labels=LABELS):
    """Losses [B], and the gradients of their sum by embeddings and by prototypes."""
    options = initial_state(name) | options
    arrays = {key: value for key, value in options.items() if hasattr(value, "dtype")}
    arrays = {
        key: value if key in ("state", "key") else jnp.asarray(value, jnp.float32)
        for key, value in arrays.items()
    }
    if "state" in options:
        arrays["state"] = options["state"]
    static = tuple((key, value) for key, value in options.items() if key not in arrays)
    arguments = (x, prototypes, jnp.asarray(labels), arrays)
    signature = str(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), arguments))
    (_, losses), gradients = _compiled(name, static, signature)(*arguments)
    return losses, *gradients


def evaluate_over_seeds(name, wrap=lambda function: function, **head_options):
    """For two problems: what `jax.vmap` over them finds, and what `evaluate` finds of each."""
    problems = [problem(name, seed=seed) for seed in (0, 1)]

    @wrap
    def total(x, prototypes):
        options = initial_state(name) | head_options
        result = LOSSES[name].loss(x, prototypes, jnp.asarray(LABELS), **options)
        losses = result[0] if LOSSES[name].start else result
        return losses.sum(), losses

    function = jax.jit(jax.vmap(jax.value_and_grad(total, (0, 1), has_aux=True)))
    (_, losses), (by_x, by_prototypes) = function(
        jnp.stack([data.x for data in problems]), jnp.stack([data.prototypes for data in problems])
    )
    for i, data in enumerate(problems):
        expected = evaluate(name, {}, data.x, data.prototypes)
        yield (losses[i], by_x[i], by_prototypes[i]), expected


def oracle_arguments(name, data, labels=LABELS):
    """What the oracle's functions take first."""
    state = STATES.get(name)
    if name.startswith("elastic_"):
        keys = jax.random.split(KEY, len(labels))
        state = np.array([float(jax.random.normal(key)) for key in keys])
    elif name in GIVEN:
        state = np.float64(np.float32(GIVEN[name]["class_margins"]))
    frozen = reference.freeze(name, data.x64, data.prototypes64, labels, state)
    return name, data.x64, data.prototypes64, labels, frozen


def assert_close(value, expected, relative, message=""):
    """Every entry is within a fraction of the largest."""
    np.testing.assert_allclose(
        np.asarray(value, np.float64),
        expected,
        rtol=0,
        atol=relative * np.max(np.abs(expected)),
        err_msg=message,
    )


def assert_all_finite(*arrays):
    for array in arrays:
        assert np.all(np.isfinite(array))


# Losses with hyper-parameters that are arrays, which have gradients as state and bias have.
REST = [
    ("softmax", {"bias": np.linspace(-1, 1, 6)}),
    ("sphereface", {"annealing_lambda": 2.0}),
    ("sphereface_plus", {"mhe_weight": 0.2}),
    ("sphereface2", {"alpha": 0.6, "loss_weight": 3.0}),
    ("arcface", {"margin": _EACH, "scale": 30 + _EACH}),
    ("curricularface", {"margin": _EACH}),
    ("uniface", {"negative_weight": 0.5}),
    ("cosface", {"scale": 20.0, "margin": 0.3}),
    ("curricularface", {"rate": 0.1}),
    ("magface", {"norm_weight": 3.0, "upper_margin": 0.7}),
    ("adaface", {"rate": 0.1}),
]


def gradients_by_the_rest(name, arrays, **head_options):
    """Gradients of a weighted sum of losses and state, by state, bias and hyper-parameters."""
    data = problem(name)

    def total(arrays):
        result = LOSSES[name].loss(
            data.x, data.prototypes, jnp.asarray(LABELS), **head_options, **arrays
        )
        losses, state = result if LOSSES[name].start else (result, None)
        leaves = jax.tree.leaves(state)
        return jnp.vdot(losses, jnp.arange(8.0)) + 3 * sum(leaf.sum() for leaf in leaves), state

    arrays = initial_state(name) | jax.tree.map(jnp.float32, arrays)
    return jax.jit(jax.grad(total, has_aux=True))(arrays)


def assert_equal_trees(results, expected):
    """Every entry of every leaf is within a fraction of the largest, which is not zero."""
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(expected[0]))
    assert largest > 0
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6 * largest),
        results,
        expected,
    )
