"""What compilers of GPUs and TPUs make of losses and steps, without a GPU or a TPU.

By default a dozen heads for H100; `pytest -m compilers` takes every loss in every way and two whole
steps, `pytest -m tpu` the same for TPU v5e. The wheels of the extra `plan` bring the compilers;
another jax than the one that these numbers were read with makes other programs.
"""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import pytest
from compiled_heads import (
    BATCH,
    BLOCK,
    CLASSES,
    DIM,
    WAYS,
    Head,
    compile_head,
    moved_whole,
    unexpected,
)

from experiments import kernels
from sphereface_jax import LOSSES
from sphereface_jax.plan.compiled import (
    around_the_head,
    compile_step,
    memory_by_kind,
    planned_trainer,
)
from sphereface_jax.plan.program import find_collectives, instructions
from sphereface_jax.plan.targets import (
    ENVIRONMENT,
    compiler_versions,
    describe_devices,
    find_target,
)
from sphereface_jax.training.config import (
    DataConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    TrainConfig,
)

WRITTEN_FOR = "0.10.2"
DOZEN = [
    *(("dense", name) for name in ("sphereface", "arcface", "adaface", "magface")),
    *(("blocks", name) for name in ("sphereface", "cosface", "sphereface2")),
    *(("class-parallel", name) for name in ("sphereface", "arcface", "subcenter_arcface")),
    *(("sampled", name) for name in ("sphereface", "curricularface")),
]
ALL = [(way, name) for way in WAYS for name in LOSSES if (way, name) not in DOZEN]


def devices_of(target: str) -> Sequence[jax.Device]:
    """A target's devices; the test skips where its compiler is not here or is another one."""
    if jax.__version__ != WRITTEN_FOR:
        pytest.skip(f"written for the programs of jax {WRITTEN_FOR}, this is {jax.__version__}")
    described = find_target(target)
    try:
        compiler_versions(described.chip.platform)
    except ValueError as error:
        pytest.skip(str(error))
    return describe_devices(described)


@pytest.fixture(scope="module", autouse=True)
def _compilers() -> Any:
    """The compilers' environment; no program of theirs can be taken from JAX's cache."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", cached)
    os.environ.clear()
    os.environ.update(before)


def check_head(target: str, way: str, name: str) -> None:
    head = compile_head(name, way, devices_of(target))
    model, block, rate = WAYS[way]
    examples = BATCH // (8 // model)
    # A few arrays of logits, and rows of prototypes where a sample of them is taken.
    centers = head.shard * model // (CLASSES * DIM * 4)
    logits = 4 * examples * (block or CLASSES) * centers
    activations = 5 * logits + 4 * BATCH * DIM * 4 + (3 * rate * head.shard if rate < 1 else 0)
    # On a TPU the target rows' gradient of sub-centres is a copy of its own.
    copies = 1.3 if centers > 1 and target.startswith("v") else 0.3
    assert head.temporaries < copies * head.shard + activations
    assert moved_whole(head.text, head.shard) == []
    assert unexpected(head, drawn=rate) == []


@pytest.mark.parametrize(("way", "name"), DOZEN)
def test_a_head_on_h100_holds_and_sends_what_it_must(way: str, name: str) -> None:
    check_head("h100x8", way, name)


@pytest.mark.compilers
@pytest.mark.parametrize(("way", "name"), ALL)
def test_every_head_on_h100_holds_and_sends_what_it_must(way: str, name: str) -> None:
    check_head("h100x8", way, name)


@pytest.mark.tpu
@pytest.mark.parametrize(("way", "name"), [*DOZEN, *ALL])
def test_every_head_on_v5e_holds_and_sends_what_it_must(way: str, name: str) -> None:
    check_head("v5e-8", way, name)


PROGRAM = """
%fused_computation (p: f32[64,512]) -> f32[512,64] {
  ROOT %t = f32[512,64]{1,0} transpose(%p), dimensions={1,0}
}

ENTRY %main (p: f32[64,512]) -> f32[64,512] {
  %f = f32[512,64]{1,0} fusion(%p), kind=kInput, calls=%fused_computation
  %g = (f32[32,512]{1,0}, f32[64,512]{1,0}) all-gather-start(%q), replica_groups={{0,1}}
  %h = f32[64,512]{1,0} all-reduce(%q), replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %c = f32[63,512]{1,0} copy(%p)
}
"""


def test_what_moves_prototypes_is_found() -> None:
    assert moved_whole(PROGRAM, 64 * 512 * 4) == [
        "transpose f32[512,64]{1,0}",
        "all-gather-start (f32[32,512]{1,0}, f32[64,512]{1,0})",
    ]
    head = Head(PROGRAM, 0, 64 * 512 * 4, {"data": 2, "model": 2})
    assert unexpected(head) == []
    small = Head(PROGRAM.replace("64", "4096"), 0, 64 * 512 * 4, head.mesh)
    assert [c.kind for c in unexpected(small)] == ["all-reduce", "all-gather"]


@dataclasses.dataclass(frozen=True)
class Step:
    """A whole step in bfloat16, and the bytes that an image's activations take."""

    target: str
    network: str
    num_classes: int
    model: int
    block: int | None
    batch: int
    an_image: int

    def config(self) -> TrainConfig:
        return TrainConfig(
            model=ModelConfig(name=self.network, dtype="bfloat16"),
            loss=LossConfig(class_block=self.block),
            mesh=MeshConfig(model=self.model),
            batch_size=self.batch,
        )


