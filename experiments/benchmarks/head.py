"""The heads against PyTorch's: forward and both gradients of A-Softmax with m = 4.

    python -m experiments.benchmarks.head --preset goals

Contenders, each in a fresh process, all of a size one after another, in several turns:

- bare_products: the four matrix products that a streaming head cannot do without, nothing else;
- dense and streaming: `sphereface_loss`;
- reference: A-Softmax in PyTorch as usually written, with one-hot scatter and temporaries [B, C];
- pytorch_metric_learning: its SphereFaceLoss.

A time is the best of all steps of all turns. Beside it stands processor time, which means more on
a machine that others use too. Memory is what a process's peak lies above its inputs.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.benchmarks.measure import in_own_process
from experiments.pages import RESULTS

ALL = ("bare_products", "dense", "streaming", "reference", "pytorch_metric_learning")


@dataclasses.dataclass(frozen=True)
class Size:
    """A size, and who takes part."""

    classes: int
    batch: int
    width: int = 512
    class_block: int = 4096
    contenders: tuple[str, ...] = ALL
    rounds: int = 5
    turns: int = 2


PRESETS = {
    "goals": [Size(10_572, 128), Size(100_000, 128)],
    "batch512": [Size(10_572, 512), Size(100_000, 512, rounds=3)],
    "million": [
        Size(1_000_000, 128, rounds=3, turns=1),
        Size(1_000_000, 512, rounds=2, turns=1),
    ],
    "blocks": [
        Size(100_000, 128, class_block=block, contenders=("bare_products", "streaming"))
        for block in (512, 1024, 2048, 4096, 8192, 16384)
    ],
    "smoke": [Size(50, 4, 8, class_block=20, rounds=1, turns=1)],
}


def run_contender(name: str, size: Size) -> dict[str, Any]:
    """Measures a contender in a process of its own; says why where it cannot."""
    block = [f"--class-block={size.class_block}"] if name == "streaming" else []
    numbers = size.classes, size.batch, size.width
    return in_own_process("head_contenders", name, *numbers, f"--rounds={size.rounds}", *block)


def compare(size: Size) -> dict[str, Any]:
    """All contenders at a size, and the ratios of their times."""
    best: dict[str, Any] = {}
    for _ in range(size.turns):
        for name in size.contenders:
            found = run_contender(name, size)
            print(f"C = {size.classes:,}, B = {size.batch}, {name}: {found}", flush=True)
            known = best.setdefault(name, found)
            for key in found.keys() & {"seconds", "processor_seconds"}:
                known[key] = min(known.get(key, found[key]), found[key])
    times = {name: found["seconds"] for name, found in best.items() if "seconds" in found}
    ratios = {}
    for slow, quick in [
        ("reference", "dense"),
        ("reference", "streaming"),
        ("pytorch_metric_learning", "dense"),
        ("pytorch_metric_learning", "streaming"),
        ("streaming", "bare_products"),
    ]:
        if slow in times and quick in times:
            ratios[f"{slow} / {quick}"] = round(times[slow] / times[quick], 2)
    return {**dataclasses.asdict(size), "contenders": best, "ratios": ratios}


def main(
    preset: Literal["goals", "batch512", "million", "blocks", "smoke"] = "goals",
    out: Path | None = None,
) -> None:
    """Measures all contenders of a preset and writes what they took.

    Args:
      preset: goals: 10,572 and 100,000 classes, 128 examples; batch512: the same with 512;
        million: a million classes, 128 and 512 examples; blocks: the streaming head's block sizes.
      out: results file, experiments/results/head_PRESET.json by default.
    """
    machine = describe_machine()
    results = [compare(size) for size in PRESETS[preset]]
    write_results(
        out or RESULTS / f"head_{preset}.json",
        {"benchmark": "head", "preset": preset, "sizes": results, "machine": machine},
    )


if __name__ == "__main__":
    tyro.cli(main)
