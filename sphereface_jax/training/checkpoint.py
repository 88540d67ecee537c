"""Checkpoints: everything a run needs to go on as if it had never stopped, through Orbax.

One checkpoint holds the training state and, as JSON, the number of examples consumed (the whole
state of the input) and the config. Saving is asynchronous and atomic: Orbax writes into a
temporary folder and renames it. Orbax is imported here and nowhere else.
"""

import dataclasses
import logging
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from sphereface_jax.training.state import TrainState

# Orbax reports every file it touches; a user reads the run's own lines.
logging.getLogger("absl").setLevel(logging.ERROR)


WEIGHTS = ("params", "model_state", "prototypes", "ema_params")
"""The fields of the state that a trained network is made of; the others go on with the training."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: where they are.
      keep: how many of the newest stay; None for reading only.
    """

    def __init__(self, folder: Path, *, keep: int | None = None):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=keep is not None, read_only=keep is None
        )
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._manager.close()

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, progress: dict[str, Any]) -> None:
        """Starts saving; the state may be donated as soon as this returns."""
        if step in self._manager.all_steps():
            return
        weights, training = _split(state)
        items = ocp.args.Composite(
            weights=ocp.args.StandardSave(weights),
            training=ocp.args.StandardSave(training),
            progress=ocp.args.JsonSave(progress),
        )
        self._manager.save(step, args=items, force=True)

    def wait(self) -> None:
        """Returns when all that was saved is on disk."""
        self._manager.wait_until_finished()

    def restore(self, like: TrainState) -> TrainState:
        """Restores the newest state.

        Args:
          like: a state of jax.ShapeDtypeStruct, whose shardings say where each leaf goes.

        Raises:
          FileNotFoundError: there is none.
        """
        weights, training = _split(like)
        items = ocp.args.Composite(
            weights=ocp.args.StandardRestore(weights), training=ocp.args.StandardRestore(training)
        )
        restored = self._manager.restore(self._newest(), args=items)
        return TrainState(**restored.weights, **restored.training)

    def restore_weights(self, like: TrainState) -> dict[str, Any]:
        """Restores the fields of `WEIGHTS` alone, of the newest state."""
        weights, _ = _split(like)
        items = ocp.args.Composite(weights=ocp.args.StandardRestore(weights))
        return self._manager.restore(self._newest(), args=items).weights

    def progress(self) -> dict[str, Any]:
        """Returns what was saved beside the newest state."""
        items = ocp.args.Composite(progress=ocp.args.JsonRestore())
        return self._manager.restore(self._newest(), args=items).progress

    def _newest(self) -> int:
        step = self.latest_step()
        if step is None:
            raise FileNotFoundError(
                f"{self.folder}: expected a checkpoint, found none; let the run reach its first "
                "--checkpoint-every"
            )
        return step


def _split(state: TrainState) -> tuple[dict[str, Any], dict[str, Any]]:
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    weights = {name: fields.pop(name) for name in WEIGHTS}
    return weights, fields


def abstract(state: TrainState, sharding: TrainState) -> TrainState:
    """Returns the shapes, types and shardings of a state, as `Checkpoints.restore` wants them."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        state,
        sharding,
    )
