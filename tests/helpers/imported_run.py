"""A run imported from random weights: any network, a few channels wide."""

from pathlib import Path

import numpy as np
from command import call
from flax import nnx

from sphereface_jax.interop.safetensors_file import safetensors_bytes
from sphereface_jax.interop.weights import state_dict
from sphereface_jax.models import MODELS

CHANNELS, DIM = (4, 8, 8, 16), 6


def random_weights(arch: str, size: tuple[int, int], **sizes) -> dict[str, np.ndarray]:
    """A network's state dict whose every tensor is drawn, and whose signal keeps its size."""
    model = MODELS[arch](**sizes, image_size=size, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    weights = {}
    for name, tensor in state_dict(model).items():
        low, high = (0.5, 1.5) if "running_var" in name or tensor.ndim == 1 else (-1.0, 1.0)
        if name.endswith(("bias", "mean")):
            low, high = -0.3, 0.3
        elif tensor.ndim > 1:
            high = np.sqrt(3 / tensor[0].size)
            low = -high
        weights[name] = rng.uniform(low, high, tensor.shape).astype(tensor.dtype)
    return weights


def make_run(folder: Path, arch: str, size: tuple[int, int], *options: object) -> Path:
    weights, run = folder / "weights.safetensors", folder / "run"
    sizes = {"channels": CHANNELS, "embedding_dim": DIM}
    weights.write_bytes(safetensors_bytes(random_weights(arch, size, **sizes)))
    flags = ["--channels", *CHANNELS, "--embedding-dim", DIM, "--image-size", *size, *options]
    assert call("import", weights, "--arch", arch, "--out", run, *flags) == 0
    return run
