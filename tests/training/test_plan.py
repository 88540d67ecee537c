"""`sphereface plan`: targets, counted operations, collectives read from programs, the command.

Nothing is compiled for a target here; test_compiled_programs.py does that.
"""

import dataclasses
import io
import json
import math
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from command import refused
from jax.sharding import AxisType, PartitionSpec
from tiny_run import tiny_config

from sphereface_jax.commands.plan import plan
from sphereface_jax.commands.plan_options import PlanOptions
from sphereface_jax.plan import search, targets
from sphereface_jax.plan.compiled import abstract_batch, memory_by_kind
from sphereface_jax.plan.program import count_flops, find_collectives
from sphereface_jax.training.config import LossConfig, TrainConfig
from sphereface_jax.training.trainer import make_trainer


def test_an_unknown_target_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "plan", "--target=b200x8")
    assert "target: expected one of h100x1" in said
    assert "v6e-256, got 'b200x8'" in said


def test_every_target_has_a_public_source_and_all_its_chips() -> None:
    for name, target in targets.TARGETS.items():
        assert all(source.startswith("https://") for source in target.chip.sources), name
        sides = map(int, target.topology.rpartition(":")[2].split("x"))
        assert math.prod(sides) == target.devices, name


def test_a_compiler_of_another_jax_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"jax": "0.10.2", "jax-cuda13-plugin": "0.10.1"}
    monkeypatch.setattr(targets.importlib.metadata, "version", installed.__getitem__)
    with pytest.raises(ValueError, match=r"jax-cuda13-plugin 0\.10\.2 beside jax 0\.10\.2, got"):
        targets.compiler_versions("cuda")


def test_an_absent_compiler_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "jax":
            raise targets.importlib.metadata.PackageNotFoundError(name)
        return "0.10.2"

    monkeypatch.setattr(targets.importlib.metadata, "version", version)
    with pytest.raises(ValueError, match=r"expected the package libtpu.*pip install '\.\[plan\]'"):
        targets.compiler_versions("tpu")


def flops_of(function: Any, *shapes: tuple[int, ...]) -> dict[str, int]:
    return count_flops(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)))


