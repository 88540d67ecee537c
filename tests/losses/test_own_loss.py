"""The trainer takes a loss of the user's own, and what is used of the run needs it no more."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from command import call
from faces_on_disk import make_face, write_image
from tiny_run import folder_config, quiet, tiny_config

from sphereface_jax import Loss, margin_loss, target_cosine
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.training.config import LossConfig
from sphereface_jax.training.loop import train
from sphereface_jax.training.trainer import make_trainer


def half(cosine_y, norms, *, margin):
    return cosine_y / 2 - margin


def half_loss(embeddings, prototypes, labels, *, margin=0.1, num_classes=None, class_block=None):
    return margin_loss(
        embeddings,
        prototypes,
        labels,
        target=half,
        hyperparameters={"margin": margin},
        scale=10.0,
        num_classes=num_classes,
        class_block=class_block,
    )


def following_loss(
    embeddings, prototypes, labels, *, state, margin=0.1, num_classes=None, class_block=None
):
    """Its margin follows the running mean of the target's cosine."""
    cosine_y = target_cosine(embeddings, prototypes, labels, num_classes=num_classes)
    state = 0.9 * state + 0.1 * cosine_y.mean()
    losses = margin_loss(
        embeddings,
        prototypes,
        labels,
        target=half,
        hyperparameters={"margin": margin + state},
        num_classes=num_classes,
        class_block=class_block,
    )
    return losses, state


FOLLOWING = Loss(following_loss, start=lambda num_classes: jnp.zeros(()), whole_batch=True)


def test_a_loss_of_one_s_own_trains_resumes_and_is_used(tmp_path: Path) -> None:
    faces, out = tmp_path / "faces", tmp_path / "run"
    for i in range(32):
        write_image(faces / f"person{i % 8}" / f"{i}.png", make_face(i, 24, 16))
    config = folder_config(faces, out)
    loss = LossConfig(name="following", margin=0.2, class_block=2)
    config = dataclasses.replace(config, loss=loss)
    train(config, loss=FOLLOWING, console=quiet())
    # What uses the run needs neither the function nor its state.
    picture = next(faces.rglob("*.png"))
    vector = FaceEmbedder.from_run(out).embed([picture])
    assert np.isfinite(vector).all()
    assert call("evaluate", out, "--images", faces) == 0
    assert call("export", out, "--safetensors", tmp_path / "w.safetensors") == 0
    (out / "result.json").unlink()  # as if it had not finished
    with pytest.raises(ValueError, match=r"got 'following'; a loss of your own is given as train"):
        train(config, console=quiet())
    with pytest.raises(ValueError, match="expected nothing for loss_state, found float32"):
        train(config, loss=half_loss, console=quiet())
    assert train(config, loss=FOLLOWING, console=quiet())["step"] == config.steps


def test_its_hyper_parameters_are_those_of_its_signature(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, loss=LossConfig(name="half", scale=3.0))
    with pytest.raises(ValueError, match=r"loss.scale: half takes no scale; it takes margin"):
        make_trainer(config, 6, loss=half_loss)


def test_it_needs_a_name_of_its_own(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, loss=LossConfig(name="arcface"))
    with pytest.raises(ValueError, match=r"loss.name: expected a name for a loss of your own"):
        make_trainer(config, 6, loss=half_loss)


def test_it_may_carry_state(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, loss=LossConfig(name="following"))
    trainer = make_trainer(config, 6, loss=FOLLOWING)
    state = trainer.init()
    batch = {
        "image": np.zeros((config.batch_size, *config.data.image_size, 3), np.uint8),
        "label": np.zeros(config.batch_size, np.int32),
    }
    assert float(state.loss_state) == 0
    state, _ = trainer.step(state, batch)
    assert float(state.loss_state) != 0
    with pytest.raises(ValueError, match=r"accumulate: .* following"):
        make_trainer(dataclasses.replace(config, accumulate=2), 6, loss=FOLLOWING)
