"""The files that a run logs to, which a full disk neither tears nor blocks.

What the disk does not take raises OSError, and the caller decides; the next record tries again.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class MetricWriter(Protocol):
    """Where else metrics go: Weights & Biases, MLflow, a writer of `clu.metric_writers`."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Takes the metrics of a step, by names such as train/loss and validation/accuracy_10_fold.

        Args:
          step: from 1. A resumed run logs the steps after its newest checkpoint again.
          scalars: by name.

        Raises:
          OSError: they cannot be written now; training goes on and warns once. Any other error
            stops the run.
        """


class RecordLog:
    """A file of one JSON object a line.

    Args:
      path: the file; records are appended to what it holds.
    """

    def __init__(self, path: Path):
        self.path = path
        self._waiting = b""

    def append(self, record: dict[str, Any]) -> None:
        """Appends a record, after those that the disk did not take before.

        Raises:
          OSError: the disk does not take it; the record waits, and the file is as it was.
        """
        self._waiting += json.dumps(record).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Writes the records that wait.

        Raises:
          OSError: the disk does not take them.
        """
        if not self._waiting:
            return
        with open(self.path, "ab", buffering=0) as file:
            end = os.fstat(file.fileno()).st_size
            try:
                left = memoryview(self._waiting)
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(end)
                raise
        self._waiting = b""


class EventLog:
    """Event files for TensorBoard.

    They are written here and not by tensorboardX's SummaryWriter: its thread dies of a full disk,
    and its queue then blocks the run for ever.

    Args:
      folder: where they are.
      purge_step: TensorBoard hides what earlier processes logged from this step on.
    """

    def __init__(self, folder: Path, *, purge_step: int):
        self._folder, self._purge_step = folder, purge_step
        self._writer: EventsWriter | None = None

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends the metrics of a step.

        Raises:
          OSError: the disk does not take them; they are lost, the next go to a new file.
        """
        numbers = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        try:
            if self._writer is None:
                self._writer = self._open()
            self._write(Event(step=step, summary=Summary(value=numbers)))
            self._writer.flush()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file, which is complete after every call."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
        self._writer = None

    def _open(self) -> EventsWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(self._folder / "events"), f".{os.getpid()}")
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=self._purge_step, session_log=start))
        return self._writer

    def _write(self, event: Event) -> None:
        assert self._writer is not None
        event.wall_time = time.time()
        self._writer.write_event(event)
