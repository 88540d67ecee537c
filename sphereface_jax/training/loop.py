"""The training loop: mesh, input, model, shard, step, restore, loop.

A run is a function of its config. The order and augmentation of examples come from the seed and
the global example index, λ and the learning rate from the step; what else changes is in the
checkpoint. So a run that is killed and started again ends in the same bits. SIGTERM and Ctrl-C end
it after it has saved, not before.
"""

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console

from sphereface_jax._console import say, say_found, warn
from sphereface_jax.compilation import run_arithmetic
from sphereface_jax.data.files import read_json, read_records, write_atomically, write_json
from sphereface_jax.data.finder import passed_over_table
from sphereface_jax.data.pipeline import InputPipeline, ShuffledOrder, make_pipeline
from sphereface_jax.data.source import FaceSource
from sphereface_jax.losses.table import Loss
from sphereface_jax.training.checkpoint import (
    PATIENCE_AT_THE_END,
    PATIENCE_WHEN_STOPPED,
    Checkpoints,
    Saver,
)
from sphereface_jax.training.compatible import check_compatible, frozen_prototypes
from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.distributed import Agreement, all_agree, is_main, shard_batch
from sphereface_jax.training.input import face_transform, open_training_data
from sphereface_jax.training.metrics import Ledger, MetricWriter, Reporter
from sphereface_jax.training.model_card import write_model_card
from sphereface_jax.training.run_folder import (
    RunFolder,
    check_checkpoint,
    check_start,
    describe_run,
    start_from,
)
from sphereface_jax.training.state import NonFiniteLossError, TrainState
from sphereface_jax.training.trainer import Trainer, make_trainer
from sphereface_jax.training.validation import Validator


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


@run_arithmetic()
def train(
    config: TrainConfig,
    *,
    tx: optax.GradientTransformation | None = None,
    loss: Loss | Callable[..., Any] | None = None,
    console: Console | None = None,
    writers: Sequence[MetricWriter] = (),
) -> dict[str, Any]:
    """Trains a run to its last step, going on from its newest checkpoint if there is one.

    Args:
      config: of the run.
      tx: an optimiser that takes the place of the config's.
      loss: a loss of one's own, which `config.loss.name` gives a name: a function, or a
        `sphereface_jax.Loss` where it has state or looks at the whole batch.
      console: where to report; the terminal by default, for the main process.
      writers: where the main process sends metrics besides metrics.jsonl and TensorBoard.

    Returns:
      The metrics of the last step, which result.json holds too.

    Raises:
      ValueError: the config, the data or the run's folder is not as it must be.
      NonFiniteLossError: the loss stopped being a number; the last good checkpoint stays.
      Interrupted: SIGTERM or Ctrl-C; the state was saved.
    """
    console = console or Console(quiet=not is_main())
    run = RunFolder(config, warn=lambda line: warn(console, line))
    run.check()
    if run.result.is_file():
        result = read_json(run.result)
        say(console, f"{run.path} is finished at step {result['step']}; nothing to do.")
        return result
    if config.init_from is not None and not run.is_begun:
        check_start(config)
    if config.compatible_with is not None and not run.is_begun:
        check_compatible(config)
    source, held_out = open_training_data(config)
    description = describe_run(config, source)
    num_classes = len(source.identities)
    trainer = make_trainer(
        config,
        num_classes,
        tx=tx,
        loss=loss,
        class_counts=np.bincount(source.labels, minlength=num_classes),
    )
    with ExitStack() as stack:
        stack.enter_context(run)
        checkpoints = stack.enter_context(
            Checkpoints(
                run.checkpoints, keep=config.keep_checkpoints, warn=lambda line: warn(console, line)
            )
        )
        state = _initial_state(trainer, source, description, checkpoints, console)
        start = int(state.step)
        run.cut_back(start)
        _introduce(trainer, source, start, console)
        reporter = stack.enter_context(
            Reporter(run, console, start=start, steps=config.steps, writers=writers)
        )
        saver = Saver(checkpoints, config, description, reporter.warn)
        validator = Validator(held_out, config, trainer.graph) if held_out is not None else None
        record = _run_steps(trainer, state, source, saver, reporter, validator)
        if is_main():
            write_json(run.result, record)
            write_model_card(run.path)
    return record


def _initial_state(
    trainer: Trainer,
    source: FaceSource,
    description: dict[str, Any],
    checkpoints: Checkpoints,
    console: Console,
) -> TrainState:
    """The newest checkpoint's state, or a fresh one, or a fresh one with another run's weights."""
    config = trainer.config
    if checkpoints.latest_step() is not None:
        check_checkpoint(checkpoints.progress(), config.out, config, description)
        return checkpoints.restore(trainer.like)
    state = trainer.init()
    if config.init_from is not None:
        state, said = start_from(state, config, description)
        say(console, said)
    if config.compatible_with is not None:
        old = frozen_prototypes(config, source, description, console)
        # Sharded as the prototypes are.
        old = jax.device_put(old, state.prototypes.sharding)
        state = dataclasses.replace(state, frozen_prototypes=old)
    return state


