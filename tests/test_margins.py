"""The margins alone: on a fine grid of angles, in float64, against the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import CASES, STATES

from sphereface_jax import LOSSES, NormStatistics

GRID = np.concatenate([np.arange(0, np.pi, 1e-2), [np.pi / 2, np.pi - 0.5, np.pi]])
# On the edges of the grid the cosine is set, not computed, so that both sides see one number.
COSINE = np.where(np.isclose(GRID, np.pi / 2), 0.0, np.cos(GRID))


def state_and_frozen(name, norm):
    """A state as the library takes it, and what the oracle makes of it."""
    if name == "adaface":
        mean, std = STATES[name]
        quality = np.clip(0.333 * (min(norm, 100) - mean) / (std + 1e-3), -1, 1)
        return NormStatistics(mean, std), reference.SimpleNamespace(quality=[quality])
    return STATES.get(name), STATES.get(name)


@pytest.mark.parametrize("norm", [5.0, 40.0, 500.0])
@pytest.mark.parametrize("case", [case for case in CASES if case != "softmax-bias"])
def test_margin_is_the_formula_at_every_angle(case, norm):
    name, options = CASES[case]
    row = LOSSES[name]
    state, frozen = state_and_frozen(name, norm)
    others = np.linspace(-1, 1, 7)
    with jax.enable_x64(True):
        margin = row.margin({key: options[key] for key in options if key in row.hyperparameters})
        target = margin.target(jnp.asarray(COSINE), jnp.full_like(COSINE, norm), state)
        negatives = jnp.broadcast_to(jnp.asarray(others), (len(COSINE), 7))
        if margin.negatives is not None:
            negatives = margin.negatives(negatives, jnp.asarray(COSINE)[:, None], state)
        assert target.dtype == negatives.dtype == jnp.float64
    for i, c_y in enumerate(COSINE):
        cosines = np.append(others, c_y)
        expected = reference._target_and_others(name, cosines, 7, norm, frozen, 0, options)
        np.testing.assert_allclose(target[i], expected[0], atol=1e-7, err_msg=f"θ = {GRID[i]}")
        np.testing.assert_allclose(negatives[i], expected[1][:7], atol=1e-7)


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
    margin = LOSSES[name].margin(options)
    cosine = jnp.cos(jnp.linspace(0, np.pi, 400))
    target = margin.target(cosine, jnp.full_like(cosine, 50), None)
    plain = margin.negatives(cosine, cosine, None) if name == "sphereface2" else cosine
    assert jnp.all(target <= plain + 1e-6)
    falls = jnp.diff(target) <= 1e-6
    # MagFace's own formula jumps up at a right angle, where its margin ends.
    assert jnp.sum(~falls) == (1 if name == "magface" else 0)


def test_magface_margin_grows_with_the_norm_up_to_its_bounds():
    margin = LOSSES["magface"].margin({})
    norms = jnp.array([1.0, 10.0, 60.0, 110.0, 1e4])
    target = margin.target(jnp.full(5, 0.6), norms, None)
    added = jnp.arccos(target) - jnp.arccos(0.6)
    np.testing.assert_allclose(added, [0.45, 0.45, 0.625, 0.8, 0.8], rtol=1e-5)
    slope = jax.grad(lambda norm: margin.target(jnp.full(1, 0.6), norm, None)[0])
    assert slope(norms[2:3]) < 0
    assert slope(norms[4:]) == 0


def test_adaface_margin_is_angular_for_poor_images_and_additive_for_good_ones():
    margin = LOSSES["adaface"].margin({})
    cosine, state = jnp.full(3, 0.6), NormStatistics(20.0, 5.0)
    target = margin.target(cosine, jnp.array([1e-3, 20.0, 100.0]), state)
    theta = np.arccos(0.6)
    expected = [np.cos(theta + 0.4), 0.6 - 0.4, np.cos(theta - 0.4) - 0.8]
    np.testing.assert_allclose(target, expected, atol=1e-4)
    slope = jax.grad(lambda norms: margin.target(cosine, norms, state).sum())
    assert jnp.all(slope(jnp.array([10.0, 20.0, 30.0])) == 0)  # the norm is detached


def test_curricularface_mines_the_classes_closer_than_the_target_less_its_margin():
    margin = LOSSES["curricularface"].margin({})
    cosine, cosine_y = jnp.array([[0.9, 0.2, 0.1, -0.5]]), jnp.array([[0.6]])
    assert 0.1 < np.cos(np.arccos(0.6) + 0.5) < 0.2
    changed = margin.negatives(cosine, cosine_y, jnp.float32(0.3))
    np.testing.assert_allclose(changed, [[0.9 * 1.2, 0.2 * 0.5, 0.1, -0.5]], rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_margin_has_finite_slopes_at_and_next_to_every_cosine(case):
    name, options = CASES[case]
    row = LOSSES[name]
    margin = row.margin({key: options[key] for key in options if key in row.hyperparameters})
    state, _ = state_and_frozen(name, 50.0)
    one = np.float32(1)
    edges = [one, np.nextafter(one, np.float32(0)), -one, -np.nextafter(one, np.float32(0))]
    borders = [np.cos(k * np.pi / m) for m in range(1, 6) for k in range(m + 1)]
    cosine = jnp.asarray(np.concatenate([edges, borders, [1.0000001, -1.0000001]]), jnp.float32)
    norms = jnp.full_like(cosine, 50.0)
    slope = jax.vmap(jax.grad(lambda c, n: margin.target(c[None], n[None], state)[0]))
    assert np.all(np.isfinite(slope(cosine, norms)))
    if margin.negatives is not None:
        slope = jax.vmap(jax.grad(lambda c: margin.negatives(c, jnp.float32(0.3), state)))
        assert np.all(np.isfinite(slope(cosine)))
