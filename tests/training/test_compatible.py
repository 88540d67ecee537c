"""Backward-compatible training: the frozen head, whence its prototypes come, and resuming."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from command import refused
from tiny_run import as_flags, quiet, tiny_config

from sphereface_jax.training.config import LossConfig, TrainConfig
from sphereface_jax.training.loop import train
from sphereface_jax.training.run_folder import load_run
from sphereface_jax.training.trainer import make_trainer


def test_the_old_prototypes_pull_and_a_resumed_run_no_longer_needs_the_old_one(
    copy: TrainConfig, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path / "new", compatible_with=copy.out, seed=1)
    # The same people, whom another seed would draw otherwise.
    config = dataclasses.replace(config, seed=copy.seed)
    console = quiet()
    result = train(config, console=console)
    assert "its own prototypes, of the same identities" in console.file.getvalue()
    alone = train(tiny_config(tmp_path / "alone"), console=quiet())
    assert result["loss"] > alone["loss"]
    whole = load_run(config.out)
    shutil.rmtree(copy.out)
    (config.out / "result.json").unlink()
    shutil.rmtree(config.out / "checkpoints" / "12")
    assert train(config, console=quiet())["loss"] == result["loss"]
    jax.tree.map(np.testing.assert_array_equal, load_run(config.out).params, whole.params)


def test_people_whom_the_old_network_does_not_know_get_the_means_of_its_embeddings(
    undisturbed: TrainConfig, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path / "new", compatible_with=undisturbed.out, steps=4)
    data = dataclasses.replace(config.data, synthetic_identities=8)
    console = quiet()
    train(dataclasses.replace(config, data=data), console=console)
    assert "the means of its embeddings of each identity" in console.file.getvalue()


def test_the_frozen_head_is_sampled_as_the_other_and_never_changes(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, compatible_with=Path("old"), loss=LossConfig("arcface", sample_rate=0.9)
    )
    trainer = make_trainer(config, 300)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 24, 16, 3), np.uint8)
    batch = {"image": images, "label": np.arange(8, dtype=np.int32)}

    def step(frozen: np.ndarray) -> tuple[np.ndarray, float]:
        placed = dataclasses.replace(trainer.init(), frozen_prototypes=jax.numpy.asarray(frozen))
        new, metrics = trainer.step(placed, batch)
        return np.asarray(new.frozen_prototypes), float(metrics["loss"])

    own = np.array(trainer.init().prototypes)
    kept, twice = step(own)
    np.testing.assert_array_equal(kept, own)
    # Prototypes that look the other way change the second head's loss, and that alone.
    changed = step(-own)[1] - twice
    assert 1 < abs(changed) < twice


def test_what_cannot_be_compared_is_refused(
    undisturbed: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*as_flags(tiny_config(tmp_path / "new")), f"--compatible-with={undisturbed.out}"]
    said = refused(capsys, "train", *flags, "--model.embedding-dim=16")
    assert "expected embeddings of 16 numbers, as this run's, got 8" in said
    assert not (tmp_path / "new").exists()
    said = refused(capsys, "train", *flags, "--loss.name=subcenter_arcface")
    assert "expected a loss with one prototype per class" in said
