"""What `experiments.record_runs` keeps of runs."""

import json
import shutil
from pathlib import Path

import pytest

from experiments.record_runs import main, run_summary
from sphereface_jax.training.config import TrainConfig


def test_a_record_holds_the_curve_and_no_folder_of_this_machine(
    undisturbed: TrainConfig, tmp_path: Path
) -> None:
    score, out = tmp_path / "score.json", tmp_path / "out.json"
    score.write_text(json.dumps({"vectors": str(undisturbed.out), "accuracy": 0.5}))
    main([undisturbed.out], out, [("lfw", score)])
    text = out.read_text()
    record = json.loads(text)
    (run,) = record["runs"].values()
    assert run["steps_made"] == undisturbed.steps
    assert run["curve"][-1].keys() >= {"step", "loss", "accuracy"}
    assert record["scores"]["lfw"] == {"vectors": undisturbed.out.name, "accuracy": 0.5}
    assert str(tmp_path) not in text
    assert str(undisturbed.out) not in text
    with pytest.raises(FileExistsError, match="name another"):
        main([undisturbed.out], out)


def test_a_run_is_read_where_it_lies_and_names_are_told_apart(
    undisturbed: TrainConfig, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(undisturbed.out, moved)
    (moved / "metrics.jsonl").write_text(
        '{"step": 1, "images_per_second": 2, "input_wait_share": 0}'
    )
    assert run_summary(moved)["steps_made"] == 1
    (moved / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match="found none; train it first"):
        run_summary(moved)
    with pytest.raises(ValueError, match="runs: expected each name once, got run, run"):
        main([tmp_path / "a" / "run", tmp_path / "b" / "run"], tmp_path / "out.json")
