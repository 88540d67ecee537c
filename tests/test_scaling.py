"""The page on scaling follows from what compilers said, and the launcher starts what it shows."""

import json
import os
import subprocess
from pathlib import Path

import tyro

from experiments import compiled_steps, scaling
from sphereface_jax.plan.targets import find_target
from sphereface_jax.training.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
RESULTS = json.loads(compiled_steps.PATH.read_text(encoding="utf-8"))


def test_the_page_is_fresh() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert page == scaling.page(RESULTS), "run `python -m experiments.scaling`"


def test_every_cell_is_a_run_on_a_target() -> None:
    for cell in (*compiled_steps.WHOLE, *compiled_steps.HEADS):
        config, target = cell.config(), find_target(cell.target)
        assert target.devices % config.mesh.model == 0
        assert config.batch_size % target.devices == 0


def test_slurm_s_script_starts_a_run_that_can_be(tmp_path: Path) -> None:
    (tmp_path / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$SEEN"\nexit 143\n')
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@"\n')
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    seen = tmp_path / "seen"
    result = subprocess.run(
        ["bash", ROOT / "experiments/launch/slurm.sh", "--data.train", "faces"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SEEN": str(seen), "SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout) == (143, "requeue 7\n")
    arguments = seen.read_text().splitlines()
    config = tyro.cli(TrainConfig, args=arguments[arguments.index("train") + 1 :])
    assert (config.data.train, config.mesh.model) == ("faces", 8)
