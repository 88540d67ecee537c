"""A run's folder: who owns it, its config and files, and the network in it, read back again.

RUN/config.json         the config, written before the first step
RUN/metrics.jsonl       one object per logged step
RUN/validation.jsonl    one object per score on held-out identities
RUN/checkpoints/        of Orbax
RUN/tensorboard/        event files
RUN/passed_over.tsv     what lies among the images and is not used, and why, if anything
RUN/evaluations/        what `sphereface evaluate` measured
RUN/MODEL_CARD.md       what the run knows about itself
RUN/result.json         the last step's metrics; its presence says that the run is finished
"""

import dataclasses
import fcntl
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from sphereface_jax.compilation import run_arithmetic
from sphereface_jax.data.files import read_json, read_records, write_atomically, write_json
from sphereface_jax.data.source import FaceSource, fingerprint
from sphereface_jax.data.transforms import PerChannel
from sphereface_jax.training.checkpoint import Checkpoints
from sphereface_jax.training.config import TrainConfig, from_dict, resume_conflicts, to_dict
from sphereface_jax.training.distributed import is_main
from sphereface_jax.training.objective import restored_objective
from sphereface_jax.training.state import TrainState, abstract
from sphereface_jax.training.trainer import state_shapes

logger = logging.getLogger(__name__)


def read_config(run: Path) -> TrainConfig:
    """Reads the config of a run.

    Raises:
      FileNotFoundError: the folder holds no run.
    """
    path = run / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{run}: expected a run's folder with config.json in it; "
            "`sphereface train --out DIR` makes one"
        )
    return from_dict(TrainConfig, read_json(path), where=str(path))


class RunFolder:
    """A run's folder, held by one run at a time for as long as the context lasts.

    Of several processes that train together, the main one holds the folder and writes.

    The lock is the kernel's (flock), so that a killed process never leaves it behind. Some network
    file systems have none; there the run starts all the same.

    Args:
      config: of the run.
      warn: told in one line that there is no lock.

    Raises:
      ValueError: another process trains there, or the folder holds a run of another config.
    """

    def __init__(self, config: TrainConfig, *, warn: Callable[[str], None] = logger.warning):
        self._warn = warn
        self.path = Path(config.out).expanduser()
        self.config = config
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.validation = self.path / "validation.jsonl"
        self.result = self.path / "result.json"

    def check(self) -> None:
        """Refuses a folder of something else or of another config; nothing is written.

        Raises:
          ValueError: it is such a folder.
        """
        self._refuse_foreign_folder()
        self._refuse_another_config()

    def __enter__(self) -> Self:
        self.check()
        if not is_main():
            return self
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / ".lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ValueError(
                f"{self.path}: another process trains in this folder; "
                "wait for it, or give another --out"
            ) from error
        except OSError as error:
            self._warn(
                f"{self.path}: files cannot be locked here ({error.strerror}); a second run in "
                "this folder will not be noticed"
            )
        self._refuse_another_config()
        write_json(self.path / "config.json", to_dict(self.config))
        for left in self.path.glob(".*.tmp"):  # by a process that was killed while writing
            left.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        if is_main():
            self._lock.close()

    def _refuse_foreign_folder(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: expected a folder for --out, got a file")
        known = {"config.json", ".lock"}
        if self.path.is_dir():
            names = {entry.name for entry in self.path.iterdir()}
            if names and not names & known:
                raise ValueError(
                    f"{self.path}: expected an empty folder or a run for --out, got other files "
                    f"({sorted(names)[0]}); give another --out"
                )

    @property
    def is_begun(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "config.json").is_file()

    @property
    def _has_checkpoint(self) -> bool:
        return any(entry.name.isdigit() for entry in self.checkpoints.glob("*"))

    def _refuse_another_config(self) -> None:
        # A run that stopped before its first checkpoint learnt nothing that could be mixed up.
        if not (self.is_begun and self._has_checkpoint):
            return
        changed = resume_conflicts(self.config, read_config(self.path))
        if changed:
            raise ValueError(
                f"{self.path}: this folder holds a run of another config ({'; '.join(changed)}); "
                "give another --out, or the options of that run to go on with it"
            )

    def cut_back(self, last_step: int) -> None:
        """Drops what was logged after the step that training resumes from."""
        if not is_main():
            return
        for path in (self.metrics, self.validation):
            if path.is_file():
                kept = [record for record in read_records(path) if record["step"] <= last_step]
                write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))


