"""What a run logs: metrics.jsonl, event files for TensorBoard, and lines on the terminal.

Every step's metrics are checked, and some logged, one step late: the device never waits. A full
disk neither tears the files nor blocks the run. What it does not take raises OSError, the run warns
once, and the next record tries again.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import jax
from rich.console import Console
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from sphereface_jax._console import progress_bar, say, warn
from sphereface_jax.data.files import read_records
from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.distributed import is_main
from sphereface_jax.training.objective import Objective
from sphereface_jax.training.optimizer import make_schedule
from sphereface_jax.training.partial_fc import make_sampler
from sphereface_jax.training.run_folder import RunFolder
from sphereface_jax.training.state import NonFiniteLossError
from sphereface_jax.training.step import pop_collapse


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
                self._folder.mkdir(parents=True, exist_ok=True)
                self._writer = EventsWriter(str(self._folder / "events"), f".{os.getpid()}")
                start = SessionLog(status=SessionLog.START)
                self._write(Event(step=self._purge_step, session_log=start))
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

    def _write(self, event: Event) -> None:
        assert self._writer is not None
        event.wall_time = time.time()
        self._writer.write_event(event)


class Stopwatch:
    """Measures images per second and the fraction of time spent waiting for input, between logs."""

    def __init__(self) -> None:
        self._start_lap()

    def _start_lap(self) -> None:
        self._start = time.perf_counter()
        self._waited, self._images = 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as time without work for the device."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def add(self, images: int) -> None:
        """Counts images as done."""
        self._images += images

    def lap(self) -> dict[str, float]:
        """Returns the rates since the last lap and starts the next."""
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        rates = {
            "images_per_second": self._images / elapsed,
            "input_wait_share": self._waited / elapsed,
        }
        self._start_lap()
        return rates


class Reporter:
    """Writes what a run logs to its files and to the terminal; the main process alone does.

    Args:
      run: whose files.
      console: the terminal.
      start: the step that the run goes on from.
      steps: its last one.
      writers: where metrics go besides.
    """

    _LOGS = "the logs"

    def __init__(
        self,
        run: RunFolder,
        console: Console,
        *,
        start: int,
        steps: int,
        writers: Sequence[MetricWriter] = (),
    ):
        self.run = run
        self.console = console
        self._metrics, self._validation = RecordLog(run.metrics), RecordLog(run.validation)
        self._tensorboard = EventLog(run.path / "tensorboard", purge_step=start + 1)
        self._writers = writers
        self._refusing: set[str] = set()
        self._progress = progress_bar(console, "steps")
        self._task = self._progress.add_task("training", total=steps, completed=start)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        with self._warning_once(self._LOGS):
            self._metrics.flush()
            self._validation.flush()
        self._tensorboard.close()

    def advance(self) -> None:
        """Counts one step."""
        self._progress.advance(self._task)

    def metrics(self, record: dict[str, Any]) -> None:
        """Logs the metrics of one step."""
        self._log(self._metrics, record, prefix="train/")
        line = (
            f"step {record['step']:>6}  loss {record['loss']:7.4f}  "
            f"accuracy {record['accuracy']:6.1%}  angle {record['target_angle']:5.1f}°  "
            f"norm {record['embedding_norm']:6.2f}  lr {record['learning_rate']:.4g}  "
        )
        if "annealing_lambda" in record:
            line += f"λ {record['annealing_lambda']:.4g}  "
        line += f"{record['images_per_second']:,.0f} images/s"
        if self.console.is_terminal:
            self._progress.update(self._task, description=line)
        else:
            say(self.console, line)

    def validation(self, record: dict[str, Any]) -> None:
        """Logs a score on held-out identities."""
        self._log(self._validation, record, prefix="validation/")
        say(
            self.console,
            f"step {record['step']:>6}  held-out identities: accuracy "
            f"{record['accuracy_10_fold']:.2%} ± {record['accuracy_std']:.2%}",
        )

    def warn(self, message: str) -> None:
        """Says something that the user should act on."""
        warn(self.console, message)

    def _log(self, log: RecordLog, record: dict[str, Any], *, prefix: str) -> None:
        numbers = {
            prefix + name: value
            for name, value in record.items()
            if name != "step" and isinstance(value, int | float)
        }
        if not is_main():
            return
        with self._warning_once(self._LOGS):
            log.append(record)
            self._tensorboard.write_scalars(record["step"], numbers)
        for writer in self._writers:
            with self._warning_once(type(writer).__name__):
                writer.write_scalars(record["step"], numbers)

    @contextmanager
    def _warning_once(self, log: str) -> Iterator[None]:
        """Where a log refuses a record, says so once until it takes one again."""
        try:
            yield
            self._refusing.discard(log)
        except OSError as error:
            if log not in self._refusing:
                reason = error.strerror or error
                self.warn(
                    f"{self.run.path}: {log} cannot be written ({reason}); training goes on"
                    + (
                        " and metrics wait in memory. Free some space"
                        if log == self._LOGS
                        else ", and metrics.jsonl has what it misses"
                    )
                )
            self._refusing.add(log)


class Ledger:
    """Takes the metrics of each step and hands those to be logged to the reporter.

    Attributes:
      record: the last one logged, by this process or an earlier one of the run.
      watch: measures the time between two records.
    """

    def __init__(self, config: TrainConfig, objective: Objective, reporter: Reporter):
        self.watch = Stopwatch()
        logged = read_records(reporter.run.metrics)
        self.record: dict[str, Any] = logged[-1] if logged else {}
        self._config, self._objective, self._reporter = config, objective, reporter
        self._rate = make_schedule(config.optimizer, config.steps)
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._watches_chance = self._watches_collapse = True
        self._collapsed_before = False

    def push(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step just dispatched, and checks those of the step before.

        Args:
          step: its number, from 1.
          metrics: its scalars, which may not be there yet.

        Raises:
          NonFiniteLossError: the step before had a loss or gradient that is NaN or infinite.
        """
        self.flush()
        self._pending = step, metrics
        self.watch.add(self._config.batch_size)
        self._reporter.advance()

    def flush(self) -> None:
        """Waits for the newest step and checks its metrics.

        Raises:
          NonFiniteLossError: it had a loss or gradient that is NaN or infinite.
        """
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        values = {name: float(value) for name, value in metrics.items()}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            raise NonFiniteLossError(
                step, f"step {step}: loss {values['loss']}, gradient norm {values['gradient_norm']}"
            )
        collapse = pop_collapse(values)
        if step % self._config.log_every == 0 or step == self._config.steps:
            self._log(step, values)
            self._warn_of_collapse(step, collapse)

    def _log(self, step: int, values: dict[str, float]) -> None:
        self.record = {"step": step} | values | {"learning_rate": float(self._rate(step - 1))}
        annealing_lambda = self._objective.annealing_lambda(step - 1)
        if annealing_lambda is not None:
            self.record["annealing_lambda"] = float(annealing_lambda)
        self.record |= self.watch.lap()
        self._reporter.metrics(self.record)
        self._warn_at_chance(self.record)

    def _warn_of_collapse(self, step: int, collapse: str | None) -> None:
        """Warns once, of two logged steps in a row: a new network may map all faces close by."""
        lasts = self._collapsed_before or step == self._config.steps
        if self._watches_collapse and collapse is not None and lasts:
            self._watches_collapse = False
            self._reporter.warn(
                f"step {step}: the network has collapsed: {collapse}. It tells nobody apart, "
                "whatever the accuracy; try a lower --optimizer.learning-rate, a lower "
                "--optimizer.weight-decay, --optimizer.warmup-steps 500 or --optimizer.clip-norm 5"
            )
        self._collapsed_before = collapse is not None

    def _warn_at_chance(self, record: dict[str, Any]) -> None:
        """Warns once where λ has reached its floor and the loss is still that of guessing."""
        num_classes = make_sampler(self._objective, self._config.batch_size).classes_drawn
        chance = math.log(num_classes)
        at_floor = record.get("annealing_lambda") == self._config.loss.lambda_minimum
        if self._watches_chance and at_floor and record["loss"] > 0.99 * chance:
            self._watches_chance = False
            self._reporter.warn(
                f"step {record['step']}: λ has reached its floor and the loss {record['loss']:.3f} "
                f"is still that of guessing (ln {num_classes} = {chance:.3f}). Try a slower fall "
                "of λ (--loss.lambda-gamma 0.012), a higher floor (--loss.lambda-minimum 10), a "
                "lower --optimizer.learning-rate or --optimizer.warmup-steps 500"
            )
