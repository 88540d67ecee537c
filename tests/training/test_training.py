"""A run: what it leaves behind, how it resumes, what it refuses, and that a step compiles once."""

import dataclasses
import json
import math
import os
import signal
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from faces_on_disk import make_folder
from rich.console import Console
from tiny_run import quiet, tiny_config

from sphereface_jax import LOSSES, sphereface2_bias_init
from sphereface_jax._console import warn
from sphereface_jax.data.files import read_records, write_json
from sphereface_jax.training.config import (
    LossConfig,
    OptimizerConfig,
    TrainConfig,
    ValConfig,
    to_dict,
)
from sphereface_jax.training.loop import Interrupted, train
from sphereface_jax.training.metrics import Reporter
from sphereface_jax.training.optimizer import make_optimizer
from sphereface_jax.training.run_folder import RunFolder, load_run, read_config, start_from
from sphereface_jax.training.state import NonFiniteLossError
from sphereface_jax.training.step import compile_train_step, make_train_step
from sphereface_jax.training.trainer import make_trainer


class Numbers:
    """A metric writer that keeps what it is given."""

    def __init__(self) -> None:
        self.written: list[tuple[int, dict[str, float]]] = []

    def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
        self.written.append((step, dict(scalars)))


class Offline:
    def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
        raise ConnectionError("no route to host")


def said(console: Console) -> str:
    return console.file.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    config = tiny_config(
        tmp_path_factory.mktemp("runs") / "finished",
        val=ValConfig(fraction=0.5, every=6, pairs=20),
        optimizer=OptimizerConfig(learning_rate=0.02, ema_decay=0.5),
        data=dataclasses.replace(tiny_config(Path()).data, synthetic_identities=50),
    )
    train(config, console=quiet())
    return config


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_records(run / "metrics.jsonl")]


def test_what_a_run_leaves_behind(finished: TrainConfig) -> None:
    records = read_records(finished.out / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(1, 13))
    assert set(records[0]) == {
        "step",
        "loss",
        "annealing_lambda",
        "accuracy",
        "target_angle",
        "embedding_norm",
        "learning_rate",
        "gradient_norm",
        "images_per_second",
        "input_wait_share",
    }
    assert records[0]["annealing_lambda"] == pytest.approx(892.857, abs=1e-3)
    assert records[-1] == json.loads((finished.out / "result.json").read_text())
    scores = read_records(finished.out / "validation.jsonl")
    assert [score["step"] for score in scores] == [6, 12]
    assert 0 <= scores[-1]["accuracy_10_fold"] <= 1
    assert list((finished.out / "tensorboard").glob("events.out.tfevents.*"))
    saved = load_run(finished.out)
    assert (saved.step, saved.num_classes, saved.prototypes.shape) == (12, 25, (256, 8))


def test_a_finished_run_says_so_and_keeps_its_files(finished: TrainConfig) -> None:
    before = (finished.out / "metrics.jsonl").read_bytes()
    console = quiet()
    record = train(finished, console=console)
    assert record["step"] == 12
    assert "finished at step 12" in said(console)
    assert (finished.out / "metrics.jsonl").read_bytes() == before


def test_another_config_into_the_same_folder_is_refused(finished: TrainConfig) -> None:
    other = dataclasses.replace(finished, seed=5, loss=LossConfig(margin=3))
    with pytest.raises(
        ValueError, match=r"another config \(loss.margin: None -> 3; seed: 0 -> 5\)"
    ):
        train(other, console=quiet())


def test_another_config_may_take_over_a_run_that_has_no_checkpoint(tmp_path: Path) -> None:
    faces = make_folder(tmp_path / "faces", {"ann": 4, "bob": 4})
    config = tiny_config(tmp_path / "run", steps=2)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, train=str(faces)))
    with pytest.raises(ValueError, match=r"found 112x112; align .* --data.resize"):
        train(config, console=quiet())
    mended = dataclasses.replace(config, data=dataclasses.replace(config.data, resize=True))
    assert train(mended, console=quiet())["step"] == 2
    assert read_config(config.out).data.resize


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="got other files"):
        train(tiny_config(tmp_path), console=quiet())
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_bad_data_leaves_nothing_behind(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, train="no/where"))
    with pytest.raises(FileNotFoundError, match="no/where"):
        train(config, console=quiet())
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", steps=1)
    train(config, console=quiet())
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, embedding_dim=16))
    write_json(config.out / "config.json", to_dict(other))
    with pytest.raises(
        ValueError, match=r"run: expected .* -> 16 at .*, got .* -> 8 at "
    ) as caught:
        load_run(config.out)
    assert "\n" not in str(caught.value)


def test_a_second_process_in_the_folder_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run")
    with (
        RunFolder(config),
        pytest.raises(ValueError, match="another process trains"),
    ):
        train(config, console=quiet())