# bfloat16 activations of 112×96 images, forward and backward: 4.5 MB of SphereNet-4's, 13 of -20's.
MILLION = Step("h100x8", "spherenet4", 10**6, 2, BLOCK, 512, 4_500_000)
CASIA = Step("h100x8", "spherenet20", 10_572, 1, None, 512, 13_000_000)
ON_TPU = Step("v5e-16", "spherenet4", 10**6, 4, BLOCK, 1024, 4_500_000)


def check_step(step: Step) -> tuple[str, dict[str, int]]:
    devices_of(step.target)
    trainer = planned_trainer(step.config(), step.num_classes, find_target(step.target))
    _, compiled = compile_step(trainer)
    memory, text = memory_by_kind(trainer, compiled.memory_analysis()), compiled.as_text()
    network = sum(leaf.size for leaf in jax.tree.leaves(trainer.like.params)) * 4
    images = step.batch // trainer.mesh.size * step.an_image
    assert memory["temporaries"] < 1.3 * memory["prototypes"] + 1.3 * network + images
    # Neither the prototypes nor their gradient are sent in one piece.
    assert [
        c
        for c in find_collectives(text)
        if c.bytes > 0.9 * memory["prototypes"] and c.bytes > 1.1 * network
    ] == []
    return text, memory


def check_update(target: str) -> None:
    """The step around a head of a million identities holds their gradient, and no copy.

    Four devices share them, and two along data or more hold the same ones.
    """
    devices = len(devices_of(target))
    step = Step(target, "spherenet4", 10**6, 4, BLOCK, 64 * devices, 0)
    trainer = planned_trainer(around_the_head(step.config()), step.num_classes, find_target(target))
    _, compiled = compile_step(trainer)
    memory, text = memory_by_kind(trainer, compiled.memory_analysis()), compiled.as_text()
    assert memory["temporaries"] < 1.15 * memory["prototypes"]
    assert moved_whole(text, memory["prototypes"]) == []
    sent = Counter[str]()
    for c in find_collectives(text):
        sent[c.kind] += c.sent if c.devices == devices // 4 else 0
    half_of_a_sum = memory["prototypes"] * (1 - 4 / devices)
    for kind in ("reduce-scatter", "all-gather"):
        assert 0.99 * half_of_a_sum < sent[kind] < 1.05 * half_of_a_sum


@pytest.mark.compilers
def test_prototypes_are_updated_in_place_on_h100() -> None:
    check_update("h100x8")


@pytest.mark.tpu
def test_prototypes_are_updated_in_place_on_v5e() -> None:
    check_update("v5e-16")


def check_network(text: str, images: int) -> None:
    """Every convolution takes bfloat16, channels last; between layers nothing is float32."""
    entry = text[text.index("\nENTRY") :].splitlines()
    activation = re.compile(rf" = [^=]*f32\[{images},\d+,\d+,\d+\]\S* (fusion|custom-call)\(")
    assert [line[:200] for line in entry if activation.search(line)] == []
    calls = [
        line
        for line in text.splitlines()
        if re.search(r"custom_call_target=\"__cudnn\$conv", line) and "custom-call(" in line
    ]
    assert calls
    for call in calls:
        assert "bf16[" in call.split("custom-call(")[0], call[:200]
        assert "dim_labels=b01f_o01i" in call or "dim_labels=" not in call, call[:300]


@pytest.mark.compilers
@pytest.mark.parametrize("step", [MILLION, CASIA], ids=lambda step: step.network)
def test_a_step_on_h100(step: Step) -> None:
    text, _ = check_step(step)
    check_network(text, step.batch // 8)
    if step is CASIA:
        found = kernels.moved(text)
        for kind, bound in kernels.least(0, 0).items():
            if kind.startswith("activations"):
                assert found[kind]["bytes"] < 1.25 * bound, (kind, found[kind])


@pytest.mark.tpu
def test_a_step_on_v5e() -> None:
    text, memory = check_step(ON_TPU)
    assert moved_whole(text, memory["prototypes"]) == []
    floats = [
        shape
        for _, _, shape, operation, _ in instructions(text)
        if operation == "convolution" and not shape.startswith("bf16")
    ]
    assert all("f32" in shape for shape in floats)


# Thinner than the real ones, but for the transformer: the compiler wants products of whole tiles.
THIN = {"channels": (8, 8, 16, 16), "embedding_dim": 16}
WHOLE = {"dtype": "bfloat16"}


@pytest.mark.compilers
@pytest.mark.parametrize(
    ("network", "most"),
    [
        ("spherenet10", 0.9),
        ("sfnet10_bn", 0.9),
        ("iresnet18", 0.95),
        ("mobilefacenet", 0.6),
        ("vit_t", 0.3),
    ],
)
def test_remat_holds_less(network: str, most: float) -> None:
    devices_of("h100x1")
    temporaries = []
    for remat in (False, True):
        is_whole = network.startswith("vit")
        model = ModelConfig(network, remat=remat, **(WHOLE if is_whole else THIN))
        data = DataConfig(image_size=(112, 112) if is_whole else (64, 64))
        config = TrainConfig(data=data, model=model, batch_size=64)
        trainer = planned_trainer(config, 64, find_target("h100x1"))
        _, compiled = compile_step(trainer)
        held = memory_by_kind(trainer, compiled.memory_analysis())
        temporaries.append(held["temporaries"])
    kept, anew = temporaries
    assert anew < most * kept
