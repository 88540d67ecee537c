"""What a run says while it runs: metrics.jsonl, TensorBoard event files, and the terminal."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from sphereface_jax.training.distributed import is_main
from sphereface_jax.training.logs import EventLog, MetricWriter, RecordLog
from sphereface_jax.training.run_folder import RunFolder
from sphereface_jax.training.terminal import progress_bar, say, warn


class Stopwatch:
    """Measures images a second and the fraction of time spent waiting for input, between logs."""

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