def convolve(stride: int) -> Any:
    def function(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return function


# Of 4 positions with a kernel of 3 and a margin of 1, the outer ones see 2 pixels: 2 + 3 + 3 + 2.
@pytest.mark.parametrize(("stride", "seen"), [(1, 10), (2, 5)])
def test_a_convolution_counts_what_lies_on_the_image(stride: int, seen: int) -> None:
    shapes = (2, 4, 4, 5), (3, 3, 5, 7)
    forward = 2 * 2 * 5 * 7 * seen**2
    assert flops_of(convolve(stride), *shapes) == {"dot": 0, "convolution": forward}

    def total(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(convolve(stride)(x, kernel) ** 2)

    assert flops_of(jax.grad(total, (0, 1)), *shapes)["convolution"] == 3 * forward


def test_grouped_convolutions_count_their_own_channels() -> None:
    def depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=numbers, feature_group_count=6
        )

    shapes = (2, 3, 3, 6), (3, 3, 1, 6)
    assert flops_of(depthwise, *shapes)["convolution"] == 2 * 2 * 6 * 9
    gradients = jax.grad(lambda x, kernel: depthwise(x, kernel).sum(), (0, 1))
    assert flops_of(gradients, *shapes)["convolution"] == 3 * 2 * 2 * 6 * 9


def test_loops_branches_and_devices_are_counted_as_often_as_they_run() -> None:
    def scanned(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda y, _: (y @ w, None), x, length=7)[0]

    def branched(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)

    assert flops_of(scanned, (2, 3), (3, 3))["dot"] == 7 * 36
    assert flops_of(jax.checkpoint(scanned), (2, 3), (3, 3))["dot"] == 7 * 36
    assert flops_of(branched, (2, 3), (3, 3))["dot"] == 2 * 36
    mesh = jax.sharding.AbstractMesh((4,), ("data",), axis_types=(AxisType.Auto,))
    specs = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(jnp.dot, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("data"))
    assert flops_of(sharded, (8, 3), (3, 3))["dot"] == 8 * 18


def test_a_step_s_operations_are_those_of_its_network_and_head(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config(tmp_path), loss=LossConfig("arcface", class_block=64))
    trainer = make_trainer(config, 256)
    jaxpr = trainer.step.trace(trainer.like, abstract_batch(trainer)).jaxpr
    batch, dim = config.batch_size, config.model.embedding_dim
    # Forward, once more in the backward walk, two gradients; the accuracy looks at all classes too.
    head = 5 * 2 * batch * 256 * dim
    flat = trainer.like.params["embedding"]["kernel"].shape[0]
    own, rest = divmod(
        count_flops(jaxpr)["dot"] - head - 3 * 2 * batch * flat * dim, 2 * batch * dim
    )
    assert (own, rest) == (12, 0)  # products of each embedding with its own prototype
    sizes = ("argument", "output", "alias", "temp", "generated_code")
    memory = types.SimpleNamespace(**{f"{size}_size_in_bytes": 0 for size in sizes})
    held = memory_by_kind(trainer, memory)
    assert held["prototypes"] == 256 * dim * 4
    assert held["batch"] == batch * (math.prod(config.data.image_size) * 3 + 4)


PROGRAM = """HloModule jit_step, entry_computation_layout={()->f32[]}

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%all-reduce-scatter (p: f32[8,4]) -> f32[4,4] {
  %r = f32[8,4]{1,0} all-reduce(%p), replica_groups={{0,1},{2,3}}, to_apply=%add
}

%fused_computation.1 (p: f32[2,4]) -> f32[8,4] {
  %g = f32[8,4]{1,0} all-gather(%p), channel_id=3, replica_groups=[1,4]<=[4], dimensions={0}
}

%async_collective_fusion.2 (p: f32[2,4]) -> f32[8,4] {
  %g = f32[8,4]{1,0} all-gather(%p), channel_id=3, replica_groups=[1,4]<=[4], dimensions={0}
}

%body (p: (s32[], f32[3,5])) -> (s32[], f32[3,5]) {
  %a = (f32[3,5]{1,0}, s8[]) all-reduce(%b), replica_groups=mesh['a'=4,'b'=2] {'a'}, x={0}
}

%tpu_condition (p: (s32[], f32[4])) -> pred[] {
  %n.1 = s32[]{:T(128)} constant(5), metadata={}
  ROOT %lt.1 = pred[]{:T(512)} compare(%i, %n.1), direction=LT, metadata={}
}

%tpu_body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %h = f32[4]{0:T(128)} all-gather(%b), replica_groups={{0,1},{2,3}}, dimensions={0}
}

ENTRY %main (p: f32[8,4]) -> f32[] {
  %s = f32[4,4]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter
  %t = f32[8,4]{1,0} fusion(%p), kind=kLoop, calls=%fused_computation.1
  %u = f32[8,4]{1,0} fusion(%p), kind=kLoop, calls=%async_collective_fusion.2
  %w = (s32[]) while(%t), body=%body, backend_config={"known_trip_count":{"n":"6"}}
  %x = (s32[]) while(%t), condition=%tpu_condition, body=%tpu_body
  %c = (bf16[2]{0}, bf16[8]{0}) all-gather-start(%q), replica_groups={{0,1,2,3}}, dimensions={0}
  %d = (f32[8]{0}, f32[2]{0}) reduce-scatter-start(%q), replica_groups={{0,1,2,3}}
  %e = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%q), source_target_pairs={}
}
"""


def test_collectives_are_read_from_a_program() -> None:
    found = {(c.kind, c.devices, c.count, c.bytes, c.sent) for c in find_collectives(PROGRAM)}
    assert found == {
        ("reduce-scatter", 2, 1, 128, 64),
        ("all-gather", 4, 1, 128, 96),
        ("all-reduce", 4, 6, 61, 6 * 91),
        ("all-gather", 2, 5, 16, 40),
        ("all-gather", 4, 1, 16, 12),
        ("reduce-scatter", 4, 1, 32, 24),
        ("collective-permute", 0, 1, 32, 32),
    }


def fake_compiler(fits: Any) -> Any:
    def ask(config: TrainConfig, *_: Any, head_alone: bool, **__: Any) -> dict[str, Any]:
        model, block = config.mesh.model, config.loss.class_block or 10**6
        total = block * 1000 + 10**9 // model
        return {
            "fits": fits(config, head_alone),
            "total": total,
            "seconds_at_least": {"arithmetic": 1.0, "wire": model / 10},
        }

    return ask


@pytest.fixture
def compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(search, "compiler_versions", lambda platform: {"jax": "0"})
    lines: list[str] = []

    def make(fits: Any) -> tuple[search.Compilers, list[str]]:
        monkeypatch.setattr(search, "ask_compiler", fake_compiler(fits))
        target = targets.find_target("h100x8")
        cache = tmp_path / "cache.json"
        return search.Compilers(10**6, target, seconds=600, cache=cache, report=lines.append), lines

    return make


CONFIG = TrainConfig(batch_size=512)


def test_a_search_names_the_best_that_fit(compilers: Any) -> None:
    asked, lines = compilers(lambda config, head: config.mesh.model >= 2)
    found = search.search(CONFIG, asked)
    assert [layout.mesh.model for layout, _ in found] == [2, 2, 2]
    assert found[0][0].loss.class_block == 4096  # the bounds are alike, it takes less memory
    assert all(layout.loss.sample_rate == 1 for layout, _ in found)
    assert any(line.startswith("head: --mesh.model 1: ") for line in lines)
    again, _ = compilers(lambda config, head: 1 / 0)
    assert search.search(CONFIG, again) == found  # from the cache


def test_a_search_samples_where_all_classes_do_not_fit(compilers: Any) -> None:
    asked, _ = compilers(lambda config, head: config.loss.sample_rate < 1)
    found = search.search(CONFIG, asked)
    assert {layout.loss.sample_rate for layout, _ in found} == {0.1}
    assert "--loss.sample-rate 0.1" in search.describe(found[0][0])


SAID: dict[str, Any] = {
    "target": "h100x8",
    "devices": 8,
    "mesh": {"data": 4, "model": 2},
    "num_classes": 1000,
    "batch_size": 512,
    "versions": {"jax": "0.10.2"},
    "usable": 2**36,
    "memory": {"weights": 2**30, "temporaries": 2**29},
    "total": 3 * 2**29,
    "fits": True,
    "flops": {"dot": 10**12, "convolution": 3 * 10**12},
    "images_a_second": {"30%": 1234.0},
    "seconds_at_least": {"arithmetic": 0.001, "memory": 0.002, "wire": 0.003},
    "collectives": [
        {"kind": "all-reduce", "devices": 8, "count": 1, "bytes": 10**6, "sent": 1750000}
    ],
    "sent": 1750000,
    "seconds_to_compile": 12.0,
}


def test_the_command_prints_and_writes_what_the_compiler_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from rich.console import Console

    from sphereface_jax.commands import plan as command

    monkeypatch.setattr(command, "compiler_versions", lambda platform: {})
    monkeypatch.setattr(command, "ask_compiler", lambda *_: dict(SAID))
    console = Console(record=True, width=200, file=io.StringIO())
    plan(TrainConfig(), PlanOptions(json=tmp_path / "plan.json"), console=console)
    printed = console.export_text()
    for expected in (
        "weights          1.000",
        "total            1.500 of 64.0 GiB (75% of 79.1, JAX's default): fits",
        "4 TFLOP over all devices",
        "1,234 at 30% of the published bfloat16 peak",
        "1 × all-reduce of 8: 1.0 MB",
    ):
        assert expected in printed
    assert json.loads((tmp_path / "plan.json").read_text())["memory"] == SAID["memory"]


def test_training_starts_without_the_compilers() -> None:
    """`train --help` imports neither compiler, nor the part of the package that asks them."""
    program = (
        "import sys, contextlib, io\n"
        "from sphereface_jax import cli\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    cli.main(['train', '--help'])\n"
        "names = 'libtpu', 'jax_plugins', 'jax_cuda13_plugin', 'sphereface_jax.plan.compiled'\n"
        "print([name for name in (*names, 'sphereface_jax.plan.search') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_compilers_beside_the_trainer_are_not_taken_for_devices(tmp_path: Path) -> None:
    """With a plugin that would complain of its missing device, the command is quiet."""
    folder = tmp_path / "jax_plugins" / "xla_cuda13"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "import jax\n"
        "def initialize():\n"
        "    if jax.config.jax_platforms != 'cpu':\n"
        "        raise RuntimeError('cuDNN not found.')\n"
    )
    program = (
        "import jax\n"
        "from sphereface_jax.plan import targets\n"
        "targets.glob.glob = lambda pattern: []\n"
        "targets.keep_compilers_out()\n"
        "print(jax.devices()[0].platform)"
    )
    environment = {"PATH": "/usr/bin", "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert (result.stdout, result.stderr) == ("cpu\n", "")
