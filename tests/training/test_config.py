"""A config survives its file, refuses what no run can be, and says what a resume may change."""

import dataclasses
import json
import math
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from command import refused

from sphereface_jax.training.config import (
    DataConfig,
    OptimizerConfig,
    ProcessConfig,
    Range,
    TrainConfig,
    ValConfig,
    differences,
    from_dict,
    resume_conflicts,
    settings,
    to_dict,
)

SETTINGS = settings(TrainConfig) | settings(ProcessConfig)
NUMBERS = [name for name, f in SETTINGS.items() if re.search(r"\b(int|float)\b", str(f.type))]


def with_value(name: str, value: Any) -> TrainConfig:
    """Returns the default config with one field of another value."""
    *groups, last = name.split(".")
    config = TrainConfig()
    if not groups:
        return dataclasses.replace(config, **{last: value})
    group = dataclasses.replace(getattr(config, groups[0]), **{last: value})
    return dataclasses.replace(config, **{groups[0]: group})


def value_like(name: str, number: Any) -> Any:
    """Returns a number, or as many as the field holds."""
    default = SETTINGS[name].default
    return (number,) * len(default) if isinstance(default, tuple) else number


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
    ours = TrainConfig(steps=50, data=DataConfig(shift=2))
    assert differences(ours, TrainConfig(steps=40)) == ["data.shift: 0 -> 2", "steps: 40 -> 50"]
    assert differences(ours, dataclasses.replace(ours)) == []


# Ranges


@pytest.mark.parametrize("name", SETTINGS)
def test_every_field_says_its_range_and_whether_a_resume_may_change_it(name: str) -> None:
    metadata = SETTINGS[name].metadata
    assert metadata.get("resume") in ("fixed", "free", "data")
    assert (metadata.get("within") is not None) == (name in NUMBERS)


@pytest.mark.parametrize("name", sorted(set(NUMBERS) & set(settings(TrainConfig))))
def test_every_number_is_refused_outside_its_range(name: str) -> None:
    within: Range = SETTINGS[name].metadata["within"]
    outside = [math.nan, math.inf, -math.inf, "3", True, [3], within.low - 1]
    outside += [within.low] if within.open_low else []
    outside += [within.high + 1] if math.isfinite(within.high) else []
    outside += [within.high] if within.open_high else []
    for number in outside:
        with pytest.raises(ValueError, match=rf"^{name}: expected "):
            with_value(name, value_like(name, number))


@pytest.mark.parametrize("name", settings(TrainConfig))
def test_no_field_takes_what_it_does_not_hold(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected "):
        with_value(name, object())
    if typing.get_origin(SETTINGS[name].type) is typing.Literal:
        with pytest.raises(ValueError, match=rf"^{name}: expected one of "):
            with_value(name, "no such word")


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ({"schedule": "steps"}, "optimizer.schedule: expected one of 'step', 'cosine', 'constant'"),
        ({"milestones": (0.5, 60.0)}, "milestones: expected either fractions .* got 0.5 60"),
        (
            {"milestones": (1.5,)},
            "milestones: expected either fractions .* whole steps from 1 to 99",
        ),
        ({"milestones": (50, 100)}, "milestones: expected .* whole steps from 1 to 99, got 50 100"),
        ({"warmup_steps": 101}, "warmup_steps: expected at most the 100 steps of the run, got 101"),
    ],
)
def test_a_schedule_that_does_not_fit_the_run_is_refused(
    optimizer: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        TrainConfig(steps=100, optimizer=OptimizerConfig(**optimizer))


def test_images_may_not_be_shifted_beyond_their_half() -> None:
    with pytest.raises(ValueError, match=r"data.shift: expected at most 11 pixels, for .* 32×24"):
        TrainConfig(data=DataConfig(image_size=(32, 24), shift=12))


def test_processes_are_checked_too() -> None:
    ProcessConfig("host:1234", 2, 1)
    for count, index in ((0, 0), (2, 2), (2, -1)):
        with pytest.raises(ValueError, match="expected a"):
            ProcessConfig("host:1234", count, index)


@pytest.mark.parametrize(
    "option",
    [
        "--model.embedding-dim=0",
        "--mesh.model=0",
        "--optimizer.momentum=1.5",
        "--optimizer.clip-norm=-1",
        "--loss.lambda-gamma=-1",
        "--data.pixel-divisor=inf",
    ],
)
def test_the_command_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    line = refused(capsys, "train", f"--out={tmp_path / 'run'}", option)
    assert option.partition("=")[0].strip("-").replace("-", "_") in line
    assert not (tmp_path / "run").exists()


def test_a_config_file_that_holds_nonsense_is_named(tmp_path: Path) -> None:
    values = json.loads(json.dumps(to_dict(TrainConfig())))
    for broken in (values | {"steps": "many"}, values | {"data": 3}, [1, 2]):
        with pytest.raises(ValueError, match=r"^RUN/config.json: "):
            from_dict(TrainConfig, broken, where="RUN/config.json")


# Resuming


@pytest.mark.parametrize("name", settings(TrainConfig))
def test_a_resume_may_change_what_the_field_says(name: str) -> None:
    field = settings(TrainConfig)[name]
    theirs = dataclasses.replace(TrainConfig(), steps=1000)
    changed = to_dict(theirs)
    group = changed
    *groups, last = name.split(".")
    for part in groups:
        group = group[part]
    group[last] = other_value(name, group[last])
    ours = from_dict(TrainConfig, changed)
    expected = 0 if field.metadata["resume"] in ("free", "data") else 1
    assert ours != theirs
    assert len(resume_conflicts(ours, theirs)) == expected


def other_value(name: str, value: Any) -> Any:
    """Returns another value of a field in config.json that it may hold."""
    special: dict[str, Any] = {
        "data.color_order": "rgb",
        "data.on_error": "skip",
        "loss.sampling": "partial_fc_v2",
        "data.exclude": ["ann"],
        "freeze": ["stages.0.*"],
        "data.image_size": [96, 112],
        "model.dtype": "bfloat16",
        "model.channels": [8, 8, 8, 8],
        "loss.gradient": "caffe",
        "loss.options": {"variant": "A"},
        "optimizer.schedule": "cosine",
        "optimizer.milestones": [0.5],
        "mesh.data": 2,
        "init_from": "runs/other",
    }
    if name in special:
        return special[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if value is None and name in NUMBERS:
        return 1
    return "other"


def test_the_data_may_lie_elsewhere_and_what_is_learnt_may_not_change() -> None:
    theirs = TrainConfig(val=ValConfig(fraction=0.1))
    ours = dataclasses.replace(
        theirs, log_every=5, data=dataclasses.replace(theirs.data, train="/elsewhere", shift=3)
    )
    assert resume_conflicts(ours, theirs) == ["data.shift: 0 -> 3"]
