"""When a run is saved, and what becomes of it when the disk refuses.

In the midst of training a full disk costs a warning: the last checkpoint stays, and the next save
is the next try. At the end, where the state would be lost, the run waits for room.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import jax

from sphereface_jax.training.checkpoint import Checkpoints, NonFiniteStateError
from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.ledger import NonFiniteLossError
from sphereface_jax.training.state import TrainState

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
