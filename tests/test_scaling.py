"""The page on scaling follows from the measurements, and its formulas from the program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from experiments import pages, scaling
from experiments.benchmarks import scaling as benchmark
from sphereface_jax.training.config import TrainConfig

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
RESULTS = json.loads((pages.RESULTS / "scaling.json").read_text())


def test_the_page_is_fresh() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert page == scaling.page(RESULTS), "run `python -m experiments.scaling`"


@pytest.mark.parametrize("found", RESULTS["layouts"])
def test_the_formulas_are_what_xla_says(found: dict) -> None:
    layout = scaling.compiled_layout(found, RESULTS)
    images = found["images_a_device"] * 112 * 96 * 3
    assert layout.state_bytes() + images == pytest.approx(found["arguments"], rel=1e-3)
    sent = scaling.sent_by_program(found["collectives"])
    # The formulas leave out a row of every PReLU's slope gradient, which is summed over devices.
    assert sum(layout.sent().values()) == pytest.approx(sent, rel=3e-3)
    assert found["temporaries"] > layout.gradient_bytes()


def test_the_benchmark_s_smallest_part_prints_rates() -> None:
    flags = ["--part=rates", "--network=spherenet4", "--num-classes=256", "--class-block=64"]
    flags += ["--batch-size=2", "--head-batch-size=4", "--rounds=1"]
    printed = subprocess.run(
        [sys.executable, "-m", "experiments.benchmarks.scaling", *flags],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout
    assert all(seconds > 0 for seconds in json.loads(printed.splitlines()[-1]).values())


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", 4),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}", 8),
        ("[4,2]", 2),
        ("{{0,2,4,6}", 4),
    ],
)
def test_a_program_s_bytes_are_counted(groups: str, size: int) -> None:
    closing = ",{1,3,5,7}}" if groups.startswith("{") else "<=[8]" if groups[0] == "[" else ""
    line = f"%a = (f32[3,5]{{1,0}}, s8[]) all-reduce(%b), replica_groups={groups}{closing}, x={{0}}"
    assert benchmark.collectives(line) == {f"all-reduce of {size}": {"count": 1, "bytes": 61}}


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
