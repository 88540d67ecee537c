"""What `experiments.record_runs` keeps of runs."""

import json
from pathlib import Path

import pytest

from experiments.record_runs import main
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
