"""PartialFC: what is drawn, and that what is not drawn stays as it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from on_devices import run_on_devices
from tiny_run import tiny_config

from sphereface_jax import arcface_loss
from sphereface_jax.heads.sampling import Sampler
from sphereface_jax.training.config import LossConfig, OptimizerConfig
from sphereface_jax.training.optimizer import OPTIMIZERS, make_optimizer
from sphereface_jax.training.partial_fc import choose_classes, require_rowwise
from sphereface_jax.training.trainer import make_trainer

LABELS = jnp.array([3, 17, 3, 39, 0])


def make_sampler(**changes):
    options = {"rows": 64, "num_classes": 40, "rate": 0.25, "batch_size": 5}
    return Sampler(**(options | changes))


@pytest.mark.parametrize("rate", [0.01, 0.25, 1.0])
def test_a_sample_holds_the_batch_s_classes_and_others_once(rate):
    sampler = make_sampler(rate=rate)
    sample = sampler.draw(jax.random.key(0), LABELS)
    (rows,) = np.asarray(sample.rows)
    assert len(rows) == max(5, 40 * rate)
    assert np.all(np.diff(rows) > 0)
    np.testing.assert_array_equal(rows[sample.labels], LABELS)
    assert sampler.classes_drawn == np.sum(rows < 40) == min(len(rows), 40)
    assert np.all(rows[: sampler.classes_drawn] < 40)


def test_a_sample_is_a_function_of_the_key():
    sampler = make_sampler()
    draw = jax.jit(lambda seed: sampler.draw(jax.random.key(seed), LABELS))
    first, again, other = draw(0), draw(0), draw(1)
    np.testing.assert_array_equal(first.rows, again.rows)
    assert np.any(first.rows != other.rows)


def test_others_have_equal_chances():
    sampler = make_sampler()
    keys = jax.random.split(jax.random.key(0), 2000)
    rows = jax.vmap(lambda key: sampler.draw(key, LABELS).rows[0])(keys)
    share = np.bincount(np.asarray(rows).ravel(), minlength=64) / 2000
    own = np.unique(LABELS)
    assert np.all(share[own] == 1)
    assert np.all(share[40:] == 0)
    others = np.delete(share[:40], own)
    chance = (10 - len(own)) / 36  # the sample's other places, among the other classes
    assert np.all(np.abs(others - chance) < 5 * np.sqrt(chance * (1 - chance) / 2000))


def test_rows_are_taken_and_put_back():
    sampler = make_sampler()
    sample = sampler.draw(jax.random.key(0), LABELS)
    values = jnp.arange(128.0).reshape(64, 2)
    drawn = sampler.take(sample, values)
    np.testing.assert_array_equal(drawn, values[sample.rows[0]])
    result = np.asarray(sampler.put(sample, values, -drawn))
    expected = np.asarray(values).copy()
    expected[sample.rows[0]] *= -1
    np.testing.assert_array_equal(result, expected)


def test_the_loss_of_a_sample_of_all_is_the_loss():
    rng = np.random.default_rng(0)
    x, prototypes = (jnp.asarray(rng.normal(size=(n, 3)), jnp.float32) for n in (5, 64))
    sampler = make_sampler(rate=1.0)
    sample = sampler.draw(jax.random.key(0), LABELS)
    rows = sampler.take(sample, prototypes)
    losses = arcface_loss(x, rows, sample.labels, num_classes=sampler.classes_drawn)
    np.testing.assert_array_equal(losses, arcface_loss(x, prototypes, LABELS, num_classes=40))


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.5])
def test_a_rate_is_a_share(rate):
    with pytest.raises(ValueError, match="rate: expected a fraction"):
        make_sampler(rate=rate)


def batch_of(config, num_classes):
    key = jax.random.key(0)
    shape = (config.batch_size, *config.data.image_size, 3)
    return {
        "image": jax.random.randint(key, shape, 0, 256).astype(jnp.uint8),
        "label": jax.random.randint(key, shape[:1], 0, num_classes),
    }


@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [
        (OptimizerConfig(), LossConfig("arcface", sample_rate=0.1)),
        (OptimizerConfig(), LossConfig(gradient="caffe", sample_rate=0.1, class_block=9)),
        (OptimizerConfig(name="adamw"), LossConfig("sphereface2", sample_rate=0.1)),
        (OptimizerConfig(), LossConfig("subcenter_arcface", sample_rate=0.1, class_block=9)),
    ],
)
def test_only_sampled_rows_and_what_is_kept_for_them_move(tmp_path, optimizer, loss):
    config = tiny_config(tmp_path, optimizer=optimizer, loss=loss)
    trainer = make_trainer(config, 300)
    state = trainer.init()
    for _ in range(2):  # so that there is momentum to go wrong
        before = jax.tree.map(np.asarray, state)
        batch = batch_of(config, 300)
        rows = np.asarray(choose_classes(state, batch["label"], trainer.objective).sample.rows[0])
        state, _ = trainer.step(state, batch)
        is_drawn = np.zeros(512, bool)
        is_drawn[rows] = True
        assert is_drawn.sum() == 30
        whole = (before.prototypes, before.opt_state["prototypes"])
        after = (state.prototypes, state.opt_state["prototypes"])
        by_row = 0
        for old, new in zip(jax.tree.leaves(whole), jax.tree.leaves(after), strict=True):
            if old.shape == before.prototypes.shape:
                by_row += 1
                has_moved = np.any((old != new).reshape(512, -1), axis=1)
                np.testing.assert_array_equal(has_moved, is_drawn)
            else:
                assert old.shape == ()
                assert new == old + 1
        assert by_row == (3 if optimizer.name == "adamw" else 2)


def test_sampled_rows_are_updated_as_if_they_were_all(tmp_path):
    """One step equals one step of a run that has only the sampled classes."""
    config = tiny_config(tmp_path, loss=LossConfig("arcface", sample_rate=0.1))
    trainer = make_trainer(config, 300)
    state, batch = trainer.init(), batch_of(config, 300)
    classes = choose_classes(state, batch["label"], trainer.objective)
    few = make_trainer(dataclasses.replace(config, loss=LossConfig("arcface")), 30)
    padded = jnp.pad(classes.prototypes, ((0, 226), (0, 0)))
    start = dataclasses.replace(few.init(), params=jax.tree.map(jnp.copy, state.params))
    start = dataclasses.replace(start, prototypes=padded)
    expected, metrics = few.step(start, batch | {"label": classes.labels})
    state, sampled_metrics = trainer.step(state, batch)
    rows = np.asarray(classes.sample.rows[0])
    np.testing.assert_allclose(state.prototypes[rows], expected.prototypes[:30], atol=1e-6)
    for name, value in metrics.items():
        np.testing.assert_allclose(sampled_metrics[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(("num_classes", "rows"), [(257, 512), (300, 512), (256, 256)])
def test_the_rate_counts_classes_not_rows(num_classes, rows):
    sampler = Sampler(rows=rows, num_classes=num_classes, rate=0.1, batch_size=8)
    assert sampler.drawn_per_shard == -(-num_classes // 10)


def test_by_partial_fc_v2_rows_that_are_not_drawn_decay_and_coast(tmp_path):
    loss = LossConfig("arcface", sample_rate=0.1, sampling="partial_fc_v2")
    config = tiny_config(tmp_path, loss=loss)
    trainer = make_trainer(config, 300)
    state = trainer.init()
    rate, decay = config.optimizer.learning_rate, config.optimizer.weight_decay
    velocity, batch = np.zeros(state.prototypes.shape, np.float32), batch_of(config, 300)
    for _ in range(2):
        before = np.asarray(state.prototypes)
        rows = np.asarray(choose_classes(state, batch["label"], trainer.objective).sample.rows[0])
        others = np.setdiff1d(np.arange(300), rows)
        state, _ = trainer.step(state, batch)
        after = np.asarray(state.prototypes)
        moved = 0.9 * velocity + rate * decay * before
        np.testing.assert_allclose(after[others], (before - moved)[others], rtol=1e-5, atol=1e-8)
        assert np.all(np.abs(after - before)[rows].max(axis=1) > 0)
        velocity = before - after


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_that_mixes_rows_is_refused_by_name(name):
    tx = make_optimizer(OptimizerConfig(name=name), 10)
    if name not in ("lamb", "lars"):
        require_rowwise(tx, name)
        return
    with pytest.raises(ValueError, match=rf"loss.sample_rate: .* got {name}, which mixes rows"):
        require_rowwise(tx, name)


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1)),
        optax.adafactor(0.1, min_dim_size_to_factor=2),
        optax.sm3(0.1),
    ],
)
def test_one_of_one_s_own_that_mixes_rows_is_refused(tmp_path, tx):
    config = tiny_config(tmp_path, loss=LossConfig(sample_rate=0.5))
    with pytest.raises(ValueError, match="got the one given, which mixes rows"):
        make_trainer(config, 6, tx=tx)


@pytest.mark.slow
@pytest.mark.parametrize(("data", "model"), [(2, 4), (1, 8)])
def test_every_shard_draws_for_itself(data, model):
    run_on_devices("unsampled_rows_do_not_move", data, model)
