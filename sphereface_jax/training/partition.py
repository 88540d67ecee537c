"""The mesh of devices, and where each part of the training state lives on it.

Two axes, "data" and "model". The images are cut along both, so that every device embeds its share
of the batch. The prototypes and their optimiser state are cut along "model": the embeddings of the
devices that share them are gathered for the head. Everything else is replicated, or the optimiser's
part of it is cut along "data" (ZeRO-1: Rajbhandari et al., SC 2020, https://arxiv.org/abs/1910.02054).
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sphereface_jax.training.config import MeshConfig
from sphereface_jax.training.state import PROTOTYPE_MULTIPLE, TrainState


def make_mesh(config: MeshConfig, *, batch_size: int, accumulate: int = 1) -> Mesh:
    """Lays the devices of all processes out as data × model.

    Raises:
      ValueError: the devices cannot be laid out so, or the batch cannot be cut evenly.
    """
    devices = jax.device_count()
    data = devices // config.model if config.data == -1 else config.data
    if data * config.model != devices or data < 1:
        raise ValueError(
            f"mesh: expected data × model to be the number of devices, {devices}, "
            f"got {config.data} × {config.model}; without --mesh.* all share the batch"
        )
    if PROTOTYPE_MULTIPLE % config.model:
        raise ValueError(
            f"mesh.model: expected a divisor of {PROTOTYPE_MULTIPLE}, got {config.model}"
        )
    if jax.local_device_count() * jax.process_count() != devices:
        raise ValueError(
            f"mesh: expected as many devices in each of the {jax.process_count()} processes, "
            f"got {jax.local_device_count()} of {devices} here"
        )
    shares = devices * accumulate
    if batch_size % shares:
        parts = f" × {accumulate} parts of --accumulate" if accumulate > 1 else ""
        raise ValueError(
            f"batch_size: expected a multiple of the {devices} devices{parts}, "
            f"got {batch_size}; the nearest is {max(shares, batch_size // shares * shares)}"
        )
    return jax.make_mesh((data, config.model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension is cut over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "model")))


def state_sharding(state: TrainState, mesh: Mesh, *, shard_optimizer: bool = False) -> TrainState:
    """Returns the sharding of each leaf of a (possibly abstract) training state.

    Args:
      state: the state. Its prototypes, and what the optimiser keeps for each of their rows, are cut
        along "model".
      mesh: of `make_mesh`.
      shard_optimizer: whether to cut what else the optimiser keeps, and the moving average of the
        weights, along "data": each leaf in its longest dimension that can be cut evenly.
    """
    rows = state.prototypes.shape[0]

    def place(path: tuple[Any, ...], leaf: jax.Array) -> NamedSharding:
        names = [getattr(key, "name", getattr(key, "key", None)) for key in path]
        if "prototypes" in names or "frozen_prototypes" in names:
            by_class = leaf.ndim > 0 and leaf.shape[0] == rows
            return NamedSharding(mesh, PartitionSpec("model") if by_class else PartitionSpec())
        if shard_optimizer and names[0] in ("opt_state", "ema_params"):
            return NamedSharding(mesh, _longest_cut(leaf.shape, mesh.shape["data"]))
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, state)


def _longest_cut(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    """Cuts the longest dimension that so many parts divide along "data"; none may be."""
    even = [axis for axis, length in enumerate(shape) if length % parts == 0]
    if not even:
        return PartitionSpec()
    longest = max(even, key=lambda axis: shape[axis])
    return PartitionSpec(*(None,) * longest, "data")


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts this process's part of the global batch onto its devices."""
    return {
        name: jax.make_array_from_process_local_data(batch_sharding(mesh), values)
        for name, values in batch.items()
    }
