"""A network's update and forward pass against PyTorch's: A-Softmax over 10,572 identities.

    python -m experiments.benchmarks.train_step --preset cpu

Here it is the update that `sphereface train` compiles: pixels, network, loss, gradients, metrics,
SGD. In PyTorch it is the same network in channels-last, the reference A-Softmax and torch.optim's
SGD, eager and through torch.compile. Every contender runs in a process of its own, one after
another, in several turns; a time is the best of all steps of all turns. Beside the times stand the
peak memory, the time to compile, and the share of the machine's peak: the rate of a product of two
matrices of 4096 rows and columns, the better of jax's and PyTorch's.

`--huge-pages` asks glibc to back large buffers with huge pages, for all contenders alike: XLA
allocates its temporaries anew at every step, and the page faults cost it up to a tenth.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.benchmarks.measure import in_own_process
from experiments.pages import RESULTS
from sphereface_jax.models.residual import UNITS

MATRIX_FLOPS = 2 * 4096**3
MOBILEFACENET_PRODUCTS = 437_520_896  # of convolutions and the linear layer, at 112×112


@dataclasses.dataclass(frozen=True)
class Preset:
    """What is measured."""

    batches: dict[str, int]
    precisions: tuple[str, ...] = ("float32",)
    rounds: int = 5
    turns: int = 2
    compiled: bool = True  # torch.compile too; it takes minutes to compile MobileFaceNet


PRESETS = {
    "cpu": Preset({"spherenet4": 64, "spherenet20": 32, "spherenet64": 16}),
    "mobile": Preset({"mobilefacenet": 32}, turns=2, compiled=False),
    "gpu": Preset(
        {"spherenet4": 256, "spherenet20": 256, "spherenet64": 256, "mobilefacenet": 256},
        precisions=("bfloat16", "float32"),
        rounds=20,
    ),
    "smoke": Preset({"spherenet4": 2}, rounds=1, turns=2),
}
CONTENDERS = {
    "train": ("jax_train", "torch_train", "torch_compile_train"),
    "forward": ("jax_forward", "torch_forward", "torch_compile_forward"),
}


def forward_flops(network: str) -> int:
    """Floating-point operations of an image's forward pass: two a multiplication, no others."""
    if network == "mobilefacenet":
        return 2 * MOBILEFACENET_PRODUCTS
    depth = int(network.removeprefix("spherenet"))
    height, width, inputs, products = 112, 96, 3, 0
    for channels, units in zip((64, 128, 256, 512), UNITS[depth], strict=True):
        height, width = height // 2, width // 2
        products += 9 * height * width * channels * (inputs + 2 * units * channels)
        inputs = channels
    return 2 * (products + 512 * height * width * inputs)


def run_contender(
    name: str, network: str, batch: int, precision: str, rounds: int, huge_pages: bool
) -> dict[str, Any]:
    """Measures a contender in a process of its own; says why where it cannot."""
    options = f"--precision={precision}", f"--rounds={rounds}"
    pages = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if huge_pages else {}
    return in_own_process("train_step_contenders", name, network, batch, *options, **pages)


def best(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The least of every number over the turns, or why there is none."""
    measured = [turn for turn in found if "seconds" in turn]
    if not measured:
        return found[-1]
    least = {key: min(turn[key] for turn in measured) for key in ("seconds", "peak_gib")}
    compile_seconds = min(turn["first_seconds"] - turn["seconds"] for turn in measured)
    return least | {
        "compile_seconds": round(max(compile_seconds, 0), 2),
        "all_seconds": [turn["all_seconds"] for turn in measured],
    }


def compare(
    names: tuple[str, ...],
    network: str,
    batch: int,
    precision: str,
    preset: Preset,
    huge_pages: bool,
) -> dict[str, dict[str, Any]]:
    """Contenders in turns."""
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(preset.turns):
        for name in names:
            found = run_contender(name, network, batch, precision, preset.rounds, huge_pages)
            print(f"{network}, B = {batch}, {precision}, {name}: {found}", flush=True)
            turns[name].append(found)
    return {name: best(found) for name, found in turns.items()}


def rows(preset: Preset, huge_pages: bool) -> list[dict[str, Any]]:
    """A row a network, precision and task, with PyTorch's time over ours."""
    found = []
    for precision in preset.precisions:
        products = compare(
            ("matrix_product", "torch_matrix_product"), "none", 0, precision, preset, huge_pages
        )
        peak = max(MATRIX_FLOPS / row["seconds"] for row in products.values() if "seconds" in row)
        for network, batch in preset.batches.items():
            for task, names in CONTENDERS.items():
                names = names if preset.compiled else names[:2]
                contenders = compare(names, network, batch, precision, preset, huge_pages)
                flops = forward_flops(network) * batch * (3 if task == "train" else 1)
                times = {n: row["seconds"] for n, row in contenders.items() if "seconds" in row}
                for name, seconds in times.items():
                    contenders[name]["share_of_peak"] = round(flops / seconds / peak, 3)
                ours = times.pop(f"jax_{task}")
                found.append(
                    {
                        "network": network,
                        "batch": batch,
                        "precision": precision,
                        "task": task,
                        "peak_gflops": round(peak / 1e9, 1),
                        "contenders": contenders,
                        "ratios": {n: round(seconds / ours, 2) for n, seconds in times.items()},
                    }
                )
    return found


def main(
    preset: Literal["cpu", "mobile", "gpu", "smoke"] = "cpu",
    huge_pages: bool = False,
    out: Path | None = None,
) -> None:
    """Measures all contenders of a preset and writes what they took.

    Args:
      preset: cpu: SphereNet in float32 at batches of 64, 32 and 16; mobile: MobileFaceNet at 32;
        gpu: bfloat16 and float32 at 256; smoke: a trial.
      huge_pages: see above.
      out: results file, experiments/results/train_step_PRESET.json by default, or
        train_step_PRESET_huge_pages.json.
    """
    machine = describe_machine()
    name = f"train_step_{preset}{'_huge_pages' if huge_pages else ''}.json"
    write_results(
        out or RESULTS / name,
        {
            "benchmark": "train_step",
            "preset": preset,
            "huge_pages": huge_pages,
            "rows": rows(PRESETS[preset], huge_pages),
            "machine": machine,
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
