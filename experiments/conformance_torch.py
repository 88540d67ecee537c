"""Holds a PyTorch loss to the conformance vectors.

    from experiments.conformance_torch import check
    check("arcface", lambda x, w, labels: my_arcface(x, w, labels))

The callable takes float64 tensors x [B, D], w [C, D] and labels [B] and returns losses [B], or
their sum. `check` prints, for ordinary points and edges, how far the value and both gradients are
from those of the file, relative to their largest entry; NaN is said as such.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.pages import RESULTS


def check(name: str, loss: Callable[..., Any]) -> dict[str, dict[str, float]]:
    """Prints and returns the relative differences of a loss, by points and by what differs."""
    import torch

    found: dict[str, dict[str, float]] = {}
    with np.load(RESULTS / "conformance.npz") as file:
        labels = torch.as_tensor(file["labels"])
        for kind in ("ordinary", "edges"):
            expected = {key: file[f"{name}-{kind}/{key}"] for key in ("loss", "by_x", "by_w")}
            x, w = (
                torch.tensor(file[f"{name}-{kind}/{key}"], requires_grad=True) for key in ("x", "w")
            )
            losses = loss(x, w, labels)
            losses.sum().backward()
            values = {"by_x": x.grad.numpy(), "by_w": w.grad.numpy()}
            total = float(losses.detach().sum())
            found[kind] = {"loss": abs(total / expected["loss"].sum() - 1)} | {
                key: float(np.abs(value - expected[key]).max() / np.abs(expected[key]).max())
                for key, value in values.items()
            }
            print(name, kind, {key: f"{value:.1e}" for key, value in found[kind].items()})
    return found
