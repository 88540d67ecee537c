"""The margins alone: on a fine grid of angles, in float64, against the oracle."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import CASES, STATES

from sphereface_jax import LOSSES, margins, monotone_psi

GRID = np.concatenate([np.arange(0, np.pi, 1e-2), [np.pi / 2, np.pi - 0.5, np.pi]])
# On the edges of the grid the cosine is set, not computed, so that both sides see one number.
COSINE = np.where(np.isclose(GRID, np.pi / 2), 0.0, np.cos(GRID))


# The margin's functions of each loss, and its state as their hyper-parameters.
FUNCTIONS = {
    "softmax": (margins.identity, None),
    "normalized_softmax": (margins.identity, None),
    "sphereface": (margins.sphereface, None),
    "sphereface_plus": (margins.sphereface, None),
    "sphereface_r": (margins.sphereface_r, margins.sphereface_r_negatives),
    "sphereface2": (margins.sphereface2, margins.sphereface2_negatives),
    "cosface": (margins.cosface, None),
    "arcface": (margins.arcface, None),
    "combined_margin": (margins.combined, None),
    "subcenter_arcface": (margins.arcface, None),
    "curricularface": (margins.curricularface, margins.curricularface_negatives),
    "magface": (margins.magface, None),
    "adaface": (margins.adaface, margins.adaface_negatives),
    "uniface": (margins.cosface, None),
}
STATE_AS = {
    "curricularface": {"hardness": STATES["curricularface"]},
    "adaface": dict(zip(("mean", "std"), STATES["adaface"], strict=True)),
}
SCALAR_CASES = [
    case
    for case, (name, options) in CASES.items()
    if name in FUNCTIONS and not any(np.ndim(v) for v in options.values())
    if "filter_threshold" not in options
]


def margin_of(name, **options):
    """The target's and the others' function, with the loss's hyper-parameters in place."""
    values = LOSSES[name].hyperparameters | STATE_AS.get(name, {}) | options
    if name == "sphereface2" and values["margin"] is None:
        values["margin"] = {"C": 0.4, "A": 0.5, "M": 1.7}[values["variant"]]

    def bound(function):
        taken = inspect.signature(function).parameters
        return functools.partial(function, **{k: v for k, v in values.items() if k in taken})

    target, negatives = FUNCTIONS[name]
    return bound(target), bound(negatives or (lambda cosine, cosine_y: cosine))


def frozen_of(name, norm):
    """What the oracle takes for the state."""
    if name == "adaface":
        mean, std = STATES[name]
        quality = np.clip(0.333 * (min(norm, 100) - mean) / (std + 1e-3), -1, 1)
        return reference.SimpleNamespace(quality=[quality])
    return STATES.get(name)


@pytest.mark.parametrize("norm", [5.0, 40.0, 500.0])
@pytest.mark.parametrize("case", SCALAR_CASES)
def test_margin_is_the_formula_at_every_angle(case, norm):
    name, options = CASES[case]
    frozen = frozen_of(name, norm)
    others = np.linspace(-1, 1, 7)
    target_of, negatives_of = margin_of(name, **options)
    with jax.enable_x64(True):
        target = target_of(jnp.asarray(COSINE), jnp.full_like(COSINE, norm))
        negatives = jnp.broadcast_to(jnp.asarray(others), (len(COSINE), 7))
        negatives = negatives_of(negatives, jnp.asarray(COSINE)[:, None])
        assert target.dtype == negatives.dtype == jnp.float64
    for i, c_y in enumerate(COSINE):
        cosines = np.append(others, c_y)
        expected = reference._target_and_others(name, cosines, 7, norm, frozen, 0, options)
        np.testing.assert_allclose(target[i], expected[0], atol=1e-7, err_msg=f"θ = {GRID[i]}")
        np.testing.assert_allclose(negatives[i], expected[1][:7], atol=1e-7)