def test_a_torn_last_line_is_left_out_and_cut(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run")
    with RunFolder(config) as run:
        run.metrics.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
        assert len(read_records(run.metrics)) == 3
        run.cut_back(2)
        assert run.metrics.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_run_killed_before_its_result_was_written_writes_it(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", steps=4)
    record = train(config, console=quiet())
    (config.out / "result.json").unlink()
    assert train(config, console=quiet()) == record
    assert json.loads((config.out / "result.json").read_text()) == record


def test_unreadable_images_are_replaced_and_counted(tmp_path: Path) -> None:
    people = make_folder(tmp_path / "people", {"Ann": 4, "Bob": 4})
    (people / "Bob" / "0000.png").write_bytes(b"")
    config = tiny_config(tmp_path / "run", steps=4)
    data = dataclasses.replace(config.data, train=str(people), resize=True)
    with pytest.raises(ValueError, match=r"Bob.0000\.png"):
        train(dataclasses.replace(config, data=data), console=quiet())
    skipping = dataclasses.replace(data, on_error="skip")
    console = quiet()
    train(dataclasses.replace(config, out=tmp_path / "skips", data=skipping), console=console)
    assert "unreadable images were replaced" in said(console)


def test_nan_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run")
    explode = optax.chain(
        make_optimizer(config.optimizer, config.steps),
        optax.scale_by_schedule(lambda step: jnp.where(step >= 6, jnp.inf, 1.0)),
    )
    with pytest.raises(NonFiniteLossError, match=r"step 8: loss nan.*checkpoint of step 4 is kept"):
        train(config, tx=explode, console=quiet())
    assert load_run(config.out).step == 4
    assert all(math.isfinite(loss) for loss in losses(config.out))


@pytest.mark.parametrize(
    ("people", "sample_rate", "chance"), [(6, 1.0, "ln 6 = 1.792"), (200, 0.1, "ln 20 = 2.996")]
)
def test_chance_loss_at_the_floor_of_lambda_warns_once(
    tmp_path: Path, people: int, sample_rate: float, chance: str
) -> None:
    config = tiny_config(
        tmp_path / "run",
        loss=LossConfig(lambda_base=1.0, sample_rate=sample_rate),
        optimizer=OptimizerConfig(learning_rate=1e-9),
        data=dataclasses.replace(tiny_config(Path()).data, synthetic_identities=people),
    )
    console = quiet()
    train(config, console=console)
    assert said(console).count(f"is still that of guessing ({chance})") == 1
    assert "--loss.lambda-gamma" in said(console)


def test_brackets_in_what_is_said_are_no_markup() -> None:
    console = quiet()
    warn(console, "runs/[red]: [/x] refused")
    assert said(console) == "warning: runs/[red]: [/x] refused\n"


def test_sigterm_saves_and_the_run_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, stopped = tiny_config(tmp_path / "a"), tiny_config(tmp_path / "b")
    train(undisturbed, console=quiet())
    append = Reporter.metrics

    def terminate_at_step_6(self, record):
        append(self, record)
        if record["step"] == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Reporter, "metrics", terminate_at_step_6)
    with pytest.raises(Interrupted) as caught:
        train(stopped, console=quiet())
    assert caught.value.code == 128 + signal.SIGTERM
    assert load_run(stopped.out).step == 7
    monkeypatch.undo()
    console = quiet()
    train(stopped, console=console)
    assert "Resuming from step 7" in said(console)
    assert losses(stopped.out) == losses(undisturbed.out)
    assert_same_weights(stopped.out, undisturbed.out)


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = load_run(first), load_run(second)
    for name in ("params", "prototypes"):
        chex.assert_trees_all_equal(getattr(ours, name), getattr(theirs, name))


def test_init_from_takes_the_weights(finished: TrainConfig, tmp_path: Path) -> None:
    old = load_run(finished.out)
    same = dataclasses.replace(
        finished, out=tmp_path / "same", init_from=finished.out, steps=1, val=finished.val
    )
    theirs = {"num_classes": 25, "identities": old.identities}
    fresh = make_trainer(same, 25).init()
    state, line = start_from(fresh, same, theirs)
    chex.assert_trees_all_equal(state.params, old.params)
    np.testing.assert_array_equal(state.prototypes, old.prototypes)
    assert "with its prototypes too, of the same identities." in line
    for others, said in (
        ({"num_classes": 25, "identities": "x"}, "the 25 identities are not those that it learnt"),
        ({"num_classes": 30, "identities": "x"}, "new prototypes for 30 classes in place of 25"),
    ):
        state, line = start_from(fresh, same, others)
        np.testing.assert_array_equal(state.prototypes, fresh.prototypes)
        assert said in line
    centres = dataclasses.replace(fresh, prototypes=fresh.prototypes[:, None])
    state, line = start_from(centres, same, theirs)
    assert state.prototypes is centres.prototypes
    assert "takes others than" in line
    record = train(same, console=quiet())
    assert record["step"] == 1


def test_init_from_another_network_is_refused(finished: TrainConfig, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", init_from=finished.out)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, embedding_dim=9))
    with pytest.raises(ValueError, match=r"expected weights of spherenet4 .* -> 9"):
        start_from(make_trainer(config, 6).init(), config, {"num_classes": 6})


def batch_of(config: TrainConfig, seed: int) -> dict[str, jax.Array]:
    key = jax.random.key(seed)
    shape = (config.batch_size, *config.data.image_size, 3)
    return {
        "image": jax.random.randint(key, shape, 0, 256).astype(jnp.uint8),
        "label": jax.random.randint(key, shape[:1], 0, 6),
    }


def test_a_step_compiles_once_and_never_moves_the_padding(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    trainer = make_trainer(config, 6)
    step = make_train_step(
        trainer.graph, trainer.objective, make_optimizer(config.optimizer, config.steps)
    )
    compiled = compile_train_step(
        chex.assert_max_traces(step, n=1),
        jax.tree.map(lambda leaf: leaf.sharding, trainer.like),
        trainer.mesh,
    )
    state = trainer.init()
    start = np.asarray(state.prototypes)
    for seed in range(3):
        state, metrics = compiled(state, batch_of(config, seed))
    chex.assert_tree_all_finite(metrics)
    assert int(state.step) == 3
    assert np.all(np.asarray(state.prototypes[6:]) == 0)
    assert np.all(np.any(np.asarray(state.prototypes[:6] != start[:6]), axis=1))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_trains_by_name(tmp_path: Path, name: str) -> None:
    config = tiny_config(tmp_path, loss=LossConfig(name=name))
    trainer = make_trainer(config, 6, class_counts=np.arange(6))
    batch = jax.eval_shape(lambda: batch_of(config, 0))
    state, metrics = jax.eval_shape(trainer.step, trainer.like, batch)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, trainer.like)
    chex.assert_shape(list(metrics.values()), ())
    assert ("annealing_lambda" in LOSSES[name].hyperparameters) == (
        trainer.objective.annealing_lambda(0) is not None
    )


def test_sphereface2_learns_its_bias(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, loss=LossConfig(name="sphereface2"))
    trainer = make_trainer(config, 6)
    state = trainer.init()
    start = float(state.loss_state)
    state, _ = trainer.step(state, batch_of(config, 0))
    assert start == pytest.approx(float(sphereface2_bias_init(6)), rel=1e-6)
    assert float(state.loss_state) != start


def test_caffe_gradient_keeps_prototypes_on_the_sphere(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, loss=LossConfig(gradient="caffe"))
    trainer = make_trainer(config, 6)
    state, _ = trainer.step(trainer.init(), batch_of(config, 0))
    lengths = np.linalg.norm(state.prototypes, axis=1)
    np.testing.assert_allclose(lengths[:6], 1, rtol=1e-5)
    np.testing.assert_array_equal(lengths[6:], 0)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (LossConfig(name="archface"), r"loss.name: expected one of .*, got 'archface'"),
        (LossConfig(name="softmax", scale=3.0), "loss.scale: softmax takes no scale"),
        (LossConfig(options={"beyond": "keep"}), "loss.beyond: sphereface takes no beyond"),
        (LossConfig(margin=1.5), "margin: expected an integer"),
        (LossConfig(name="arcface", gradient="caffe"), "gradient: expected"),
        (LossConfig(name="arcface", margin=28), "loss.margin: expected .* radians.* 28 degrees"),
        (LossConfig(name="combined_margin", options={"m2": "4"}), "loss.m2: expected an angle"),
        (LossConfig(name="sphereface2", margin=30, options={"variant": "A"}), "are 0.5236"),
    ],
)
def test_a_loss_that_cannot_be_is_named(tmp_path: Path, loss: LossConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(tiny_config(tmp_path, loss=loss), 6)


@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_clip_norm_bounds_the_update(tmp_path: Path, clip_norm: float | None) -> None:
    config, tx = tiny_config(tmp_path), optax.sgd(1.0)
    trainer = make_trainer(config, 6, tx=tx)
    step = make_train_step(trainer.graph, trainer.objective, tx, clip_norm=clip_norm)
    state = trainer.init()
    new, metrics = jax.jit(step)(state, batch_of(config, 0))
    moved = jax.tree.map(
        jnp.subtract, (new.params, new.prototypes), (state.params, state.prototypes)
    )
    expected = float(metrics["gradient_norm"]) if clip_norm is None else clip_norm
    assert float(optax.tree.norm(moved)) == pytest.approx(expected, rel=1e-3)


def test_metric_writers_get_what_the_files_hold(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "run",
        val=ValConfig(fraction=0.5, every=6, pairs=20),
        data=dataclasses.replace(tiny_config(Path()).data, synthetic_identities=50),
    )
    numbers, console = Numbers(), quiet()
    result = train(config, console=console, writers=[Offline(), numbers])
    training = [r for r in numbers.written if "train/loss" in r[1]]
    stored = read_records(RunFolder(config).metrics)
    assert [step for step, _ in training] == [record["step"] for record in stored]
    assert training[-1][1]["train/loss"] == stored[-1]["loss"]
    assert {"validation/accuracy_10_fold"} <= {name for _, r in numbers.written for name in r}
    assert said(console).count("Offline cannot be written (no route to host)") == 1
    assert result["step"] == config.steps
