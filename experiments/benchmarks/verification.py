"""The four LFW protocols from stored vectors, in one second.

    python -m experiments.benchmarks.verification --preset full

6,000 pairs of 7,701 images, 512 numbers an embedding, with mirror images.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.benchmarks.measure import seconds
from experiments.pages import RESULTS
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.verification import PROTOCOLS


@dataclasses.dataclass(frozen=True)
class Size:
    """How many there are of what."""

    num_pairs: int
    num_images: int
    embedding_dim: int
    rounds: int


PRESETS = {"full": Size(6000, 7701, 512, rounds=5), "smoke": Size(200, 50, 8, rounds=1)}


def main(preset: Literal["full", "smoke"] = "full", out: Path | None = None) -> None:
    """Times each protocol and writes the best of some rounds.

    Args:
      preset: the size: full is LFW's.
      out: results file, experiments/results/verification_PRESET.json by default.
    """
    size = PRESETS[preset]
    machine = describe_machine()
    rng = np.random.default_rng(0)
    embeddings, mirrored = rng.standard_normal((2, size.num_images, size.embedding_dim), np.float32)
    left = rng.integers(0, size.num_images, size.num_pairs)
    right = (left + rng.integers(1, size.num_images, size.num_pairs)) % size.num_images
    rows = np.arange(size.num_pairs)
    pairs = Pairs(left, right, is_same=rows % 2 == 0, folds=rows * 10 // size.num_pairs)
    best = dict.fromkeys(PROTOCOLS, np.inf)
    for _ in range(size.rounds):
        for name, protocol in PROTOCOLS.items():
            took = seconds(partial(protocol, embeddings, pairs, mirrored=mirrored))[1]
            best[name] = min(best[name], took)
    write_results(
        out or RESULTS / f"verification_{preset}.json",
        {
            "benchmark": "verification",
            "preset": preset,
            **dataclasses.asdict(size),
            "seconds": {name: round(value, 4) for name, value in best.items()},
            "seconds_together": round(sum(best.values()), 4),
            "machine": machine,
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