@pytest.mark.parametrize("margin", [1.0, 2.0, 3.0, 4.0, 1.7])
def test_psi_of_an_array_of_margins_is_psi(margin):
    with jax.enable_x64(True):
        array = monotone_psi(jnp.asarray(COSINE), jnp.full(len(COSINE), margin))
        np.testing.assert_allclose(array, monotone_psi(jnp.asarray(COSINE), margin), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sphereface", {}),
        ("sphereface", {"annealing_lambda": 5.0}),
        ("sphereface_r", {"version": "v0", "margin": 1.7}),
        ("sphereface_r", {"version": "v1"}),
        ("cosface", {}),
        ("arcface", {"beyond": "clamp"}),
        ("magface", {}),
        ("sphereface2", {"variant": "A"}),
    ],
)
def test_margin_never_favours_the_target_nor_rises_with_its_angle(name, options):
    target_of, negatives_of = margin_of(name, **options)
    cosine = jnp.cos(jnp.linspace(0, np.pi, 400))
    target = target_of(cosine, jnp.full_like(cosine, 50))
    plain = negatives_of(cosine, cosine) if name == "sphereface2" else cosine
    assert jnp.all(target <= plain + 1e-6)
    falls = jnp.diff(target) <= 1e-6
    # MagFace's own formula jumps up at a right angle, where its margin ends.
    assert jnp.sum(~falls) == (1 if name == "magface" else 0)


def test_magface_margin_grows_with_the_norm_up_to_its_bounds():
    target_of, _ = margin_of("magface")
    norms = jnp.array([1.0, 10.0, 60.0, 110.0, 1e4])
    target = target_of(jnp.full(5, 0.6), norms)
    added = jnp.arccos(target) - jnp.arccos(0.6)
    np.testing.assert_allclose(added, [0.45, 0.45, 0.625, 0.8, 0.8], rtol=1e-5)
    slope = jax.grad(lambda norm: target_of(jnp.full(1, 0.6), norm)[0])
    assert slope(norms[2:3]) < 0
    assert slope(norms[4:]) == 0


def test_adaface_margin_is_angular_for_poor_images_and_additive_for_good_ones():
    target_of, _ = margin_of("adaface", mean=20.0, std=5.0)
    cosine = jnp.full(3, 0.6)
    target = target_of(cosine, jnp.array([1e-3, 20.0, 100.0]))
    theta = np.arccos(0.6)
    expected = [np.cos(theta + 0.4), 0.6 - 0.4, np.cos(theta - 0.4) - 0.8]
    np.testing.assert_allclose(target, expected, atol=1e-4)
    slope = jax.grad(lambda norms: target_of(cosine, norms).sum())
    assert jnp.all(slope(jnp.array([10.0, 20.0, 30.0])) == 0)  # the norm is detached


def test_curricularface_mines_the_classes_closer_than_the_target_less_its_margin():
    _, negatives_of = margin_of("curricularface", hardness=jnp.float32(0.3))
    cosine, cosine_y = jnp.array([[0.9, 0.2, 0.1, -0.5]]), jnp.array([[0.6]])
    assert 0.1 < np.cos(np.arccos(0.6) + 0.5) < 0.2
    changed = negatives_of(cosine, cosine_y)
    np.testing.assert_allclose(changed, [[0.9 * 1.2, 0.2 * 0.5, 0.1, -0.5]], rtol=1e-6)


@pytest.mark.parametrize("case", SCALAR_CASES)
def test_margin_has_finite_slopes_at_and_next_to_every_cosine(case):
    name, options = CASES[case]
    target_of, negatives_of = margin_of(name, **options)
    one = np.float32(1)
    edges = [one, np.nextafter(one, np.float32(0)), -one, -np.nextafter(one, np.float32(0))]
    borders = [np.cos(k * np.pi / m) for m in range(1, 6) for k in range(m + 1)]
    cosine = jnp.asarray(np.concatenate([edges, borders, [1.0000001, -1.0000001]]), jnp.float32)
    norms = jnp.full_like(cosine, 50.0)
    slope = jax.vmap(jax.grad(lambda c, n: target_of(c[None], n[None])[0]))
    assert np.all(np.isfinite(slope(cosine, norms)))
    slope = jax.vmap(jax.grad(lambda c: negatives_of(c, jnp.float32(0.3))))
    assert np.all(np.isfinite(slope(cosine)))
