"""`sphereface_jax.testing` passes what is right, and finds what is not."""

import functools

import jax
import jax.numpy as jnp
import pytest

from sphereface_jax import (
    LOSSES,
    arcface_loss,
    cosface_loss,
    margin_loss,
    margins,
    sphereface_loss,
    testing,
)

PLAIN = ["softmax", "sphereface", "sphereface_r", "arcface", "magface"]


@pytest.mark.parametrize("name", PLAIN)
def test_a_loss_of_the_family_passes_them_all(name):
    loss = LOSSES[name].loss
    one_device = jax.make_mesh((1, 1), ("data", "model"))
    testing.assert_heads_agree(
        loss, *testing.random_problem(), class_blocks=(4,), meshes=(one_device,)
    )
    testing.assert_finite_at_edges(loss)
    # Its own gradient, where the margin does not reach a kink of the formula.
    testing.assert_gradients_match(loss, *testing.random_problem(), rtol=1e-5)


def test_a_gradient_that_is_not_the_loss_s_is_found():
    detached = functools.partial(arcface_loss, gradient="detached")
    with pytest.raises(AssertionError, match="gradient by embeddings against differences"):
        testing.assert_gradients_match(detached, *testing.random_problem())


def test_a_head_that_differs_is_found():
    def wrong(embeddings, prototypes, labels, *, class_block=None, mesh=None):
        scale = 64.0 if class_block is None else 63.0
        return cosface_loss(embeddings, prototypes, labels, scale=scale)

    with pytest.raises(AssertionError, match=r"loss with \{'class_block': 1\}"):
        testing.assert_heads_agree(wrong, *testing.random_problem())


@pytest.mark.parametrize("margin", [2, 3, 4, 2.5])
def test_psi_is_monotone_and_cos_m_theta_is_not(margin):
    testing.assert_margin_is_monotone(
        margins.sphereface_r, hyperparameters={"margin": margin, "version": "v0"}
    )
    with pytest.raises(AssertionError, match="expected"):
        testing.assert_margin_is_monotone(
            lambda cosine_y, norms: jnp.cos(margin * jnp.arccos(cosine_y))
        )


def test_a_margin_above_the_cosine_is_found():
    with pytest.raises(AssertionError, match="at most the cosine"):
        testing.assert_margin_is_monotone(lambda cosine_y, norms: cosine_y + 0.1)


def test_a_naive_arccos_is_found():
    def naive(cosine_y, norms):
        return jnp.cos(jnp.arccos(cosine_y) + 0.5)

    with pytest.raises(AssertionError, match="gradient by embeddings: not finite"):
        testing.assert_finite_at_edges(functools.partial(margin_loss, target=naive))


def test_every_problem_has_every_class():
    embeddings, prototypes, labels = testing.random_problem(batch=12, num_classes=7, width=3)
    assert (embeddings.shape, prototypes.shape) == ((12, 3), (7, 3))
    assert set(labels.tolist()) == set(range(7))
    assert jnp.isfinite(sphereface_loss(embeddings, prototypes, labels)).all()
