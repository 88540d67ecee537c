"""Many processes as one run: how they find each other, which one writes, how all agree to stop.

Every process runs the same program on its own devices, and jit sees the devices of all. What is
computed over the mesh (loss, gradient norm, weights) is the same everywhere, so that all decide
alike; what reaches one process alone, such as a signal, is agreed upon first. Process 0 writes the
run's files and speaks; checkpoints are written by all.
"""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sphereface_jax.training.config import ProcessConfig

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
        self._one_a_device = NamedSharding(mesh, P(mesh.axis_names))
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))
        self._asked: jax.Array | None = None

    def __call__(self, number: int) -> int:
        """Takes this process's number, not negative; all must call it equally often."""
        if jax.process_count() == 1:
            return number
        said = np.full(jax.local_device_count(), number, np.int32)
        numbers = jax.make_array_from_process_local_data(self._one_a_device, said)
        asked, self._asked = self._asked, self._largest(numbers)
        return 0 if asked is None else int(asked)