@dataclass(frozen=True)
class SavedRun:
    """The newest weights of a run.

    Attributes:
      path: the run's folder.
      config: its config.
      step: updates done.
      num_classes: identities it learnt; 0 for a network imported without its class weights.
      graph: the network's static part.
      params: its weights; the moving average where the run kept one.
      model_state: its other variables.
      prototypes: [C rounded up to a multiple of 256, D].
      identities: a digest of their names, by `describe_run`; None where nobody knows them.
    """

    path: Path
    config: TrainConfig
    step: int
    num_classes: int
    graph: nnx.GraphDef
    params: nnx.State
    model_state: nnx.State
    prototypes: jax.Array
    identities: str | None = None


@run_arithmetic()
def load_run(path: Path) -> SavedRun:
    """Reads the newest whole checkpoint of a run, on whatever devices there are.

    Raises:
      FileNotFoundError: the folder holds no run, or the run has no checkpoint yet.
      ValueError: config.json is damaged, or every checkpoint is.
    """
    config = read_config(path)
    with Checkpoints(path / "checkpoints") as checkpoints:
        progress = checkpoints.progress()
        check_checkpoint(progress, path, config)
        num_classes = progress["num_classes"]
        # An imported network may know no classes; its prototypes are padding alone.
        objective = restored_objective(config.loss, max(num_classes, 1))
        graph, shapes = state_shapes(config, objective, optax.identity())
        everywhere = NamedSharding(jax.make_mesh((jax.device_count(),), ("data",)), PartitionSpec())
        like = abstract(shapes, jax.tree.map(lambda _: everywhere, shapes))
        step, weights = checkpoints.restore_weights(like)
    averaged = weights["ema_params"]
    return SavedRun(
        path=path,
        config=config,
        step=step,
        num_classes=num_classes,
        graph=graph,
        params=weights["params"] if averaged is None else averaged,
        model_state=weights["model_state"],
        prototypes=weights["prototypes"],
        identities=progress.get("identities"),
    )


def describe_run(config: TrainConfig, source: FaceSource) -> dict[str, Any]:
    """What a checkpoint holds beside the state, to know what it belongs to.

    Args:
      config: of the run.
      source: the faces that it learns from.

    Returns:
      JSON's values by name, the config among them.
    """
    names = json.dumps([str(name) for name in source.identities]).encode()
    return {
        "num_classes": len(source.identities),
        "identities": hashlib.sha256(names).hexdigest(),
        "num_images": len(source),
        "data": fingerprint(source),
        "config": to_dict(config),
    }


def check_checkpoint(
    progress: dict[str, Any],
    run: Path,
    config: TrainConfig,
    description: dict[str, Any] | None = None,
) -> None:
    """Refuses a checkpoint of another network, or of other data, before it is restored.

    Args:
      progress: what was saved beside the state.
      run: the run's folder.
      config: of the run.
      description: of the run that is to go on, by `describe_run`; None where its data do not
        matter.

    Raises:
      ValueError: the checkpoint does not belong to the config, or to these data.
    """
    saved = from_dict(TrainConfig, progress["config"], where=f"{run / 'checkpoints'}")
    if _network(saved) != _network(config):
        raise ValueError(
            f"{run}: expected a checkpoint of {_network(config)}, as config.json says, got one of "
            f"{_network(saved)}; put back the config.json and checkpoints that belong together"
        )
    if description is None:
        return
    # Checkpoints of 0.1 know less of their data: not the images, or not even the people's names.
    theirs = description | progress
    changed = {name for name, value in description.items() if theirs[name] != value}
    for number, key, what in (
        ("num_classes", "identities", "identities"),
        ("num_images", "data", "images"),
    ):
        if not changed & {number, key}:
            continue
        got = f"{description[number]:,}" if number in changed else _AS_MANY[key]
        raise ValueError(
            f"{config.data.train}: expected the {theirs[number]:,} {what} that {run} learns "
            f"from, got {got}; put the data back, or go on in another --out with --init-from {run}"
        )


