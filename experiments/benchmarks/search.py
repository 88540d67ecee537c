"""How long a search among a million enrolled vectors takes, beside the bare matrix product.

    chrt -f 50 python -m experiments.benchmarks.search

Times alternate between the two; the smallest of each counts. Results go to --out as JSON.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.pages import RESULTS
from sphereface_jax.evaluation.search import ReferenceIndex


@dataclass(frozen=True)
class Options:
    """What to search."""

    references: int = 1_000_000
    """Enrolled vectors."""
    probes: int = 64
    """Probes in one batch."""
    dim: int = 128
    """Width of the vectors."""
    repeats: int = 5
    """Times to measure each."""
    out: Path = RESULTS / "search.json"
    """Where to write the results."""


def main(options: Options) -> None:
    """Measures and keeps the numbers."""
    rng = np.random.default_rng(0)
    machine = describe_machine()
    references = rng.standard_normal((options.references, options.dim), dtype=np.float32)
    probes = rng.standard_normal((options.probes, options.dim), dtype=np.float32)
    index = ReferenceIndex(references)
    on_device, batch = jnp.asarray(references), jnp.asarray(probes)
    del references
    product = jax.jit(lambda p, r: p @ r.T)
    seconds: dict[str, list[float]] = {"product": [], "search": []}
    for repeat in range(options.repeats + 1):
        for name, run in (
            ("product", lambda: product(batch, on_device).block_until_ready()),
            ("search", lambda: index.search(probes, k=1)),
        ):
            start = time.perf_counter()
            run()
            if repeat:  # the first compiles
                seconds[name].append(time.perf_counter() - start)
    best = {name: min(times) for name, times in seconds.items()}
    write_results(
        options.out,
        {
            "references": options.references,
            "probes": options.probes,
            "dim": options.dim,
            "seconds": seconds,
            "ratio": best["search"] / best["product"],
            "machine": machine,
        },
    )
    print({**best, "ratio": best["search"] / best["product"]})


if __name__ == "__main__":
    main(tyro.cli(Options))
