"""Checkpoints: everything a run needs to go on as if it had never stopped, through Orbax.

One checkpoint holds the training state and, as JSON, the number of examples consumed (the whole
state of the input), the config, and the fingerprints of all that. Saving is asynchronous and
atomic: Orbax writes into a temporary folder and renames it. A checkpoint that cannot be read, or
whose fingerprints are others, is passed over for the one before it. Orbax is imported here and
nowhere else.
"""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import jax
import orbax.checkpoint as ocp
from jax.experimental.multihost_utils import sync_global_devices

from sphereface_jax.training.distributed import all_agree, is_main
from sphereface_jax.training.fingerprint import fingerprint, is_finite
from sphereface_jax.training.state import TrainState

logger = logging.getLogger(__name__)

# Orbax reports every file it touches, and each error again from every thread that meets it; a user
# reads the run's own lines.
logging.getLogger("absl").setLevel(logging.ERROR)
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())

WEIGHTS = ("params", "model_state", "prototypes", "ema_params")
"""The fields of the state that a trained network is made of; the others go on with the training."""

# What keeps a reader from a file that may well be whole.
_NO_DAMAGE = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)

_ROOM_FOR_METADATA = 1 << 20  # bytes

Read = TypeVar("Read")


class NonFiniteStateError(RuntimeError):
    """Weights stopped being numbers."""


class DamagedCheckpointError(ValueError):
    """A checkpoint holds something else than was saved."""