def _introduce(trainer: Trainer, source: FaceSource, start: int, console: Console) -> None:
    config, devices = trainer.config, trainer.mesh.devices
    weights = sum(leaf.size for leaf in jax.tree.leaves(trainer.like.params))
    doing = f"Resuming from step {start}:" if start else "Training"
    say(
        console,
        f"{doing} {config.model.name} ({weights / 1e6:.1f} M weights) "
        f"with {config.loss.name} on {len(source):,} images of {len(source.identities):,} "
        f"identities, {devices.size} × {devices.flat[0].device_kind}, into {config.out}",
    )
    say_found(console, source)
    passed_over = getattr(source, "passed_over", ())
    if passed_over and is_main():
        write_atomically(config.out / "passed_over.tsv", passed_over_table(passed_over))


def _open_pipeline(config: TrainConfig, source: FaceSource, start: int) -> InputPipeline:
    """This process's part of the batches after a step."""
    return make_pipeline(
        source,
        batch_size=config.batch_size,
        seed=config.seed,
        start_example=start * config.batch_size,
        transform=face_transform(config.data),
        on_error=config.data.on_error,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _run_steps(
    trainer: Trainer,
    state: TrainState,
    source: FaceSource,
    saver: Saver,
    reporter: Reporter,
    validator: Validator | None,
) -> dict[str, Any]:
    """Trains from the state's step to the last one and returns the record of that."""
    config, start = trainer.config, int(state.step)
    pipeline = _open_pipeline(config, source, start)
    ledger = Ledger(config, trainer.objective, reporter)
    agreed = Agreement(trainer.mesh)
    skipped = 0
    with (
        catch_signals() as caught,
        closing(pipeline),
        _naming_the_batch(reporter.run.path, source, config, saver),
    ):
        if _scores(config, start) and not all_agree(_is_scored(reporter.run, start)):
            _score(validator, state, start, reporter, caught)
        for step in range(start + 1, config.steps + 1):
            with ledger.watch.waiting():
                batch = shard_batch(next(pipeline), trainer.mesh)
            state, metrics = trainer.step(state, batch)
            ledger.push(step, metrics)
            saves = step % config.checkpoint_every == 0 and step < config.steps
            scores = _scores(config, step)
            if saves or scores:
                ledger.flush()
            if scores:
                _score(validator, state, step, reporter, caught)
            stop = agreed(caught.signum or 0)
            if stop:
                ledger.flush()
                saver.finish(step, state, patience=PATIENCE_WHEN_STOPPED)
                raise Interrupted(stop)
            if saves:
                saver.save(step, state)
            saver.look()
            if pipeline.skipped > skipped:
                skipped = pipeline.skipped
                reporter.warn(f"{skipped} unreadable images were replaced so far")
        ledger.flush()
        saver.finish(config.steps, state, patience=PATIENCE_AT_THE_END)
    return ledger.record


def _scores(config: TrainConfig, step: int) -> bool:
    """Whether a step is one to score the held-out identities at."""
    return config.val.fraction > 0 and (
        step == config.steps or (step > 0 and step % config.val.every == 0)
    )


def _is_scored(run: RunFolder, step: int) -> bool:
    """Whether the held-out identities were scored at a step; a signal may have cut that short."""
    return any(record["step"] == step for record in read_records(run.validation))


def _score(
    validator: Validator | None,
    state: TrainState,
    step: int,
    reporter: Reporter,
    caught: Caught,
) -> None:
    """Scores the held-out identities; a signal cuts it short, and the resumed run does it anew."""
    assert validator is not None
    # Several processes stop together, after a step.
    advance = caught.check if jax.process_count() == 1 else lambda count: None
    with suppress(Interrupted):
        reporter.validation({"step": step} | validator.score(state, advance=advance))


@contextmanager
def _naming_the_batch(
    run: Path, source: FaceSource, config: TrainConfig, saver: Saver
) -> Iterator[None]:
    """Adds to a NaN or infinite loss which images it was of, and what to do."""
    try:
        yield
    except NonFiniteLossError as error:
        saver.settle()
        latest = saver.latest_step()
        kept = f"the checkpoint of step {latest} is kept" if latest else "nothing was saved yet"
        raise NonFiniteLossError(
            error.step,
            f"{error}, {_name_batch(run, source, config, error.step)}; {kept}. Look at the images, "
            "or try a lower --optimizer.learning-rate, --optimizer.warmup-steps 100, "
            "--optimizer.clip-norm 5, or a larger --loss.lambda-minimum",
        ) from None


def _name_batch(run: Path, source: FaceSource, config: TrainConfig, step: int) -> str:
    """Writes the images of a step to RUN/suspects.json; returns how a sentence ends on them."""
    order = ShuffledOrder(len(source), config.seed)
    first = (step - 1) * config.batch_size
    examples = [
        {"example": example, "image": source.describe(order(example))}
        for example in range(first, first + config.batch_size)
    ]
    path = run / "suspects.json"
    if is_main():
        write_json(path, {"step": step, "examples": examples})
    return f"in examples {first} to {examples[-1]['example']}, whose images {path} names"
