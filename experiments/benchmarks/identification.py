"""MegaFace's search against the bare matrix product it cannot do without.

    python -m experiments.benchmarks.identification --preset full

3,530 probes (80 people) search a million distractors at 512 numbers an embedding. The bare product
is the same blocks, of the same size and precision, computed and forgotten. Both run in turn; the
ratio is that of their best times. Beside it stands the ratio of processor time, which means
something on a CPU that others use too. Memory is the process's peak beyond what it held once the
vectors were made. About 2.1 GB of vectors.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.benchmarks.measure import held_bytes, peak_bytes, seconds
from experiments.pages import RESULTS
from sphereface_jax.evaluation.identification import megaface
from sphereface_jax.evaluation.impostors import default_block_size


@dataclasses.dataclass(frozen=True)
class Size:
    """How many there are of what."""

    num_probes: int
    num_people: int
    num_distractors: int
    embedding_dim: int
    rounds: int


PRESETS = {
    "full": Size(3530, 80, 1_000_000, 512, rounds=3),
    "tenth": Size(3530, 80, 100_000, 512, rounds=3),
    "smoke": Size(40, 8, 3000, 16, rounds=1),
}


def make_vectors(size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probes around their person's centre, who each is, and distractors around nothing."""
    rng = np.random.default_rng(0)
    shape = (size.num_distractors, size.embedding_dim)
    distractors = rng.standard_normal(shape, dtype=np.float32)
    people = np.arange(size.num_probes) % size.num_people
    centres = rng.standard_normal((size.num_people, size.embedding_dim), dtype=np.float32)
    noise = rng.standard_normal((size.num_probes, size.embedding_dim), dtype=np.float32)
    return centres[people] + 2 * noise, people, distractors


def bare_product(probes: np.ndarray, distractors: np.ndarray) -> None:
    """Every block of products, the next one on its way while one is waited for."""
    product = jax.jit(lambda a, b: jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST))
    on_device, size = jnp.asarray(probes), default_block_size(len(probes))
    before = None
    for start in range(0, len(distractors), size):
        block = product(on_device, jnp.asarray(distractors[start : start + size]))
        if before is not None:
            before.block_until_ready()
        before = block
    if before is not None:
        before.block_until_ready()


def main(preset: Literal["full", "tenth", "smoke"] = "full", out: Path | None = None) -> None:
    """Times the search and the bare product, and writes both.

    Args:
      preset: the size: full is the published protocol's, tenth a tenth of its distractors.
      out: results file, experiments/results/identification_PRESET.json by default.
    """
    size = PRESETS[preset]
    machine = describe_machine()
    probes, people, distractors = make_vectors(size)
    held = held_bytes()
    bare_product(probes, distractors[:5000])  # compiles
    megaface(probes, people, distractors[:5000])
    bare, search = [], []
    for _ in range(size.rounds):
        bare.append(seconds(lambda: bare_product(probes, distractors))[1:])
        search.append(seconds(lambda: megaface(probes, people, distractors))[1:])
        print(f"bare product {bare[-1][0]:.2f} s, search {search[-1][0]:.2f} s")
    (bare_wall, bare_cpu), (search_wall, search_cpu) = (
        zip(*runs, strict=True) for runs in (bare, search)
    )
    write_results(
        out or RESULTS / f"identification_{preset}.json",
        {
            "benchmark": "identification",
            "preset": preset,
            **dataclasses.asdict(size),
            "bare_product_seconds": [round(value, 3) for value in bare_wall],
            "search_seconds": [round(value, 3) for value in search_wall],
            "ratio": round(min(search_wall) / min(bare_wall), 3),
            "processor_time_ratio": round(min(search_cpu) / min(bare_cpu), 3),
            "peak_gib_beyond_vectors": round((peak_bytes() - held) / 2**30, 2),
            "machine": machine,
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
