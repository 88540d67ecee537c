"""The training loop: mesh, input, model, shard, step, restore, loop.

A run is a function of its config. The order and augmentation of examples come from the seed and
the global example index, λ and the learning rate from the step; what else changes is in the
checkpoint. So a run that is killed and started again ends in the same bits.
"""

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import jax
import optax
from rich.console import Console

from sphereface_jax.data.pipeline import make_pipeline
from sphereface_jax.data.sources import FaceSource
from sphereface_jax.training.checkpoint import Checkpoints
from sphereface_jax.training.config import TrainConfig, to_dict
from sphereface_jax.training.input import face_transform, open_training_data
from sphereface_jax.training.optimizer import make_schedule
from sphereface_jax.training.partition import shard_batch
from sphereface_jax.training.reporting import Reporter, Stopwatch
from sphereface_jax.training.run_folder import RunFolder, read_json, read_records, write_json
from sphereface_jax.training.saved_run import start_from
from sphereface_jax.training.state import TrainState
from sphereface_jax.training.trainer import Trainer, make_trainer
from sphereface_jax.training.validation import Validator


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient stopped being a number."""


class Interrupted(SystemExit):
    """The run was asked to stop, and saved before it did; exits with 128 + the signal."""

    def __init__(self, signum: int):
        super().__init__(128 + signum)


def train(
    config: TrainConfig,
    *,
    tx: optax.GradientTransformation | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Trains a run to its last step, going on from its newest checkpoint if there is one.

    Args:
      config: of the run.
      tx: an optimiser that takes the place of the config's.
      console: where to report; the terminal by default.

    Returns:
      The metrics of the last step, which result.json holds too.

    Raises:
      ValueError: the config, the data or the run's folder is not as it must be.
      NonFiniteLossError: the loss stopped being a number; the last good checkpoint stays.
      Interrupted: SIGTERM or Ctrl-C; the state was saved.
    """
    console = console or Console()
    run = RunFolder(config)
    run.check()
    if run.result.is_file():
        result = read_json(run.result)
        console.print(f"{run.path} is finished at step {result['step']}; nothing to do.")
        return result
    source, held_out = open_training_data(config)
    trainer = make_trainer(config, len(source.identities), tx=tx)
    with ExitStack() as stack:
        stack.enter_context(run)
        checkpoints = stack.enter_context(
            Checkpoints(run.checkpoints, keep=config.keep_checkpoints)
        )
        state = _initial_state(trainer, checkpoints, console)
        start = int(state.step)
        run.cut_back(start)
        _introduce(trainer, source, start, console)
        reporter = stack.enter_context(Reporter(run, console, start=start, steps=config.steps))
        validator = Validator(held_out, config, trainer.graph) if held_out is not None else None
        loop = _Loop(trainer, checkpoints, reporter, validator)
        record = loop.run(state, source, start)
        write_json(run.result, record)
    return record


def _initial_state(trainer: Trainer, checkpoints: Checkpoints, console: Console) -> TrainState:
    """The newest checkpoint's state, or a fresh one, or a fresh one with another run's weights."""
    config = trainer.config
    if checkpoints.latest_step() is not None:
        return checkpoints.restore(trainer.like)
    state = trainer.init()
    if config.init_from is not None:
        state, said = start_from(state, config, trainer.objective.num_classes)
        console.print(said, highlight=False)
    return state


def _introduce(trainer: Trainer, source: FaceSource, start: int, console: Console) -> None:
    config = trainer.config
    weights = sum(leaf.size for leaf in jax.tree.leaves(trainer.like.params))
    doing = f"Resuming from step {start}:" if start else "Training"
    console.print(
        f"{doing} {config.model.name} ({weights / 1e6:.1f} M weights) "
        f"with {config.loss.name} on {len(source):,} images of {len(source.identities):,} "
        f"identities, {trainer.mesh.size} × {jax.devices()[0].device_kind}, into {config.out}",
        highlight=False,
    )


