"""What a run survives: a disk that refuses, numbers that are none, signals."""

import dataclasses
import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from command import refused
from disturbance import assert_same_end, restore, warnings
from tiny_run import as_flags, quiet, tiny_config

from sphereface_jax.data.files import read_records
from sphereface_jax.data.transforms import normalize_pixels
from sphereface_jax.training import checkpoint, loop
from sphereface_jax.training import step as step_module
from sphereface_jax.training.config import TrainConfig, ValConfig
from sphereface_jax.training.loop import Interrupted, train
from sphereface_jax.training.metrics import EventLog, RecordLog, Reporter
from sphereface_jax.training.optimizer import make_optimizer
from sphereface_jax.training.run_folder import load_run
from sphereface_jax.training.state import NonFiniteLossError, TrainState
from sphereface_jax.training.validation import Validator

# Orbax leaves the other arrays' coroutines and threads behind when one cannot be read or written.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


# A disk that refuses


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """No file can grow beyond a kilobyte, for the operating system and all threads."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(full: bool) -> None:
        size = 1024 if full else hard
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    yield limit
    limit(False)


def at_steps(monkeypatch: pytest.MonkeyPatch, actions: dict[int, Callable[[], object]]) -> None:
    """Does something just after the metrics of a step were logged, in the step after."""
    log = Reporter.metrics

    def log_and_act(self: Reporter, record: dict) -> None:
        log(self, record)
        actions.get(record["step"], lambda: None)()

    monkeypatch.setattr(Reporter, "metrics", log_and_act)


# Orbax drops the coroutines of a write that failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_training_goes_on_while_the_disk_refuses(
    undisturbed: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full_disk: Callable[[bool], None],
) -> None:
    config = dataclasses.replace(undisturbed, out=tmp_path / "run")
    at_steps(monkeypatch, {2: lambda: full_disk(True), 9: lambda: full_disk(False)})
    # A save that is slow must not be on its way still when there is room again.
    monkeypatch.setattr(checkpoint.Saver, "look", checkpoint.Saver.settle)
    console = quiet()
    train(config, console=console)
    said = warnings(console)
    assert sum("the logs cannot be written (File too large)" in line for line in said) == 1
    for step in (4, 8):
        failed = [line for line in said if f"checkpoint of step {step} was not saved" in line]
        assert len(failed) == 1
        assert "there is none yet. Free some space" in failed[0]
        assert failed[0].endswith("training goes on and saves again in 4 steps")
    names = {path.name for path in (config.out / "checkpoints").iterdir()}
    # Orbax may still have the file of a failed save open; the next start removes what is left.
    assert {name for name in names if "orbax-checkpoint-tmp" not in name} == {"12"}
    assert_same_end(config, undisturbed)


def test_no_room_is_seen_before_anything_is_written(
    undisturbed: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(undisturbed, out=tmp_path / "run")
    usage = shutil.disk_usage
    free = {"bytes": 1000}
    monkeypatch.setattr(
        checkpoint.shutil, "disk_usage", lambda path: usage(path)._replace(free=free["bytes"])
    )
    at_steps(monkeypatch, {9: lambda: free.update(bytes=10**9)})
    console = quiet()
    train(config, console=console)
    assert [line.split("was not saved")[0].split()[-1] for line in warnings(console)] == ["4", "8"]
    assert "No space left on device: 1.1 MB needed, 0.0 MB free" in warnings(console)[0]
    assert_same_end(config, undisturbed)


def test_a_finished_run_waits_for_room_and_then_gives_up(
    undisturbed: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = dataclasses.replace(undisturbed, out=tmp_path / "run")
    usage = shutil.disk_usage
    free = {"bytes": 1000, "pauses": 0}
    monkeypatch.setattr(
        checkpoint.shutil, "disk_usage", lambda path: usage(path)._replace(free=free["bytes"])
    )
    monkeypatch.setattr(checkpoint.time, "sleep", lambda s: free.update(pauses=free["pauses"] + 1))
    monkeypatch.setattr(loop, "PATIENCE_AT_THE_END", 6.0)
    line = refused(capsys, "train", *as_flags(config))
    assert "the checkpoint of step 12 was not saved (No space left on device" in line
    assert free["pauses"] == 2
    assert not (config.out / "result.json").exists()
    free["bytes"] = 10**9
    train(config, console=quiet())
    assert_same_end(config, undisturbed)


def test_a_record_that_the_disk_refused_is_written_later(
    tmp_path: Path, full_disk: Callable[[bool], None]
) -> None:
    log = RecordLog(tmp_path / "log.jsonl")
    records = [{"step": step, "text": "x" * 400} for step in range(5)]
    log.append(records[0])
    log.append(records[1])
    full_disk(True)
    for record in records[2:4]:
        with pytest.raises(OSError, match="File too large") as refusal:
            log.append(record)
        assert refusal.value.errno == errno.EFBIG
        assert read_records(log.path) == records[:2]
        assert log.path.read_text().endswith("\n")
    full_disk(False)
    log.append(records[4])
    assert read_records(log.path) == records


def test_event_files_stay_readable_after_a_refusal(
    tmp_path: Path, full_disk: Callable[[bool], None]
) -> None:
    log = EventLog(tmp_path, purge_step=1)
    for step in range(1, 10):
        log.write_scalars(step, {"loss": float(step)})
    full_disk(True)
    refused = 0
    for step in range(10, 100):
        try:
            log.write_scalars(step, {f"{'x' * 100}": float(step)})
        except OSError:
            refused += 1
    assert refused > 1
    full_disk(False)
    log.write_scalars(100, {"loss": 100.0})
    log.close()
    assert [p for p in tmp_path.iterdir() if p.name.startswith("events.out.tfevents.")]


# Numbers that are none


def test_a_nan_in_a_batch_is_named_and_the_last_good_state_kept(
    undisturbed: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(undisturbed, out=tmp_path / "run", checkpoint_every=2)
    shard, labels = loop.shard_batch, []

    def shard_with_a_white_image(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict:
        labels.append(batch["label"])
        if len(labels) == 6:
            batch["image"][3] = 255
        return shard(batch, mesh)

    def normalize_white_to_nan(images: jax.Array, **options: Any) -> jax.Array:
        is_white = jnp.all(images == 255, axis=(1, 2, 3), keepdims=True)
        return jnp.where(is_white, jnp.nan, normalize_pixels(images, **options))

    monkeypatch.setattr(loop, "shard_batch", shard_with_a_white_image)
    monkeypatch.setattr(step_module, "normalize_pixels", normalize_white_to_nan)
    with pytest.raises(NonFiniteLossError) as stopped:
        train(config, console=quiet())
    message = str(stopped.value)
    assert message.startswith("step 6: loss nan, gradient norm nan, in examples 40 to 47, whose ")
    assert "the checkpoint of step 4 is kept" in message
    assert stopped.value.step == 6
    suspects = json.loads((config.out / "suspects.json").read_text())
    assert [suspect["example"] for suspect in suspects["examples"]] == list(range(40, 48))
    source, _ = loop.open_training_data(config)
    images = {source.describe(index): source[index] for index in range(len(source))}
    named = [images[suspect["image"]]["label"] for suspect in suspects["examples"]]
    assert named == labels[5].tolist()
    assert load_run(config.out).step == 4
    monkeypatch.undo()
    train(config, console=quiet())
    ends = [restore(each)[0] for each in (config, undisturbed)]
    # Not to the bit: another program, with NaN in it, took the first steps.
    chex.assert_trees_all_close(*ends, rtol=1e-4, atol=1e-6)


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    """The update of step 8 overflows, and no loss has shown it when step 8 is to be saved."""
    config = tiny_config(tmp_path / "run")
    explode = optax.chain(
        make_optimizer(config.optimizer, config.steps),
        optax.scale_by_schedule(lambda step: jnp.where(step >= 7, jnp.inf, 1.0)),
    )
    with pytest.raises(
        NonFiniteLossError,
        match=r"step 8: \w+ are NaN or infinite, in examples 56 to 63, .* step 4 is kept",
    ):
        train(config, tx=explode, console=quiet())
    assert load_run(config.out).step == 4


# Signals


def test_a_signal_cuts_a_score_short_and_the_resumed_run_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = tiny_config(
        tmp_path / "a",
        val=ValConfig(fraction=0.5, every=6, pairs=20),
        data=dataclasses.replace(tiny_config(Path()).data, synthetic_identities=50),
    )
    train(undisturbed, console=quiet())
    config = dataclasses.replace(undisturbed, out=tmp_path / "b")
    score = Validator.score

    def score_while_terminated(self: Validator, state: TrainState, **options: object) -> dict:
        os.kill(os.getpid(), signal.SIGTERM)
        return score(self, state, **options)

    monkeypatch.setattr(Validator, "score", score_while_terminated)
    with pytest.raises(Interrupted):
        train(config, console=quiet())
    assert read_records(config.out / "validation.jsonl") == []
    monkeypatch.undo()
    console = quiet()
    train(config, console=console)
    assert "Resuming from step 6" in console.file.getvalue()
    scores = [read_records(out / "validation.jsonl") for out in (config.out, undisturbed.out)]
    assert scores[0] == scores[1]
    assert [record["step"] for record in scores[0]] == [6, 12]