class OtherStateError(ValueError):
    """A checkpoint is whole and holds other arrays than are asked for."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: where they are.
      keep: how many of the newest stay; None for reading only.
      warn: told in one line of each checkpoint that is passed over because it is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int | None = None,
        warn: Callable[[str], None] = logger.warning,
    ):
        self.folder = folder
        self._keep, self._warn = keep, warn
        self._damaged: set[int] = set()
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        writes = self._keep is not None
        if writes:
            self._remove_half_written()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep, create=writes, read_only=not writes
        )
        return ocp.CheckpointManager(self.folder.resolve(), options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as stack:
            if error is not None:  # which is the news; a save that failed beside it is not
                stack.enter_context(contextlib.suppress(Exception))
            self._manager.close()

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint that is not known to be damaged, or None."""
        return max(self._steps(), default=None)

    def save(self, step: int, state: TrainState, progress: dict[str, Any]) -> None:
        """Starts saving; the state may be donated as soon as this returns.

        Args:
          step: updates done; a step that is there already is not saved again.
          state: after them.
          progress: JSON's values to keep with it.

        Raises:
          OSError: the disk has no room, or refuses, or refused the save before.
          NonFiniteStateError: weights are infinite or not a number; nothing is saved.
        """
        if step in self._steps():
            return
        weights, training = _split(state)
        for name, values in weights.items():
            if not is_finite(values):
                raise NonFiniteStateError(f"{name} are no longer finite numbers")
        self.wait()
        self._remove_half_written()
        self._require_room(state)
        items = ocp.args.Composite(
            weights=ocp.args.StandardSave(weights),
            training=ocp.args.StandardSave(training),
            progress=ocp.args.JsonSave(
                progress | {"fingerprints": _fingerprints(weights | training, progress)}
            ),
        )
        with self._reopening_on_failure():
            self._manager.save(step, args=items, force=True)

    def is_saving(self) -> bool:
        """Returns whether a save is still on its way to the disk."""
        return self._manager.is_saving_in_progress()

    def wait(self) -> None:
        """Returns when all that was saved is on disk.

        Raises:
          OSError: the last save failed; what it left is no checkpoint.
        """
        with self._reopening_on_failure():
            self._manager.wait_until_finished()

    def restore(self, like: TrainState) -> TrainState:
        """Restores the newest state that is whole; those damaged are renamed to STEP.damaged.

        Args:
          like: a state of jax.ShapeDtypeStruct, whose shardings say where each leaf goes.

        Raises:
          FileNotFoundError: there is no checkpoint.
          ValueError: all of them are damaged, or hold another state.
          OSError: they may not be read.
        """
        weights, training = _split(like)
        args = {
            "weights": ocp.args.StandardRestore(weights),
            "training": ocp.args.StandardRestore(training),
        }
        restored = self._newest(lambda step: self._read(step, args))[1]
        self._set_damaged_aside()
        return TrainState(**restored["weights"], **restored["training"])

    def restore_weights(self, like: TrainState) -> tuple[int, dict[str, Any]]:
        """Restores the fields of `WEIGHTS` alone, of the newest state where they are whole.

        Returns:
          Its step and the fields by name.
        """
        args = {"weights": ocp.args.StandardRestore(_split(like)[0])}
        step, restored = self._newest(lambda step: self._read(step, args))
        return step, restored["weights"]

    def progress(self) -> dict[str, Any]:
        """Returns what was saved beside the newest state that has it whole."""
        return self._newest(lambda step: self._read(step, {}))[1]["progress"]

    def _read(self, step: int, args: dict[str, Any]) -> dict[str, Any]:
        """Reads some items of a checkpoint, and progress, and checks their fingerprints."""
        for item, wanted in args.items():
            _require_arrays(self.folder / str(step) / item, wanted.item)
        items = ocp.args.Composite(progress=ocp.args.JsonRestore(), **args)
        restored = dict(self._manager.restore(step, args=items).items())
        progress = dict(restored["progress"])
        # Checkpoints of versions before 0.2 have none.
        saved = progress.pop("fingerprints", {})
        fields = {name: value for item in args for name, value in restored[item].items()}
        if saved:
            for name, found in _fingerprints(fields, progress).items():
                if saved[name] != found:
                    raise DamagedCheckpointError(f"{name} has other bits than were saved")
        return restored

    def _newest(self, read: Callable[[int], Read]) -> tuple[int, Read]:
        """Returns the newest step that can be read, and what was read."""
        reasons, others = {}, set()
        for step in sorted(self._steps(), reverse=True):
            try:
                result = read(step)
            except (MemoryError, jax.errors.JaxRuntimeError):
                raise
            except Exception as error:
                refusal = _refusal_of_the_disk(error, self.folder)
                if refusal is not None and refusal.errno in _NO_DAMAGE:
                    raise refusal from error
                reasons[step] = _in_one_line(error)
                if isinstance(error, OtherStateError):
                    reasons[step] = str(error)
                    others.add(step)
            if not all_agree(step not in reasons):
                reasons.setdefault(step, "another process cannot read it")
                continue
            for damaged, reason in reasons.items():
                self._warn(
                    f"{self._name(damaged)} is damaged ({reason}); taking that of step {step}"
                )
            self._damaged |= set(reasons)
            return step, result
        if not reasons:
            raise FileNotFoundError(
                f"{self.folder}: expected a checkpoint, found none; let the run reach its first "
                "--checkpoint-every"
            )
        if others == set(reasons):
            raise ValueError(
                f"{self._name(max(reasons))}: {reasons[max(reasons)]}; it was written with other "
                "options or by another version: go on with those, or start afresh in another --out"
            )
        found = "; ".join(f"step {step}: {reason}" for step, reason in reasons.items())
        raise ValueError(
            f"{self.folder}: expected a checkpoint that can be read, got damaged ones ({found}); "
            "put a copy of one back, or move the folder away to start afresh"
        )

    def _steps(self) -> set[int]:
        return set(self._manager.all_steps()) - self._damaged

    def _name(self, step: int) -> str:
        return str(self.folder / str(step))

    def _set_damaged_aside(self) -> None:
        """So that a new checkpoint of the same step can take its place."""
        if self._keep is None or not self._damaged:
            return
        if is_main():
            for step in self._damaged:
                shutil.rmtree(f"{self._name(step)}.damaged", ignore_errors=True)
                os.rename(self._name(step), f"{self._name(step)}.damaged")
        sync_global_devices("damaged checkpoints were set aside")
        self._manager.reload()
        self._damaged.clear()

    def _remove_half_written(self) -> None:
        """Removes what a kill or a full disk left; no save may be under way.

        Orbax's own cleaning comes once, and threads of a save that failed may write on after it.
        """
        if is_main():
            for path in self.folder.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"):
                shutil.rmtree(path, ignore_errors=True)

    def _require_room(self, state: TrainState) -> None:
        """Refuses to start what cannot end: half a checkpoint would keep the disk full."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _ROOM_FOR_METADATA
        free = shutil.disk_usage(self.folder).free
        if not all_agree(free >= needed):
            raise OSError(
                errno.ENOSPC,
                f"{os.strerror(errno.ENOSPC)}: {needed / 1e6:,.1f} MB needed, "
                f"{free / 1e6:,.1f} MB free",
                str(self.folder),
            )

    @contextlib.contextmanager
    def _reopening_on_failure(self) -> Iterator[None]:
        """Raises OSError for what the disk refuses, and starts Orbax anew: it clings to errors."""
        try:
            yield
        except Exception as error:
            refusal = _refusal_of_the_disk(error, self.folder)
            if refusal is None:
                raise
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = self._open()
            raise refusal from error


def _require_arrays(item: Path, wanted: Any) -> None:
    """Checks by its metadata that an item holds the arrays that are asked for.

    Raises:
      OtherStateError: it holds others; the first is named.
    """
    metadata = ocp.StandardCheckpointHandler().metadata(item.resolve())
    saved, asked = _arrays(metadata.tree), _arrays(wanted)
    for name in sorted(saved.keys() | asked.keys()):
        expected, found = asked.get(name, "nothing"), saved.get(name, "nothing")
        if expected != found:
            raise OtherStateError(f"expected {expected} for {name}, found {found}")


def _arrays(tree: Any) -> dict[str, str]:
    """Returns type and shape of every array of a tree, by its path."""
    return {
        ".".join(
            str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path
        ): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def _split(state: TrainState) -> tuple[dict[str, Any], dict[str, Any]]:
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    weights = {name: fields.pop(name) for name in WEIGHTS}
    # Checkpoints of runs without a second head, older ones among them, know nothing of it.
    if state.frozen_prototypes is None:
        del fields["frozen_prototypes"]
    return weights, fields


def _fingerprints(fields: dict[str, Any], progress: dict[str, Any]) -> dict[str, int]:
    prints = {name: fingerprint(values) for name, values in fields.items()}
    return prints | {"progress": zlib.crc32(json.dumps(progress, sort_keys=True).encode())}


def _in_one_line(error: Exception) -> str:
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return words if len(words) <= 120 else f"{words[:117]}..."


def _refusal_of_the_disk(error: BaseException | None, folder: Path) -> OSError | None:
    """Returns the operating system's error behind one of Orbax, if there is one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        # TensorStore raises ValueError, with the number in the text.
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code:
            return OSError(int(code[1]), os.strerror(int(code[1])), str(folder))
        error = error.__cause__ or error.__context__
    return None
