"""Devices and processes change where a run happens, not what it learns."""

import dataclasses
import json
import shutil
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from command import refused
from faces_on_disk import write_image
from on_devices import run_on_devices
from on_processes import run_on_processes
from tiny_run import folder_config, quiet, tiny_config

from sphereface_jax.data.files import read_records
from sphereface_jax.data.pipeline import ShuffledOrder
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.training import distributed
from sphereface_jax.training.config import MeshConfig, ProcessConfig, TrainConfig
from sphereface_jax.training.distributed import make_mesh, state_sharding
from sphereface_jax.training.input import open_training_data
from sphereface_jax.training.loop import train
from sphereface_jax.training.trainer import make_trainer

pytestmark = pytest.mark.slow

# More than an epoch is not read ahead, however many threads read: so a file belongs to one batch.
PEOPLE, VIEWS = 16, 80


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A finished run of one device."""
    directory = tmp_path_factory.mktemp("runs")
    source = SyntheticFaces(PEOPLE, VIEWS, image_size=(24, 16))
    for index in range(len(source)):
        person, view = divmod(index, VIEWS)
        write_image(directory / f"faces/{person:02d}/{view:02d}.png", source[index]["image"])
    config = folder_config(directory / "faces", directory / "run")
    train(config, console=quiet())
    return config


def copy_of(config: TrainConfig, out: Path, *, last_checkpoint: int) -> TrainConfig:
    """A copy of a run that has come no further than a checkpoint."""
    shutil.copytree(config.out, out)
    forget_the_end(out, last_checkpoint)
    return dataclasses.replace(config, out=out)


def forget_the_end(run: Path, last_checkpoint: int) -> None:
    (run / "result.json").unlink()
    for checkpoint in (run / "checkpoints").iterdir():
        if int(checkpoint.name) > last_checkpoint:
            shutil.rmtree(checkpoint)


def assert_same_course(run: Path, other: Path) -> None:
    """Every step has the same metrics to rounding, and is logged once; so are the scores."""
    for name in ["metrics.jsonl", "validation.jsonl"]:
        ours, theirs = read_records(run / name), read_records(other / name)
        for record, expected in zip(ours, theirs, strict=True):
            for field in ["step", "loss", "gradient_norm", "auc", "accuracy_10_fold"]:
                if field in expected:
                    np.testing.assert_allclose(record[field], expected[field], rtol=2e-5)


def test_two_processes_train_as_one_and_one_goes_on(
    undisturbed: TrainConfig, tmp_path: Path
) -> None:
    faces, stop_after = undisturbed.data.train, 5
    config = dataclasses.replace(undisturbed, out=tmp_path / "run")
    printed = run_on_processes(
        2, "train_until_one_is_told_to_stop", faces, str(config.out), stop_after
    )
    # Gloo speaks to stdout too.
    results = [json.loads(output.splitlines()[-1]) for output in printed]
    assert [result["code"] for result in results] == [128 + 15] * 2
    newest = max(int(entry.name) for entry in (config.out / "checkpoints").iterdir())
    assert stop_after < newest < config.steps
    assert_only_own_files_were_opened(config, [set(result["opened"]) for result in results])
    train(config, console=quiet())
    assert_same_course(config.out, undisturbed.out)


def test_one_process_that_fails_alone_says_why_and_ends_all(
    undisturbed: TrainConfig, tmp_path: Path
) -> None:
    damaged = tmp_path / "faces"
    shutil.copytree(undisturbed.data.train, damaged)
    for path in damaged.rglob("*.png"):
        path.write_bytes(b"x")
    folders, codes = [undisturbed.data.train, str(damaged)], (1, 2)  # 1: lost it in a step
    printed = run_on_processes(2, "train_by_command", folders, str(tmp_path / "run"), codes=codes)
    assert [output.count("sphereface: ") for output in printed] == [1, 1]
    assert "png: not a whole image" in printed[1]


def assert_only_own_files_were_opened(config: TrainConfig, opened: list[set[str]]) -> None:
    source, held_out = open_training_data(config)
    assert held_out is not None
    order, share = ShuffledOrder(len(source), config.seed), config.batch_size // len(opened)
    for process, paths in enumerate(opened):
        own = {
            source.describe(order(example))
            for example in range(len(source))
            if example % config.batch_size // share == process
        }
        held_out_of_it = {held_out.describe(index) for index in range(len(held_out))} & paths
        assert len(paths & own) >= 7 * share
        assert paths - own == held_out_of_it
    assert len(opened[0] & opened[1]) <= 1  # the last of the held-out ones fills both shares up


def test_a_run_moves_to_eight_devices_and_back(undisturbed: TrainConfig, tmp_path: Path) -> None:
    config = copy_of(undisturbed, tmp_path / "run", last_checkpoint=4)
    run_on_devices("goes_on_with_a_run", undisturbed.data.train, str(config.out))
    assert_same_course(config.out, undisturbed.out)
    forget_the_end(config.out, 8)
    train(config, console=quiet())
    assert_same_course(config.out, undisturbed.out)


def bytes_of_a_device(trainer: Any, mesh: Any, *, shard_optimizer: bool) -> dict[str, int]:
    sharding = state_sharding(trainer.like, mesh, shard_optimizer=shard_optimizer)

    def size(leaf: jax.ShapeDtypeStruct, where: jax.sharding.NamedSharding) -> int:
        return int(np.prod(where.shard_shape(leaf.shape))) * leaf.dtype.itemsize

    sizes = jax.tree.map(size, trainer.like, sharding)
    state = {
        name: getattr(sizes, name) for name in ("params", "prototypes", "opt_state", "ema_params")
    }
    return {name: sum(jax.tree.leaves(part)) for name, part in state.items()}


def test_what_the_optimizer_keeps_can_be_cut_along_data(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    config = dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, ema_decay=0.9)
    )
    trainer = make_trainer(config, 6)
    mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"))
    whole = bytes_of_a_device(trainer, mesh, shard_optimizer=False)
    cut = bytes_of_a_device(trainer, mesh, shard_optimizer=True)
    assert whole["prototypes"] == cut["prototypes"] == 256 * 8 * 4 // 2
    assert whole["params"] == cut["params"] == whole["ema_params"]
    velocity = whole["params"] + whole["prototypes"] / 4  # along both axes, of the prototypes
    assert 0 <= whole["opt_state"] - velocity < 64  # the step counters
    assert cut["ema_params"] == whole["params"] / 4
    assert whole["opt_state"] - cut["opt_state"] == whole["params"] * 3 / 4


@pytest.mark.parametrize(
    ("mesh", "batch", "parts", "message"),
    [
        (MeshConfig(model=2), 8, 1, r"mesh: expected data × model to be .*, 1, got -1 × 2"),
        (MeshConfig(), 10, 4, r"multiple of the 1 devices × 4 parts of --accumulate, got 10;.* 8$"),
        (MeshConfig(), 2, 4, r"got 2; the nearest is 4"),
    ],
)
def test_what_cannot_be_cut_evenly_is_refused(
    mesh: MeshConfig, batch: int, parts: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_mesh(mesh, batch_size=batch, accumulate=parts)


def test_processes_with_unlike_numbers_of_devices_are_refused() -> None:
    devices = [types.SimpleNamespace(process_index=index) for index in (0, 0, 1)]
    with pytest.raises(ValueError, match=r"in each of the 2 processes, got 1 to 2"):
        make_mesh(MeshConfig(), batch_size=3, target=devices)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator=a:1"], "expected all of --coordinator, --num-processes and --process-id"),
        (["--coordinator=a", "--num-processes=2", "--process-id=0"], "expected HOST:PORT, got a"),
        (["--coordinator=a:1", "--num-processes=2", "--process-id=2"], "from 0 to 1, got 2"),
    ],
)
def test_a_process_that_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert message in refused(capsys, "train", *flags)


SLURM = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2"}


@pytest.mark.parametrize(
    ("environment", "config", "expected"),
    [
        ({}, ProcessConfig(), None),
        ({"SLURM_NTASKS": "2"}, ProcessConfig(), None),  # sbatch's own shell, outside srun
        (SLURM | {"SLURM_NTASKS": "1"}, ProcessConfig(), None),
        (SLURM, ProcessConfig(), ()),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, ProcessConfig(), ()),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ProcessConfig(), None),  # a pod, but no job
        ({"KUBERNETES_SERVICE_HOST": "h", "JOB_COMPLETION_INDEX": "0"}, ProcessConfig(), ()),
        (SLURM, ProcessConfig("a:1", 2, 1), ("a:1", 2, 1)),
    ],
)
def test_who_meets_whom(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    config: ProcessConfig,
    expected: tuple | None,
) -> None:
    calls = []
    monkeypatch.setattr(distributed.os, "environ", environment)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **_: calls.append(given))
    distributed.join_processes(config)
    assert calls == ([] if expected is None else [expected])
