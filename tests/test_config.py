"""A config survives its file, and two configs say how they differ."""

import dataclasses
from pathlib import Path

import pytest

from sphereface_jax.training.config import (
    DataConfig,
    TrainConfig,
    ValConfig,
    differences,
    from_dict,
    to_dict,
)


def test_round_trip() -> None:
    config = TrainConfig(
        out=Path("a/b"),
        data=DataConfig(train="faces", image_size=(112, 112)),
        init_from=Path("runs/old"),
    )
    assert from_dict(TrainConfig, to_dict(config)) == config


def test_unknown_field_is_named() -> None:
    values = to_dict(TrainConfig())
    values["loss"]["margn"] = 3
    with pytest.raises(ValueError, match="RUN: unknown field 'margn'"):
        from_dict(TrainConfig, values, where="RUN")


def test_differences_name_field_and_values() -> None:
    ours = TrainConfig(steps=5, data=DataConfig(shift=2))
    assert differences(ours, TrainConfig(steps=4)) == ["data.shift: 0 -> 2", "steps: 4 -> 5"]
    assert differences(ours, dataclasses.replace(ours)) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("batch_size", -1), ("log_every", 0), ("val", ValConfig(1.0))],
)
def test_values_out_of_range_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{field}.*: expected"):
        TrainConfig(**{field: value})
