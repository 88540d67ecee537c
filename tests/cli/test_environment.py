"""A run computes the same whatever JAX's flags say outside, and changes none of them."""

import contextlib
import dataclasses
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from disturbance import restore
from tiny_run import as_flags, quiet, tiny_config

from sphereface_jax.compilation import run_arithmetic
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.training.checkpoint import Checkpoints, fingerprint, is_finite
from sphereface_jax.training.config import LossConfig, OptimizerConfig, TrainConfig
from sphereface_jax.training.loop import train
from sphereface_jax.training.run_folder import load_run
from sphereface_jax.training.trainer import make_trainer


@contextlib.contextmanager
def other_flags() -> Iterator[None]:
    with jax.enable_x64(True), jax.default_prng_impl("rbg"):
        yield


def test_the_context_changes_no_flag_outside() -> None:
    with other_flags():
        with run_arithmetic():
            assert jnp.zeros(2).dtype == jnp.float32
            assert jax.random.key_data(jax.random.key(0)).shape == (2,)
        assert jnp.zeros(2).dtype == jnp.float64
        assert jax.random.key_data(jax.random.key(0)).shape == (4,)


def test_a_run_and_its_readers_know_nothing_of_the_flags(
    copy: TrainConfig, undisturbed: TrainConfig
) -> None:
    face = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)
    expected = FaceEmbedder.from_run(undisturbed.out).embed(face)
    with other_flags():
        assert load_run(copy.out).prototypes.dtype == jnp.float32
        np.testing.assert_array_equal(FaceEmbedder.from_run(copy.out).embed(face), expected)
        state, said = restore(copy)
        trainer = make_trainer(copy, 6)
        with run_arithmetic():
            fresh = trainer.init()
        chex.assert_trees_all_equal_shapes_and_dtypes(fresh, trainer.like)
        assert jax.config.jax_enable_x64
    assert said == []
    assert fingerprint(state) == fingerprint(restore(undisturbed)[0])


@pytest.mark.slow
def test_a_run_trained_under_other_flags_ends_in_the_same_bits(
    undisturbed: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(undisturbed, out=tmp_path / "run")
    flags = {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg"}
    command = [sys.executable, "-m", "sphereface_jax.cli", "train", *as_flags(config)]
    subprocess.run(command, env=os.environ | flags, check=True, capture_output=True)
    assert fingerprint(restore(config)[0]) == fingerprint(restore(undisturbed)[0])


# What is no damage


def test_wide_values_are_fingerprinted_to_the_last_bit() -> None:
    for array in (np.ones((2, 3)), np.ones((2, 3), np.int64)):
        start = fingerprint(array)
        assert fingerprint(array.copy()) == start
        for bit in range(64):
            changed = array.copy()
            changed.view(np.uint64)[1, 2] ^= np.uint64(1 << bit)
            assert fingerprint(changed) != start
        assert fingerprint(array) != fingerprint(array.astype(np.float32))
    with jax.enable_x64(True):
        assert fingerprint(jnp.asarray(np.ones((2, 3)))) == fingerprint(np.ones((2, 3)))
    assert is_finite(np.array(1e300))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loss": LossConfig(name="subcenter_arcface")}, r"prototypes, found float32\[256, 8\]"),
        ({"optimizer": OptimizerConfig(name="adam")}, r"opt_state.*, found nothing"),
    ],
)
def test_another_state_is_not_called_damaged(
    copy: TrainConfig, changes: dict, expected: str
) -> None:
    other = dataclasses.replace(copy, **changes)
    with (
        Checkpoints(copy.out / "checkpoints", keep=3) as checkpoints,
        pytest.raises(
            ValueError, match=rf"12: expected .*{expected}; it was written with"
        ) as caught,
    ):
        checkpoints.restore(make_trainer(other, 6).like)
    assert "damaged" not in str(caught.value)
    assert (copy.out / "checkpoints" / "12").is_dir()


def test_float64_weights_of_an_earlier_version_are_named(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=1)
    trainer = make_trainer(config, 6)
    state = trainer.init()
    with jax.enable_x64(True):
        wide = dataclasses.replace(state, prototypes=state.prototypes.astype(jnp.float64))
        with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
            checkpoints.save(1, wide, {})
            checkpoints.wait()
            with pytest.raises(ValueError, match=r"expected float32\[256, 8\] for .*float64\[256"):
                checkpoints.restore(trainer.like)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE])
def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(
    copy: TrainConfig, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code), str(copy.out))

    with Checkpoints(copy.out / "checkpoints", keep=3) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "restore", refuse)
        with pytest.raises(OSError, match=os.strerror(code)):
            checkpoints.progress()
    assert (copy.out / "checkpoints" / "12").is_dir()


def test_a_run_may_be_trained_inside_other_flags(tmp_path: Path) -> None:
    with other_flags():
        config = tiny_config(tmp_path / "run", steps=2)
        train(config, console=quiet())
        assert jnp.zeros(1).dtype == jnp.float64
    assert load_run(config.out).step == 2


def test_a_run_trains_where_the_caller_forbids_promotion(tmp_path: Path) -> None:
    optimizer = OptimizerConfig(learning_rate=0.02, clip_norm=5.0, warmup_steps=1, ema_decay=0.5)
    config = tiny_config(tmp_path / "run", steps=2, optimizer=optimizer)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        train(config, console=quiet())
        face = np.zeros((24, 16, 3), np.uint8)
        assert FaceEmbedder.from_run(config.out).embed(face).shape == (1, 8)
        with pytest.raises(ValueError, match="rank_promotion"):
            jnp.zeros(2) * jnp.zeros((2, 2))
