"""The page on scaling follows from what compilers said, and the launcher starts what it shows."""

import json
import os
import subprocess
from pathlib import Path

import tyro

from experiments import compiled_steps, kernels, scaling
from sphereface_jax.plan.targets import find_target
from sphereface_jax.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
RESULTS = json.loads(compiled_steps.PATH.read_text(encoding="utf-8"))


def test_the_page_is_fresh() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    counted = json.loads(kernels.PATH.read_text(encoding="utf-8"))
    assert page == scaling.page(RESULTS, counted), "run `python -m experiments.scaling`"


PROGRAM = """
%fused (p: bf16[64,8,8,4]) -> bf16[64,8,8,4] {
  ROOT %inside = bf16[64,8,8,4]{3,2,1,0} add(%p, %p)
}

ENTRY %main (w: f32[10]) -> f32[10] {
  %w = f32[10]{0} parameter(0)
  %x = bf16[64,8,8,4]{3,2,1,0} custom-call(%w), custom_call_target="__cudnn$convForward"
  %y = (bf16[64,8,8,4]{3,2,1,0}, f32[4]{0}) fusion(%x, %w), kind=kLoop, calls=%fused
  %g = bf16[64,8,8,4]{3,2,1,0} fusion(%x), calls=%f, metadata={op_name="jit(a)/transpose(jvp())/b"}
  %gemm_fusion.1 = f32[10]{0} fusion(%w), kind=kCustom, calls=%g
  ROOT %copy = f32[10]{0} copy(%gemm_fusion.1)
}
"""


def test_a_kernel_moves_its_operands_and_results() -> None:
    activation, small = 2 * 64 * 8 * 8 * 4, 40
    found = {kind: tuple(said.values()) for kind, said in kernels.moved(PROGRAM).items()}
    assert found == {
        "convolutions": (1, activation + small),
        "activations, forward": (1, 2 * activation + 16 + small),
        "activations, backward": (1, 2 * activation),
        "matrix products": (1, 2 * small),
        "copies of weights": (1, 2 * small),
    }


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