class _Loop:
    """Runs the steps; holds what one step hands to the next besides the state."""

    def __init__(
        self,
        trainer: Trainer,
        checkpoints: Checkpoints,
        reporter: Reporter,
        validator: Validator | None,
    ):
        self.trainer = trainer
        self.config = trainer.config
        self.checkpoints = checkpoints
        self.reporter = reporter
        self.validator = validator
        self.rate = make_schedule(self.config.optimizer, self.config.steps)
        self.watch_chance = True

    def run(self, state: TrainState, source: FaceSource, start: int) -> dict[str, Any]:
        """Trains to the last step and returns its record."""
        config = self.config
        pipeline = make_pipeline(
            source,
            batch_size=config.batch_size,
            seed=config.seed,
            start_example=start * config.batch_size,
            transform=face_transform(config.data),
            on_error=config.data.on_error,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        watch = Stopwatch()
        logged = read_records(self.reporter.run.metrics)
        record: dict[str, Any] = logged[-1] if logged else {}
        pending: tuple[int, dict[str, jax.Array]] | None = None
        skipped = 0
        with catch_signals() as caught:
            for step in range(start + 1, config.steps + 1):
                with watch.waiting():
                    batch = shard_batch(next(pipeline), self.trainer.mesh)
                state, metrics = self.trainer.step(state, batch)
                # The step before is checked while the device works on this one.
                if pending is not None:
                    record = self._finish(*pending, watch) or record
                pending = step, metrics
                watch.add(config.batch_size)
                self.reporter.advance()
                last = step == config.steps
                stop = caught.signum is not None
                saves = step % config.checkpoint_every == 0 or last or stop
                scores = self.validator is not None and (step % config.val.every == 0 or last)
                if saves or scores:
                    record = self._finish(*pending, watch) or record
                    pending = None
                if scores:
                    self._validate(step, state)
                if saves:
                    self._save(step, state)
                if pipeline.skipped > skipped:
                    skipped = pipeline.skipped
                    self.reporter.warn(f"{skipped} unreadable images were replaced so far")
                if stop:
                    self.checkpoints.wait()
                    assert caught.signum is not None
                    raise Interrupted(caught.signum)
        self.checkpoints.wait()
        return record

    def _finish(
        self, step: int, metrics: dict[str, jax.Array], watch: Stopwatch
    ) -> dict[str, Any] | None:
        """Checks a step's metrics, and logs and returns them if it is one to be logged."""
        values = {name: float(value) for name, value in metrics.items()}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            latest = self.checkpoints.latest_step()
            raise NonFiniteLossError(
                f"step {step}: loss {values['loss']}, gradient norm {values['gradient_norm']}; "
                + (f"the checkpoint of step {latest} is kept" if latest else "nothing was saved")
                + ". Try a lower --optimizer.learning-rate, --optimizer.warmup-steps, "
                "--optimizer.clip-norm 100, or a larger --loss.lambda-minimum"
            )
        if step % self.config.log_every and step != self.config.steps:
            return None
        record: dict[str, Any] = {"step": step} | values
        record["learning_rate"] = float(self.rate(step - 1))
        annealing_lambda = self.trainer.objective.annealing_lambda(step - 1)
        if annealing_lambda is not None:
            record["annealing_lambda"] = float(annealing_lambda)
        record |= watch.lap()
        self.reporter.metrics(record)
        self._warn_at_chance(record)
        return record

    def _warn_at_chance(self, record: dict[str, Any]) -> None:
        """Warns once where λ has reached its floor and the loss is still that of guessing."""
        chance = math.log(self.trainer.objective.num_classes)
        at_floor = record.get("annealing_lambda") == self.config.loss.lambda_minimum
        if self.watch_chance and at_floor and record["loss"] > 0.99 * chance:
            self.watch_chance = False
            self.reporter.warn(
                f"step {record['step']}: λ has reached its floor and the loss {record['loss']:.3f} "
                f"is still that of guessing (ln {self.trainer.objective.num_classes} = "
                f"{chance:.3f}). Try a slower fall of λ (--loss.lambda-gamma 0.012), a higher "
                "floor (--loss.lambda-minimum 10), a lower --optimizer.learning-rate or "
                "--optimizer.warmup-steps 500"
            )

    def _validate(self, step: int, state: TrainState) -> None:
        assert self.validator is not None
        self.reporter.validation({"step": step} | self.validator.score(state))

    def _save(self, step: int, state: TrainState) -> None:
        progress = {
            "examples": step * self.config.batch_size,
            "num_classes": self.trainer.objective.num_classes,
            "config": to_dict(self.config),
        }
        self.checkpoints.save(step, state, progress)


@dataclass
class _Caught:
    signum: int | None = None


@contextmanager
def catch_signals() -> Iterator[_Caught]:
    """Notes SIGTERM and Ctrl-C instead of dying of them; a second one is not held back."""
    caught = _Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(signum: int, frame: FrameType | None) -> None:
        caught.signum = signum
        restore()

    previous = {which: signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for which, handler in previous.items():
            signal.signal(which, handler)

    for which in previous:
        signal.signal(which, note)
    try:
        yield caught
    finally:
        restore()
