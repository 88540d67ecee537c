"""Conformance vectors: inputs, values and both gradients of every loss, for any framework.

    python -m experiments.conformance

writes experiments/results/conformance.npz and, beside it, conformance.json, in float64 by this
library; tests/losses/test_conformance.py holds them to the oracle. To read them takes NumPy alone:
arrays `CASE/x` [B, D], `CASE/w` [C, D] (or [C, K, D]), `labels` [B], `CASE/loss` [B], and
`CASE/by_x` and `CASE/by_w`, the gradients of the sum of the losses. The JSON has each case's loss,
its hyper-parameters and state, and what its points are: "ordinary", or "edges" with cosines of
exactly ±1, right angles and an embedding of length zero.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pages import RESULTS
from sphereface_jax import LOSSES, NormStatistics, testing

STATES: dict[str, Any] = {
    "sphereface2": 3.0,
    "uniface": 4.0,
    "curricularface": 0.3,
    "adaface": [15.0, 30.0],
}
LABELS = np.arange(8) % 6


def points(kind: str, subcenters: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [8, 5] and prototypes [6, 5] or [6, K, 5], in numbers that float32 holds."""
    x, w = (np.float64(values) for values in testing.random_problem()[:2])
    if kind == "edges":
        w[:2] = [[2.0, 0, 0, 0, 0], [0, 0.5, 0, 0, 0]]
        x[:4] = [[3.0, 0, 0, 0, 0], [0, -4.0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 2]]
        x[6] = [0, 0, 5.0, 0, 0]  # at a right angle to its prototype
    if subcenters:
        w = np.stack([np.roll(w, 2 * k, axis=0) for k in range(subcenters)], axis=1)
    return x, w


def given(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a loss takes besides its hyper-parameters, and how the JSON says it."""
    if name in STATES:
        state = STATES[name]
        array = (
            NormStatistics(*map(jnp.float64, state)) if name == "adaface" else jnp.float64(state)
        )
        return {"state": array}, {"state": state}
    if "class_margins" in LOSSES[name].arguments:
        margins = np.linspace(0.1, 0.6, 6)
        return {"class_margins": jnp.asarray(margins)}, {"class_margins": margins.tolist()}
    return {}, {}


def compute(name: str, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a case and its description."""
    row = LOSSES[name]
    x, w = points(kind, row.num_subcenters)
    options, described = given(name)

    def total(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        result = row.loss(x, w, LABELS, **options)
        losses = result[0] if row.start else result
        return losses.sum(), losses

    (by_x, by_w), losses = jax.grad(total, (0, 1), has_aux=True)(jnp.asarray(x), jnp.asarray(w))
    arrays = {"x": x, "w": w, "loss": losses, "by_x": by_x, "by_w": by_w}
    hyperparameters = {k: v for k, v in row.hyperparameters.items() if v is not None}
    said = {"loss": name, "points": kind, "hyperparameters": hyperparameters} | described
    return {key: np.asarray(value) for key, value in arrays.items()}, said


def conformance() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All arrays by their names, and all descriptions by their cases."""
    arrays, cases = {"labels": LABELS}, {}
    with jax.enable_x64(True):
        for name in LOSSES:
            if (
                "key" in LOSSES[name].arguments
            ):  # drawn margins: arcface and cosface with margin=[B]
                continue
            for kind in ("ordinary", "edges"):
                case = f"{name}-{kind}"
                found, cases[case] = compute(name, kind)
                arrays |= {f"{case}/{key}": value for key, value in found.items()}
    return arrays, cases


def main(directory: Path = RESULTS) -> None:
    """Writes the vectors and their description."""
    arrays, cases = conformance()
    np.savez_compressed(directory / "conformance.npz", **arrays)
    (directory / "conformance.json").write_text(json.dumps(cases, indent=1) + "\n", "utf-8")
    print(f"{directory / 'conformance.npz'}: {len(cases)} cases")


if __name__ == "__main__":
    main()
