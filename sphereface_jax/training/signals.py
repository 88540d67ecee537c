"""SIGTERM and Ctrl-C end a run after it has saved, not before."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Interrupted(SystemExit):
    """The run was asked to stop, and saves before it does; exits with 128 + the signal."""

    def __init__(self, signum: int):
        super().__init__(128 + signum)


@dataclass
class Caught:
    """The signal that came, if one did."""

    signum: int | None = None

    def check(self, *_: object) -> None:
        """Raises where one came, to leave work that need not be done.

        Raises:
          Interrupted: it did.
        """
        if self.signum is not None:
            raise Interrupted(self.signum)


@contextmanager
def catch_signals() -> Iterator[Caught]:
    """Notes SIGTERM and Ctrl-C instead of dying of them; a second one is not held back."""
    caught = Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    previous = {which: signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for which, handler in previous.items():
            signal.signal(which, handler)

    def note(signum: int, frame: FrameType | None) -> None:
        caught.signum = signum
        restore()

    for which in previous:
        signal.signal(which, note)
    try:
        yield caught
    finally:
        restore()
