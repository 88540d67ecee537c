"""Every step's metrics are checked, and some logged, one step late: the device never waits."""

import math
from typing import Any

import jax

from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.objective import Objective
from sphereface_jax.training.optimizer import make_schedule
from sphereface_jax.training.partial_fc import make_sampler
from sphereface_jax.training.reporting import Reporter, Stopwatch
from sphereface_jax.training.run_folder import read_records
from sphereface_jax.training.step import pop_collapse


class NonFiniteLossError(RuntimeError):
    """The loss, its gradient or the weights stopped being numbers.

    Attributes:
      step: the step whose loss, gradient or new weights these are.
    """

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step


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
          step: which step that is, from 1.
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
