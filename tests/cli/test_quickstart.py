"""The quickstart's network with a newcomer's faces, and the runs of before it took them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from command import call, refused

from sphereface_jax.commands import quickstart as module
from sphereface_jax.commands.quickstart import quickstart_config
from sphereface_jax.training.config import to_dict
from sphereface_jax.training.input import face_transform


def test_faces_of_112_are_taken(tmp_path: Path) -> None:
    transform = face_transform(quickstart_config(tmp_path, seed=0).data)
    assert transform(np.zeros((112, 112, 3), np.uint8)).shape == (56, 48, 3)


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """A run that began before the quickstart scaled faces."""
    run = tmp_path / "run"
    (run / "checkpoints" / "200").mkdir(parents=True)
    config = quickstart_config(run, seed=0)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, resize=False))
    (run / "config.json").write_text(json.dumps(to_dict(config)))
    return run


def test_an_older_unfinished_run_is_refused(
    old_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "quickstart", "--out", old_run)
    assert "(data.resize: False -> True); give another --out" in said


def test_an_older_finished_run_shows_its_results(
    old_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "report", lambda runs, console: None)
    score = {"accuracy_10_fold": 0.97, "accuracy_std": 0.01}
    scores = {
        "pairs": 6000,
        "baselines": {"raw_pixels": score, "untrained": score},
        "protocols": {"lfw_authors": score},
    }
    (old_run / "evaluation.json").write_text(json.dumps(scores))
    (old_run / "result.json").write_text(json.dumps({"step": 900}))
    assert call("quickstart", "--out", old_run) == 0
    said = capsys.readouterr().out
    assert "takes faces of 56×48 only; another --out makes" in said
    assert "trained network      97.00% ± 1.00%" in said
