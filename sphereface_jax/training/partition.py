"""The mesh of devices, and where each part of the training state lives on it.

Two axes: the batch is cut along "data", the prototypes (and their optimiser state) along "model".
Everything else is replicated.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sphereface_jax.training.config import MeshConfig
from sphereface_jax.training.state import PROTOTYPE_MULTIPLE, TrainState


def make_mesh(config: MeshConfig, *, batch_size: int) -> Mesh:
    """Lays all devices out as data × model.

    Raises:
      ValueError: the devices cannot be laid out so, or the batch cannot be cut evenly.
    """
    devices = jax.device_count()
    data = devices // config.model if config.data == -1 else config.data
    if data * config.model != devices or data < 1:
        raise ValueError(
            f"mesh: expected data × model to be the number of devices, {devices}, "
            f"got {config.data} × {config.model}"
        )
    if PROTOTYPE_MULTIPLE % config.model:
        raise ValueError(
            f"mesh.model: expected a divisor of {PROTOTYPE_MULTIPLE}, got {config.model}"
        )
    if batch_size % data:
        raise ValueError(
            f"batch_size: expected a multiple of the {data} devices along the batch, "
            f"got {batch_size}; the nearest is {max(data, batch_size // data * data)}"
        )
    return jax.make_mesh((data, config.model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension is cut along "data"."""
    return NamedSharding(mesh, PartitionSpec("data"))


def state_sharding(state: TrainState, mesh: Mesh) -> TrainState:
    """Returns the sharding of each leaf of a (possibly abstract) training state.

    The prototypes and what the optimiser keeps for each of their rows are cut along "model".
    """
    rows = state.prototypes.shape[0]

    def place(path: tuple[Any, ...], leaf: jax.Array) -> NamedSharding:
        names = [getattr(key, "name", getattr(key, "key", None)) for key in path]
        by_class = "prototypes" in names and leaf.ndim > 0 and leaf.shape[0] == rows
        return NamedSharding(mesh, PartitionSpec("model") if by_class else PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, state)


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts this process's part of the global batch onto its devices."""
    return {
        name: jax.make_array_from_process_local_data(batch_sharding(mesh), values)
        for name, values in batch.items()
    }
