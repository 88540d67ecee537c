"""Writes docs/scaling.md from what compilers said of training steps.

    python -m experiments.scaling

The text is experiments/scaling_page.md; the numbers are `experiments.compiled_steps`'s, in
experiments/results/compiled_steps.json.
"""

import math
from collections.abc import Iterable
from typing import Any

from experiments import compiled_steps, kernels
from experiments.compiled_steps import Cell
from experiments.pages import HERE, machine, table, write
from sphereface_jax import LOSSES
from sphereface_jax.data.files import read_json
from sphereface_jax.plan.targets import CHIPS, find_target
from sphereface_jax.training.config import LossConfig
from sphereface_jax.training.objective import Objective

GIB = 2**30
STEPS = (
    *("devices", "identities", "held", "network", "data × model", "prototypes", "other state"),
    *("temporaries", "total, GiB", "sent, MB"),
)
BOUNDS = (
    "devices",
    "identities",
    "held",
    "network",
    "TFLOP",
    "arithmetic",
    "memory",
    "wire",
    "compiled in, s",
)
KERNELS = ("", "kernels", "MB", "at least, MB")
HEAD_COLUMNS = (
    "identities",
    *(way for way in compiled_steps.WAYS if way in {c.way for c in compiled_steps.HEADS}),
)


def known(cells: Iterable[Cell], results: dict[str, Any]) -> list[tuple[Cell, dict[str, Any]]]:
    """The cells that were compiled, with what was said of them."""
    return [(c, results["cells"][c.key]) for c in cells if c.key in results["cells"]]


def power(classes: int) -> str:
    """10^6, say."""
    return f"10^{round(math.log10(classes))}"


def devices(cell: Cell) -> str:
    """8 × H100, say."""
    target = find_target(cell.target)
    name = target.chip.name
    return f"{target.devices} × {name.upper() if target.chip.platform == 'cuda' else name}"


def step_row(cell: Cell, said: dict[str, Any]) -> list[str]:
    """What a device holds and sends in a whole step."""
    held, mesh = said["memory"], said["mesh"]
    return [
        devices(cell),
        power(cell.num_classes),
        cell.way,
        str(cell.network),
        f"{mesh['data']} × {mesh['model']}",
        f"{held['prototypes'] / GIB:.2f}",
        f"{(held['weights'] + held['optimiser'] + held['batch']) / GIB:.2f}",
        f"{held['temporaries'] / GIB:.2f}",
        f"{said['total'] / GIB:.2f}",
        f"{said['sent'] / 1e6:,.1f}",
    ]


def bound_row(cell: Cell, said: dict[str, Any]) -> list[str]:
    """The least time of a whole step, in milliseconds, by each of three limits."""
    return [
        devices(cell),
        power(cell.num_classes),
        cell.way,
        str(cell.network),
        f"{sum(said['flops'].values()) / 1e12:,.3g}",
        *(
            f"{1e3 * said['seconds_at_least'][kind]:.2f}"
            for kind in ("arithmetic", "memory", "wire")
        ),
        f"{said['seconds_to_compile']:.0f}",
    ]


def head_rows(results: dict[str, Any]) -> list[list[str]]:
    """Memory of a device for heads alone, a row a number of identities and a column a way."""
    found = {(c.num_classes, c.way): said for c, said in known(compiled_steps.HEADS, results)}
    return [
        [
            power(classes),
            *(
                f"{found[classes, way]['total'] / GIB:.2f}" if (classes, way) in found else "–"
                for way in HEAD_COLUMNS[1:]
            ),
        ]
        for classes in sorted({cell.num_classes for cell in compiled_steps.HEADS})
    ]


def kernel_rows(results: dict[str, Any]) -> list[list[str]]:
    """Kernels of a step by kind, what they read and write, and the least that they must."""
    moved, least = results["moved"], results["least"]
    return [
        [
            kind,
            str(moved[kind]["kernels"]),
            f"{moved[kind]['bytes'] / 1e6:,.0f}",
            f"{least[kind] / 1e6:,.0f}" if kind in least else "–",
        ]
        for kind in sorted(moved, key=lambda kind: -moved[kind]["bytes"])
    ]


def page(results: dict[str, Any], in_kernels: dict[str, Any]) -> str:
    """The text of docs/scaling.md.

    Args:
      results: of `compiled_steps`.
      in_kernels: of `kernels`.
    """
    whole = (name for name in LOSSES if Objective(LossConfig(name), 4).row.whole_batch)
    steps = known(compiled_steps.WHOLE, results)
    sources = sorted({s for chip in CHIPS.values() for s in chip.sources})
    return (
        (HERE / "scaling_page.md")
        .read_text(encoding="utf-8")
        .format(
            whole_batch=", ".join(f"`{name}`" for name in whole),
            steps=table(STEPS, (step_row(*step) for step in steps)),
            bounds=table(BOUNDS, (bound_row(*step) for step in steps)),
            heads=table(HEAD_COLUMNS, head_rows(results)),
            kernels=table(KERNELS, kernel_rows(in_kernels)),
            machine=machine(results),
            sources="\n".join(f"- <{source}>" for source in sources),
        )
    )


def main() -> None:
    """Writes the page."""
    found = (read_json(path) for path in (compiled_steps.PATH, kernels.PATH))
    write("scaling.md", page(*found))


if __name__ == "__main__":
    main()
