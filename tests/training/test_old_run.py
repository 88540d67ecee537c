"""A run of 7b09e6a, the code before 0.2, opens: embed, evaluate and resume say what they said.

`run_7b09e6a.tar.xz` holds a run that was stopped after 4 of its 8 steps (without report.html and
events), and what that code made of it: `vectors.npz` and `evaluated.json` of the images and pairs
of `task_sets`, and `finished.json`, the result of its step 8.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from command import call, refused
from task_sets import evaluate, people_folder, people_pairs
from tiny_run import as_flags, tiny_config

from sphereface_jax.data.vectors import load_vectors


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The unpacked archive."""
    with tarfile.open(Path(__file__).with_name("run_7b09e6a.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_embed_and_evaluate_give_what_they_gave(old: Path) -> None:
    faces, pairs = people_folder(old / "faces"), people_pairs(old)
    assert call("embed", old / "run", faces, "--out", old / "now.npz") == 0
    now, then = load_vectors(old / "now.npz"), load_vectors(old / "vectors.npz")
    assert now.paths == then.paths
    np.testing.assert_allclose(now.embeddings, then.embeddings, atol=1e-6)
    np.testing.assert_allclose(now.mirrored, then.mirrored, atol=1e-6)

    before = json.loads((old / "evaluated.json").read_text())["protocols"]
    after = evaluate(old, old / "run", "--pairs", pairs, "--images", faces)
    for name, scores in before.items():
        numbers = {key: after[name][key] for key in ("accuracy_10_fold", "auc", "threshold")}
        assert numbers == pytest.approx({key: scores[key] for key in numbers}, abs=1e-5)
    assert (old / "run" / "report.html").exists()


def test_a_resume_ends_where_the_old_code_did(old: Path) -> None:
    command = ["train", *as_flags(tiny_config(old / "run", steps=8))]
    assert call(*command) == 0
    result = json.loads((old / "run" / "result.json").read_text())
    expected = json.loads((old / "finished.json").read_text())
    names = ("step", "loss", "accuracy", "target_angle", "gradient_norm", "embedding_norm")
    assert {name: result[name] for name in names} == pytest.approx(
        {name: expected[name] for name in names}, rel=1e-4
    )


def test_another_config_is_refused_in_one_line(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *as_flags(tiny_config(old / "run", steps=8, seed=1))]
    assert "seed: 0 -> 1" in refused(capsys, *command)
