"""A network that maps all faces to one point is named, and is not right about anybody."""

import errno
import fcntl
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_run import quiet, tiny_config

from sphereface_jax.training.config import LossConfig, ModelConfig
from sphereface_jax.training.loop import train
from sphereface_jax.training.objective import Objective
from sphereface_jax.training.run_folder import RunFolder
from sphereface_jax.training.step import collapse_metrics
from sphereface_jax.training.trainer import make_trainer


def flags(embeddings: np.ndarray, labels: list[int]) -> tuple[float, float]:
    metrics = collapse_metrics(jnp.asarray(embeddings, jnp.float32), jnp.asarray(labels))
    return float(metrics["all_zero"]), float(metrics["all_alike"])


def test_what_is_collapsed() -> None:
    faces = np.eye(3, 8)
    near = np.ones((3, 8)) + 1e-3 * faces
    assert flags(faces, [0, 1, 2]) == (0, 0)
    assert flags(1e-7 * faces, [0, 1, 2]) == (1, 0)
    assert flags(np.zeros((3, 8)), [0, 1, 2]) == (1, 0)
    assert flags(near, [0, 1, 2]) == (0, 1)
    assert flags(near, [0, 0, 0]) == (0, 0)  # of one person that is no fault
    assert flags(np.concatenate([near, faces[:1]]), [0, 1, 2, 3]) == (0, 0)
    assert flags(near * np.nan, [0, 1, 2]) == (0, 0)
    assert flags(np.tile(near, (300, 1)), [0, 1, 2] * 300) == (0, 1)


@pytest.mark.parametrize("class_block", [None, 2])
def test_ties_count_as_wrong(class_block: int | None) -> None:
    objective = Objective(LossConfig(class_block=class_block), 3)
    prototypes, labels = jnp.zeros((256, 8)).at[:3].set(jnp.eye(3, 8)), jnp.arange(3)
    for embeddings, accuracy in ((jnp.zeros((3, 8)), 0), (jnp.ones((3, 8)), 0), (jnp.eye(3, 8), 1)):
        metrics = objective.metrics(embeddings, objective.nearest(embeddings, prototypes, labels))
        assert float(metrics["accuracy"]) == accuracy


def test_a_run_that_collapses_says_so_once(tmp_path: Path) -> None:
    console = quiet()
    vanish = optax.stateless(lambda updates, params: jax.tree.map(jnp.negative, params))
    record = train(tiny_config(tmp_path / "run", steps=4), tx=vanish, console=console)
    said = console.file.getvalue()
    assert said.count("the network has collapsed: all embeddings are shorter than 1e-06") == 1
    assert record["accuracy"] == 0
    assert "all_zero" not in record


def test_batch_normalisation_of_one_image_is_refused(tmp_path: Path) -> None:
    model = ModelConfig(name="sfnet4_bn", embedding_dim=8, channels=(4, 4, 8, 8))
    with pytest.raises(
        ValueError, match=r"batch_size: expected at least 2 for sfnet4_bn, .* got 1"
    ):
        make_trainer(tiny_config(tmp_path, model=model, batch_size=1), 6)
    make_trainer(tiny_config(tmp_path, batch_size=1), 6)


def test_a_folder_without_locks_is_taken_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said: list[str] = []
    config = tiny_config(tmp_path / "run")
    with RunFolder(config, warn=said.append) as run, RunFolder(config, warn=said.append):
        assert run.is_begun
    assert len(said) == 2
    assert "run: files cannot be locked here (Function not implemented); a second run" in said[0]
