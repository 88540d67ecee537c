"""Checkpoints: everything a run needs to go on as if it had never stopped, through Orbax.

One checkpoint holds the training state and, as JSON, the number of examples consumed (the whole
state of the input), the config, and the fingerprints of all that. Saving is asynchronous and
atomic: Orbax writes into a temporary folder and renames it. A checkpoint that cannot be read, or
whose fingerprints are others, is passed over for the one before it. Orbax is imported here and
nowhere else.

In the midst of training a full disk costs a warning: the last checkpoint stays, and the next save
is the next try. At the end, where the state would be lost, the run waits for room.

A checkpoint's arrays carry no checksum on disk: garbage in the middle of a file can restore without
an error, as other weights. So the sums are taken on the devices before saving, and again after
restoring. Integers add up to the same in any order, so a fingerprint knows nothing of the mesh.
"""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax import lax
from jax.experimental.multihost_utils import sync_global_devices

from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.distributed import all_agree, is_main
from sphereface_jax.training.state import NonFiniteLossError, TrainState

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

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
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
                raise NonFiniteStateError(f"{name} are NaN or infinite")
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
          OSError: the last save failed; what it left is not a checkpoint.
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
        saved = progress.pop("fingerprints")
        fields = {name: value for item in args for name, value in restored[item].items()}
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


PATIENCE_AT_THE_END = 600.0
"""Seconds that a finished run waits for room on the disk."""
PATIENCE_WHEN_STOPPED = 20.0
"""The same after SIGTERM or Ctrl-C, for whom schedulers leave 30 seconds or more."""

_SECONDS_BETWEEN_TRIES = 2.0


class Saver:
    """Saves the state of a run.

    Args:
      checkpoints: of the run.
      config: of the run.
      description: of the run, by `describe_run`.
      warn: told in one line of what could not be saved.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        config: TrainConfig,
        description: dict[str, Any],
        warn: Callable[[str], None],
    ):
        self._checkpoints, self._config, self._warn = checkpoints, config, warn
        self._description = description
        self._under_way: int | None = None

    def save(self, step: int, state: TrainState) -> None:
        """Starts saving; where the disk refuses, warns.

        Args:
          step: updates done.
          state: after them; it may be donated as soon as this returns.

        Raises:
          NonFiniteLossError: weights stopped being numbers.
        """
        self.settle()
        try:
            self._start(step, state)
        except OSError as error:
            self._say(step, error)

    def look(self) -> None:
        """Warns if the save under way has failed; does not wait for it."""
        # Several processes reopen their checkpoints together, at the next save.
        if jax.process_count() == 1 and not self._checkpoints.is_saving():
            self.settle()

    def settle(self) -> None:
        """Waits for the save under way; warns if it failed."""
        step, self._under_way = self._under_way, None
        if step is None:
            return
        try:
            self._checkpoints.wait()
        except OSError as error:
            self._say(step, error)

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint, or None."""
        return self._checkpoints.latest_step()

    def finish(self, step: int, state: TrainState, *, patience: float) -> None:
        """Saves and waits until that is on disk, trying for `patience` seconds.

        Args:
          step: updates done.
          state: after them.
          patience: seconds.

        Raises:
          OSError: the disk refused for all that time.
          NonFiniteLossError: weights stopped being numbers.
        """
        self.settle()
        tries = max(1, round(patience / _SECONDS_BETWEEN_TRIES))
        for left in reversed(range(tries)):
            try:
                self._start(step, state)
                self._checkpoints.wait()
            except OSError as error:
                if not left:
                    raise OSError(self._failure(step, error)) from error
                if left == tries - 1:
                    self._warn(f"{self._failure(step, error)}; trying for {patience:.0f} s more")
                time.sleep(_SECONDS_BETWEEN_TRIES)
            else:
                return

    def _start(self, step: int, state: TrainState) -> None:
        progress = {"examples": step * self._config.batch_size} | self._description
        try:
            self._checkpoints.save(step, state, progress)
        except NonFiniteStateError as error:
            raise NonFiniteLossError(step, f"step {step}: {error}") from None
        self._under_way = step

    def _failure(self, step: int, error: OSError) -> str:
        latest = self._checkpoints.latest_step()
        kept = f"that of step {latest} is kept" if latest is not None else "there is none yet"
        reason = error.strerror or os.strerror(error.errno or 0)
        return (
            f"{self._checkpoints.folder}: the checkpoint of step {step} was not saved ({reason}); "
            f"{kept}. Free some space or lower --keep-checkpoints"
        )

    def _say(self, step: int, error: OSError) -> None:
        again = f"; training goes on and saves again in {self._config.checkpoint_every} steps"
        self._warn(self._failure(step, error) + again)


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


def fingerprint(tree: Any) -> int:
    """Returns a 32-bit number made of every bit of the arrays in a tree, and their order.

    A change in a single element always changes it; others do but for one in 2^32.
    """
    total = 0
    with jax.enable_x64(True):  # or wide values would lose half their bits before they are summed
        parts = jax.device_get([_weighted_sum(leaf) for leaf in jax.tree.leaves(tree)])
    for part in parts:
        total = (total * 31 + int(part)) % 2**32
    return total


def is_finite(tree: Any) -> bool:
    """Returns whether no float of a tree is infinite or not a number."""
    with jax.enable_x64(True):
        return all(jax.device_get([_all_finite(leaf) for leaf in jax.tree.leaves(tree)]))


@jax.jit
def _weighted_sum(leaf: jax.Array) -> jax.Array:
    """The sum of the elements' bits, each times an odd number that depends on its place."""
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    width = min(leaf.dtype.itemsize, 4)  # a wider element is two numbers, on a last axis of its own
    bits = lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * width}")).astype(jnp.uint32)
    position = jnp.zeros(bits.shape, jnp.uint32)
    for axis, length in enumerate(bits.shape):
        position = position * length + lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    return jnp.sum(bits * (position * jnp.uint32(0x9E3779B1) | 1), dtype=jnp.uint32)


@jax.jit
def _all_finite(leaf: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(leaf))
