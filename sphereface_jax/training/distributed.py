"""Many devices and processes as one run: the mesh, what lies where on it, how processes agree.

The mesh has two axes, "data" and "model". The images are sharded over both, so that every device
embeds its part of the batch. The prototypes are sharded over "model": the embeddings of the devices
that share them are gathered for the head. What the optimiser keeps for them is sharded over "data"
too, where no sample of them is drawn: each device updates its part of the rows. The gradient's sum
is then a reduce-scatter and the updated rows are gathered, which together send what the sum alone
would; `rows_update` does it in place. Everything else is replicated, or the optimiser's part of it
is sharded over "data" (ZeRO-1: Rajbhandari et al., SC 2020, https://arxiv.org/abs/1910.02054). The
mesh is the one place that says what a step is compiled for: the devices at hand, or those of a
topology that a compiler was told of (`jax.experimental.topologies`).

Every process runs the same program on its own devices, and jit sees the devices of all. What is
computed over the mesh (loss, gradient norm, weights) is the same everywhere, so that all decide
alike; what reaches one process alone, such as a signal, is agreed upon first. Process 0 writes the
run's files and speaks; checkpoints are written by all.
"""

import os
import signal
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sphereface_jax.training.config import MeshConfig, ProcessConfig
from sphereface_jax.training.state import PROTOTYPE_MULTIPLE, TrainState


def make_mesh(
    config: MeshConfig,
    *,
    batch_size: int,
    accumulate: int = 1,
    target: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Lays the devices of all processes out as data × model.

    Args:
      config: how.
      batch_size: images per update, over all devices.
      accumulate: parts that a batch is taken in.
      target: the devices, which need not be here; None: all that are.

    Returns:
      The mesh, with axes "data" and "model".

    Raises:
      ValueError: the devices cannot be laid out so, or the batch cannot be cut evenly.
    """
    target = jax.devices() if target is None else target
    devices = len(target)
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
    held = Counter(device.process_index for device in target)
    if len(set(held.values())) > 1:
        raise ValueError(
            f"mesh: expected as many devices in each of the {len(held)} processes, "
            f"got {min(held.values())} to {max(held.values())}"
        )
    shares = devices * accumulate
    if batch_size % shares:
        parts = f" × {accumulate} parts of --accumulate" if accumulate > 1 else ""
        raise ValueError(
            f"batch_size: expected a multiple of the {devices} devices{parts}, "
            f"got {batch_size}; the nearest is {max(shares, batch_size // shares * shares)}"
        )
    return jax.make_mesh(
        (data, config.model), ("data", "model"), axis_types=(AxisType.Auto,) * 2, devices=target
    )


def platform_of(mesh: Mesh) -> str:
    """Returns the platform of a mesh's devices, such as "cpu"."""
    return mesh.devices.flat[0].platform


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension is sharded over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "model")))


def update_sharding(mesh: Mesh, rows: int) -> NamedSharding:
    """Where the rows of all prototypes are updated: on all devices, if they can be cut evenly.

    Args:
      mesh: of `make_mesh`.
      rows: of the prototypes, padding included.

    Returns:
      Over both axes, else over "model" alone.
    """
    even = rows % mesh.size == 0
    return NamedSharding(mesh, PartitionSpec(("model", "data") if even else "model"))


def state_sharding(
    state: TrainState, mesh: Mesh, *, shard_optimizer: bool = False, sampled: bool = False
) -> TrainState:
    """The sharding of each leaf of a (possibly abstract) training state.

    Args:
      state: the state. Its prototypes are sharded over "model", and what the optimiser keeps for
        each of their rows over both axes.
      mesh: of `make_mesh`.
      shard_optimizer: whether to shard what else the optimiser keeps, and the moving average of the
        weights, along "data": each leaf in its longest dimension that can be cut evenly.
      sampled: whether a step updates a sample of the prototypes: what the optimiser keeps for them
        lies where they do then.

    Returns:
      A tree as the state, of shardings.
    """
    rows = state.prototypes.shape[0]

    def place(path: tuple[Any, ...], leaf: jax.Array) -> NamedSharding:
        names = [getattr(key, "name", getattr(key, "key", None)) for key in path]
        if "prototypes" in names or "frozen_prototypes" in names:
            if leaf.ndim == 0 or leaf.shape[0] != rows:
                return replicated(mesh)
            if names[0] == "opt_state" and not sampled:
                return update_sharding(mesh, rows)
            return NamedSharding(mesh, PartitionSpec("model"))
        if shard_optimizer and names[0] in ("opt_state", "ema_params"):
            return NamedSharding(mesh, _longest_cut(leaf.shape, mesh.shape["data"]))
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, state)


def _longest_cut(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    """Shards the longest dimension that `parts` divides over "data", if there is one."""
    even = [axis for axis, length in enumerate(shape) if length % parts == 0]
    if not even:
        return PartitionSpec()
    longest = max(even, key=lambda axis: shape[axis])
    return PartitionSpec(*(None,) * longest, "data")


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts this process's part of the global batch onto its devices.

    Args:
      batch: arrays [B / processes, ...] by name.
      mesh: of `make_mesh`.

    Returns:
      Global arrays [B, ...], sharded over all devices.
    """
    return {
        name: jax.make_array_from_process_local_data(batch_sharding(mesh), values)
        for name, values in batch.items()
    }


_SECONDS_TO_WAIT_AT_THE_END = 30


def join_processes(config: ProcessConfig) -> None:
    """Meets the run's other processes, if there are any; before anything of JAX is used.

    Raises:
      RuntimeError: they cannot be reached.
    """
    if config.coordinator is None and not launched_by_cluster():
        return
    if config.coordinator is None:
        jax.distributed.initialize(shutdown_timeout_seconds=_SECONDS_TO_WAIT_AT_THE_END)
    else:
        jax.distributed.initialize(
            config.coordinator,
            config.num_processes,
            config.process_id,
            cluster_detection_method="deactivate",
            shutdown_timeout_seconds=_SECONDS_TO_WAIT_AT_THE_END,
        )
    # JAX notes SIGTERM for itself and goes on; before the loop catches it, it is to end the run.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def launched_by_cluster() -> bool:
    """Whether the environment says that this is one of several processes; JAX finds the others."""
    environment = os.environ
    return (
        ("SLURM_STEP_NODELIST" in environment and int(environment.get("SLURM_NTASKS", 1)) > 1)
        or int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1
        or {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environment.keys()
    )


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return jax.process_index() == 0


def all_agree(answer: bool) -> bool:
    """Whether every process says yes; all must ask together, and wait for each other."""
    return bool(np.all(process_allgather(np.asarray(answer))))


class Agreement:
    """Says the largest number that any process has said, one step late: no step waits for it.

    Args:
      mesh: of the devices of all processes.
    """

    def __init__(self, mesh: Mesh):
        self._one_a_device = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._asked: jax.Array | None = None

    def __call__(self, number: int) -> int:
        """Takes this process's number, not negative; all must call it equally often."""
        if jax.process_count() == 1:
            return number
        said = np.full(jax.local_device_count(), number, np.int32)
        numbers = jax.make_array_from_process_local_data(self._one_a_device, said)
        asked, self._asked = self._asked, self._largest(numbers)
        return 0 if asked is None else int(asked)