_AS_MANY = {
    "identities": "as many with other names",
    "data": "as many with other names, labels or sizes",
}


def check_start(config: TrainConfig) -> None:
    """Refuses to start from a run that cannot be started from, before anything is written.

    Raises:
      FileNotFoundError: `config.init_from` is not a run, or has no checkpoint.
      ValueError: its network is another one, or learnt from pixels prepared in another way.
    """
    assert config.init_from is not None
    other = read_config(config.init_from)
    if _network(other) != _network(config):
        raise ValueError(
            f"{config.init_from}: expected weights of {_network(config)}, got {_network(other)}; "
            "give this run the same --model.* and --data.image-size"
        )
    ours, theirs = _preprocessing(config), _preprocessing(other)
    if ours != theirs:
        raise ValueError(
            f"{config.init_from}: expected weights learnt with {ours}, got weights learnt with "
            f"{theirs}; give this run the latter"
        )
    with Checkpoints(config.init_from / "checkpoints") as checkpoints:
        checkpoints.progress()


@run_arithmetic()
def start_from(
    state: TrainState, config: TrainConfig, description: dict[str, Any]
) -> tuple[TrainState, str]:
    """Puts the weights of `config.init_from` into a fresh state.

    The prototypes come along where they are of the same identities, or of as many where the weights
    were imported and nobody knows of whom; else they stay as they were initialised.

    Args:
      state: the fresh state.
      config: of the new run.
      description: of the new run, by `describe_run`.

    Returns:
      The state, and a line on what it took.

    Raises:
      FileNotFoundError: as `check_start`.
      ValueError: as `check_start`.
    """
    assert config.init_from is not None
    check_start(config)
    saved = load_run(config.init_from)
    taken: dict[str, Any] = {"params": saved.params, "model_state": saved.model_state}
    if state.ema_params is not None:
        taken["ema_params"] = saved.params
    count = description["num_classes"]
    if saved.num_classes != count:
        said = f"new prototypes for {count} classes in place of {saved.num_classes}"
    elif saved.prototypes.shape != state.prototypes.shape:
        said = f"new prototypes, for {config.loss.name} takes others than {saved.config.loss.name}"
    elif saved.identities not in (description["identities"], None):
        said = f"new prototypes, for the {count} identities are not those that it learnt"
    else:
        taken["prototypes"] = saved.prototypes
        whose = "of the same identities" if saved.identities else f"of as many identities, {count}"
        said = f"its prototypes too, {whose}"

    def place(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.copy(jax.device_put(new, old.sharding))

    placed = {
        name: jax.tree.map(place, weights, getattr(state, name)) for name, weights in taken.items()
    }
    line = f"Starting from the weights of {saved.path} (step {saved.step}), with {said}."
    return dataclasses.replace(state, **placed), line


def _preprocessing(config: TrainConfig) -> str:
    """The options that say how pixels are prepared; the mean only where it is an unusual one."""
    data = config.data

    def numbers(value: PerChannel) -> str:
        return " ".join(f"{number:g}" for number in np.ravel(value))

    mean = "" if data.pixel_mean == 127.5 else f" --data.pixel-mean {numbers(data.pixel_mean)}"
    divisor = f" --data.pixel-divisor {numbers(data.pixel_divisor)}"
    return f"--data.color-order {data.color_order}{mean}{divisor}"


def _network(config: TrainConfig) -> str:
    model = config.model
    height, width = config.data.image_size
    folded = " with its normalisations folded" if model.folded else ""
    return f"{model.name}{folded} {model.channels} -> {model.embedding_dim} at {height}×{width}"
