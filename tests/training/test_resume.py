"""What a resumed run may change, and which data it goes on with."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from faces_on_disk import make_folder
from tiny_run import quiet, tiny_config

from sphereface_jax.data.source import Subset
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.training.loop import train
from sphereface_jax.training.run_folder import check_checkpoint, describe_run, read_config


def test_a_run_does_not_go_on_with_other_people(tmp_path: Path) -> None:
    faces = make_folder(tmp_path / "faces", {"ann": 4, "bob": 4})
    config = tiny_config(tmp_path / "run", steps=4)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, train=str(faces), resize=True)
    )
    train(config, console=quiet())
    (config.out / "result.json").unlink()
    (faces / "ann").rename(faces / "cyd")
    with pytest.raises(ValueError, match=r"that .* learns from, got as many with other names; put"):
        train(config, console=quiet())
    (faces / "cyd").rename(faces / "ann")
    make_folder(faces, {"amy": 4})
    with pytest.raises(ValueError, match=r"faces: expected the 2 identities that .* got 3; put"):
        train(config, console=quiet())


def test_a_run_goes_on_with_the_same_images_wherever_they_lie(tmp_path: Path) -> None:
    faces = make_folder(tmp_path / "faces", {"ann": 4, "bob": 4})
    config = tiny_config(tmp_path / "run", steps=4)
    data = dataclasses.replace(config.data, train=str(faces), resize=True)
    config = dataclasses.replace(config, data=data)
    whole = train(config, console=quiet())
    (config.out / "result.json").unlink()
    extra = faces / "bob" / "extra.png"
    shutil.copy(faces / "ann" / "0000.png", extra)
    with pytest.raises(ValueError, match=r"expected the 8 images that .* from, got 9; put the"):
        train(config, console=quiet())
    extra.unlink()
    faces.rename(tmp_path / "moved")
    moved = dataclasses.replace(data, train=str(tmp_path / "moved"), on_error="skip")
    other = dataclasses.replace(config, data=moved, log_every=2, checkpoint_every=2)
    assert train(other, console=quiet()) == whole
    assert read_config(config.out).data.train == str(tmp_path / "moved")


def test_a_checkpoint_that_knows_less_of_its_data_goes_on(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    source = SyntheticFaces(6, 4, image_size=(24, 16))
    ours = describe_run(config, source)
    others = describe_run(config, Subset(source, source.identities[:3]))
    check_checkpoint(ours, tmp_path, config, ours)
    with pytest.raises(ValueError, match=r"expected the 6 identities .* got 3"):
        check_checkpoint(ours, tmp_path, config, others)
    progress = {"num_classes": 6, "config": ours["config"]}
    check_checkpoint(progress, tmp_path, config, ours)
