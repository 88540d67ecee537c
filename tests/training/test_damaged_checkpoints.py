"""Damaged checkpoints are passed over, and no other bits than those saved are ever restored."""

import dataclasses
import gc
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import refused
from disturbance import assert_same_end, restore, warnings
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tiny_run import as_flags, quiet

from sphereface_jax.training import checkpoint
from sphereface_jax.training.checkpoint import Checkpoints, fingerprint, is_finite
from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.loop import train
from sphereface_jax.training.run_folder import load_run

# Orbax leaves the other arrays' coroutines and threads behind when one cannot be read or written.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def remove(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_bits(path: Path) -> None:
    """Of sixteen bytes in the middle."""
    content = np.fromfile(path, np.uint8)
    content[len(content) // 2 :][:16] ^= 0x5A
    content.tofile(path)


def flip_bits_all_over(path: Path) -> None:
    content = np.fromfile(path, np.uint8)
    content[::16] ^= 0x5A
    content.tofile(path)


DAMAGES = [remove, cut_short, flip_bits]


def damage_all(damage: Callable[[Path], None], checkpoint: Path, pattern: str) -> None:
    paths = [path for path in checkpoint.glob(pattern) if path.is_file()]
    assert paths
    for path in paths:
        damage(path)


@pytest.mark.parametrize("damage", [remove, cut_short, flip_bits_all_over])
@pytest.mark.parametrize("pattern", ["weights/**/d/*", "training/manifest.ocdbt", "progress/meta*"])
def test_a_damaged_checkpoint_is_passed_over(
    copy: TrainConfig, damage: Callable[[Path], None], pattern: str
) -> None:
    newest = copy.out / "checkpoints" / "12"
    damage_all(damage, newest, pattern)
    state, said = restore(copy)
    assert int(state.step) == 8
    assert len(said) == 1
    assert f"{newest} is damaged (" in said[0]
    assert said[0].endswith("taking that of step 8")


def check_that_bits_are_as_saved(config: TrainConfig, damages: list[tuple[Path, Callable]]) -> int:
    """Restores with one damage at a time; returns how many were passed over."""
    newest = config.out / "checkpoints" / "12"
    whole = config.out / "whole"
    shutil.copytree(newest, whole)
    expected = {12: restore(config)[0]}
    passed_over = 0
    for path, damage in damages:
        damage(newest / path)
        state, said = restore(config)
        step = int(state.step)
        assert (step, len(said)) in [(12, 0), (8, 1)], (path, damage)
        expected.setdefault(step, state)
        assert fingerprint(state) == fingerprint(expected[step]), (path, damage)
        passed_over += step == 8
        shutil.rmtree(newest)
        shutil.copytree(whole, newest)
    gc.collect()  # of what Orbax left behind, while complaints of that are ignored
    return passed_over


def files_of(checkpoint: Path) -> list[Path]:
    return sorted(path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())


def test_some_damage_anywhere_never_restores_other_bits(copy: TrainConfig) -> None:
    files = files_of(copy.out / "checkpoints" / "12")
    rng = random.Random(0)
    check_that_bits_are_as_saved(copy, [(rng.choice(files), rng.choice(DAMAGES)) for _ in range(6)])


@pytest.mark.chaos
def test_any_damage_anywhere_never_restores_other_bits(copy: TrainConfig) -> None:
    files = files_of(copy.out / "checkpoints" / "12")
    damages = [(path, damage) for path in files for damage in DAMAGES]
    passed_over = check_that_bits_are_as_saved(copy, damages)
    print(f"{len(damages)} damages, {passed_over} passed over, none restored as other bits")
    assert passed_over > len(damages) / 4


def test_a_run_goes_on_from_the_checkpoint_before(
    copy: TrainConfig, undisturbed: TrainConfig
) -> None:
    newest = copy.out / "checkpoints" / "12"
    damage_all(flip_bits_all_over, newest, "training/**/d/*")
    shutil.copytree(newest, newest.with_name("12.orbax-checkpoint-tmp"))  # half-written
    console = quiet()
    train(copy, console=console)
    assert "Resuming from step 8" in console.file.getvalue()
    assert len(warnings(console)) == 1
    assert f"{newest} is damaged (" in warnings(console)[0]
    names = {path.name for path in newest.parent.iterdir()}
    assert names == {"4", "8", "12", "12.damaged"}
    assert_same_end(copy, undisturbed)


def test_bits_that_restore_without_an_error_are_still_compared(
    undisturbed: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, _ = restore(undisturbed)
    config = dataclasses.replace(undisturbed, out=tmp_path / "run")
    with Checkpoints(config.out / "checkpoints", keep=2) as checkpoints:
        checkpoints.save(1, state, {})
        changed = dataclasses.replace(state, prototypes=state.prototypes.at[2, 3].add(1e-7))
        prints = checkpoint._fingerprints(vars(state), {})
        monkeypatch.setattr(checkpoint, "_fingerprints", lambda *_: prints)
        checkpoints.save(2, changed, {})
        monkeypatch.undo()
        checkpoints.wait()
    restored, said = restore(config)
    assert fingerprint(restored) == fingerprint(state)
    assert "prototypes has other bits than were saved" in said[0]


def test_only_half_written_checkpoints_are_none(copy: TrainConfig) -> None:
    for step in (4, 8, 12):
        path = copy.out / "checkpoints" / str(step)
        path.rename(path.with_name(f"{step}.orbax-checkpoint-tmp"))
    with pytest.raises(FileNotFoundError, match="expected a checkpoint, found none"):
        load_run(copy.out)


def test_where_all_are_damaged_one_line_says_so(
    copy: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (4, 8, 12):
        damage_all(cut_short, copy.out / "checkpoints" / str(step), "weights/**/d/*")
    before = files_of(copy.out)
    line = refused(capsys, "train", *as_flags(copy))
    assert "expected a checkpoint that can be read, got damaged ones (step 12: " in line
    assert "step 4: " in line
    assert files_of(copy.out) == before
    with pytest.raises(ValueError, match="got damaged ones"):
        load_run(copy.out)


def test_readers_take_the_checkpoint_before(
    copy: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    damage_all(flip_bits_all_over, copy.out / "checkpoints" / "12", "weights/**/d/*")
    assert load_run(copy.out).step == 8
    assert "12 is damaged (" in caplog.text
    assert (copy.out / "checkpoints" / "12").is_dir()


# Fingerprints


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.bool_])
def test_a_fingerprint_sees_every_element_and_the_order(dtype: jnp.dtype) -> None:
    array = np.random.default_rng(0).integers(0, 2, (3, 5)).astype(dtype)
    start = fingerprint({"a": array})
    for index in np.ndindex(array.shape):
        changed = array.copy()
        changed[index] = 1 - changed[index]
        assert fingerprint({"a": changed}) != start
    assert fingerprint({"a": array[::-1]}) != start
    assert fingerprint({"a": array, "b": array[:1]}) != fingerprint({"a": array[:1], "b": array})
    assert fingerprint({"a": array.copy()}) == start


def test_a_fingerprint_knows_nothing_of_the_sharding() -> None:
    array = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    sharded = jax.device_put(array, NamedSharding(mesh, P("data")))
    assert fingerprint(sharded) == fingerprint(array)


def test_is_finite() -> None:
    assert is_finite({"a": np.zeros(3), "b": np.ones(2, np.int32)})
    assert not is_finite({"a": np.zeros(3), "b": np.array([0, np.inf])})
    assert not is_finite(np.array(np.nan))
