"""What `test_distributed` asks of several processes; see `on_processes`."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import jax
from tiny_run import as_flags, folder_config, quiet

from sphereface_jax.cli import main
from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.training.config import MeshConfig, ProcessConfig
from sphereface_jax.training.distributed import join_processes
from sphereface_jax.training.loop import Interrupted, train
from sphereface_jax.training.metrics import Reporter


def join(coordinator: str, count: int, index: int) -> None:
    join_processes(ProcessConfig(coordinator, count, index))


def train_until_one_is_told_to_stop(faces: str, out: str, step: int) -> None:
    """SIGTERM reaches the last process alone, after a step; prints what became of each."""
    opened = set()
    read, log = ImageFolder.__getitem__, Reporter.metrics

    def noted(self, index):
        opened.add(self.describe(index))
        return read(self, index)

    def terminate(self, record):
        log(self, record)
        if record["step"] == step and jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    ImageFolder.__getitem__, Reporter.metrics = noted, terminate
    config = folder_config(Path(faces), Path(out))
    config = dataclasses.replace(
        config, mesh=MeshConfig(data=2, model=2, shard_optimizer=True), accumulate=2
    )
    code = None
    try:
        train(config, console=quiet())
    except Interrupted as stop:
        code = stop.code
    print(json.dumps({"code": code, "opened": sorted(opened)}))


def train_by_command(faces: list[str], out: str) -> None:
    """Each on its own faces, as a shell would; errors are printed beside the rest."""
    sys.stderr = sys.stdout
    config = folder_config(Path(faces[jax.process_index()]), Path(out))
    main(["train", f"--data.train={config.data.train}", *as_flags(config)])
