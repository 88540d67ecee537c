"""What a training run is: one frozen dataclass, saved in the run's folder as config.json.

Every default is the authors' (facts in the docstrings of the fields); a departure is a named
option. The command line is generated from these classes, so a field's docstring is its help.
"""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar


@dataclass(frozen=True)
class DataConfig:
    """Where the faces come from and what happens to them before the network."""

    train: str = "synthetic"
    """A folder of identities (DIR/<identity>/*.jpg), an archive of one, a RecordIO set, a list
    file, a TFDS data set by name or folder, or "synthetic"."""
    split: str = "train"
    """Of a TFDS data set."""
    data_dir: str | None = None
    """Where TFDS data sets lie; TFDS's own folder by default."""
    root: str | None = None
    """The folder that the paths of a list file start from; the list's own by default."""
    exclude: tuple[str, ...] = ()
    """Names of identities to leave out, such as those of the evaluation set."""
    license: str = ""
    """Licence or terms of the faces, for the model card."""
    image_size: tuple[int, int] = (112, 96)
    """Height and width that the network sees; 112×112 images are cropped to 112×96."""
    color_order: Literal["bgr", "rgb"] = "bgr"
    """Order of the colour channels that the network sees; the authors' is bgr."""
    pixel_divisor: float = 128.0
    """Pixels become (x − 127.5) / divisor; the authors' is 128, InsightFace's 127.5."""
    resize: bool = False
    """Scale faces of another size instead of refusing them; no substitute for alignment."""
    mirror: float = 0.5
    """Probability of mirroring; the authors' one augmentation."""
    shift: int = 0
    """Shift each image by up to so many pixels both ways."""
    crop: float = 0.0
    """Probability of cutting a part out and scaling it up."""
    low_resolution: float = 0.0
    """Probability of shrinking and scaling back up."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    photometric: float = 0.0
    """Probability of changing brightness, contrast and saturation."""
    cutout: float = 0.0
    """Probability of painting a rectangle grey."""
    on_error: Literal["raise", "skip"] = "raise"
    """An unreadable image stops the run, or is replaced by its neighbour and counted."""
    synthetic_identities: int = 1000
    """How many people "synthetic" holds."""
    synthetic_views: int = 50
    """How many images of each person "synthetic" holds."""


@dataclass(frozen=True)
class ModelConfig:
    """The backbone."""

    name: str = "spherenet20"
    """Any network of sphereface_jax.models.MODELS, such as spherenet4, sfnet20_bn, iresnet50."""
    embedding_dim: int = 512
    """Length of an embedding."""
    channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Channels of the four stages; the paper's by default."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the network's computation; parameters, head and loss stay float32."""


@dataclass(frozen=True)
class LossConfig:
    """The loss. A hyper-parameter left out takes the default of the loss itself."""

    name: str = "sphereface"
    """Any loss of sphereface_jax.losses.LOSSES."""
    margin: float | None = None
    """Margin m; a whole number for sphereface, in radians where it is an angle (arcface)."""
    scale: float | None = None
    """Scale s, for the losses that normalise the embeddings."""
    gradient: Literal["exact", "detached", "caffe"] = "exact"
    """Of the margin: autodiff's, the plain cosine's, or that of the authors' Caffe layer."""
    class_block: int | None = None
    """Look at so many classes at a time, 4096 say, where there is no memory for all logits."""
    sample_rate: float = 1.0
    """Compare with a random share of the other classes each step (PartialFC); 1: with all."""
    options: dict[str, str] = field(default_factory=dict)
    """Further hyper-parameters of the loss, as NAME VALUE pairs; the docs list them."""
    lambda_base: float = 1000.0
    """λ at the start, for the losses that anneal it."""
    lambda_gamma: float = 0.12
    """How fast λ falls: λ = base · (1 + γ · iteration)^-power."""
    lambda_power: float = 1.0
    """The power of λ's fall."""
    lambda_minimum: float = 5.0
    """The floor of λ."""


@dataclass(frozen=True)
class OptimizerConfig:
    """SGD as the authors ran it, unless told otherwise."""

    name: str = "sgd"
    """sgd, or one of optax: adam, adamw, adabelief, lamb, lars, lion, rmsprop."""
    learning_rate: float = 0.1
    """The highest learning rate; biases learn at twice the rate."""
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 5e-4
    """On every weight, PReLU slopes and prototypes too; not on biases."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """step: tenfold drops at the milestones."""
    milestones: tuple[float, ...] = (4 / 7, 6 / 7)
    """Where the step schedule drops, as shares of all steps (16k and 24k of 28k)."""
    warmup_steps: int = 0
    """Steps over which the rate rises linearly from zero."""
    clip_norm: float | None = None
    """Clip the gradient to this global norm."""
    ema_decay: float = 0.0
    """Keep a moving average of the weights with this decay and evaluate that; 0 keeps none."""


@dataclass(frozen=True)
class ValConfig:
    """Verification on identities that are held out of training."""

    fraction: float = 0.0
    """Share of the identities held out whole; choose hyper-parameters on these, never on LFW."""
    every: int = 1000
    """Steps between two scores."""
    pairs: int = 3000
    """Pairs drawn, half of them of the same person."""


@dataclass(frozen=True)
class MeshConfig:
    """How the devices are laid out."""

    data: int = -1
    """Devices along the batch; -1 takes all that are left."""
    model: int = 1
    """Devices over which the prototypes are sharded."""
    shard_optimizer: bool = False
    """Share what the optimiser keeps for the network's weights, and their moving average, out
    along data, instead of a copy on every device (ZeRO-1)."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    out: Path = Path("runs/train")
    """The run's folder; the same command again resumes what is there."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    val: ValConfig = field(default_factory=ValConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    steps: int = 28_000
    """Updates in all."""
    batch_size: int = 256
    """Images an update, over all devices."""
    accumulate: int = 1
    """Take each batch in so many parts, one after another, in the memory of one part (but on a CPU,
    where all the parts are held)."""
    seed: int = 0
    """Of the weights, the order of examples, the augmentation and the held-out identities."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    checkpoint_every: int = 200
    """Steps between two checkpoints."""
    keep_checkpoints: int = 3
    """How many checkpoints stay on disk."""
    init_from: Path | None = None
    """Start from the weights of this run."""

    def __post_init__(self) -> None:
        positive = ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every")
        for name in (*positive, "keep_checkpoints"):
            _require(getattr(self, name) > 0, name, "a positive number", getattr(self, name))
        fraction = self.val.fraction
        _require(0 <= fraction < 1, "val.fraction", "a share in [0, 1)", fraction)
        _require(self.val.every > 0, "val.every", "a positive number", self.val.every)
        _require(self.val.pairs > 0, "val.pairs", "a positive number", self.val.pairs)
        block, share = self.loss.class_block, self.loss.sample_rate
        _require(block is None or block > 0, "loss.class_block", "a positive number", block)
        _require(0 < share <= 1, "loss.sample_rate", "a share in (0, 1]", share)
        divisor = self.data.pixel_divisor
        _require(divisor > 0, "data.pixel_divisor", "a positive number", divisor)
        rate = self.optimizer.learning_rate
        _require(rate > 0, "optimizer.learning_rate", "a positive number", rate)
        decay = self.optimizer.ema_decay
        _require(0 <= decay < 1, "optimizer.ema_decay", "a decay in [0, 1)", decay)


@dataclass(frozen=True)
class ProcessConfig:
    """This process among those that train together.

    Nothing need be given on one host, nor where SLURM, Open MPI or a Kubernetes job started it.
    """

    coordinator: str | None = None
    """HOST:PORT of process 0; any port that is free there."""
    num_processes: int | None = None
    """How many processes train together."""
    process_id: int | None = None
    """Which of them this is, from 0."""

    def __post_init__(self) -> None:
        address, count, index = self.coordinator, self.num_processes, self.process_id
        if address is None and count is None and index is None:
            return
        if address is None or count is None or index is None:
            raise ValueError(
                "processes: expected all of --coordinator, --num-processes and --process-id or "
                f"none, got {address}, {count} and {index}"
            )
        host, _, port = address.rpartition(":")
        _require(bool(host) and port.isdecimal(), "coordinator", "HOST:PORT", address)
        _require(count > 0, "num_processes", "a positive number", count)
        _require(0 <= index < count, "process_id", f"a number from 0 to {count - 1}", index)


def _require(condition: bool, name: str, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {got}")


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a config as the nested dictionary that config.json holds."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


Config = TypeVar("Config")


def from_dict(cls: type[Config], values: dict[str, Any], *, where: str = "config.json") -> Config:
    """Builds a config from the dictionary of `to_dict`.

    Raises:
      ValueError: a field is unknown, which happens when the file is from another version.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(
            f"{where}: unknown field {unknown[0]!r}; was it written by a newer version?"
        )
    return cls(**{name: _decode(hints[name], value, where) for name, value in values.items()})


def _decode(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where=where)
    if isinstance(hint, types.UnionType):
        hint = next(arm for arm in typing.get_args(hint) if arm is not types.NoneType)
    if value is None:
        return None
    if hint is Path:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value


def differences(ours: Any, theirs: Any) -> list[str]:
    """Returns one "field: theirs -> ours" for each field in which two configs differ."""
    flat_ours, flat_theirs = _flatten(to_dict(ours)), _flatten(to_dict(theirs))
    return [
        f"{name}: {flat_theirs.get(name)} -> {flat_ours.get(name)}"
        for name in sorted(flat_ours | flat_theirs)
        if flat_ours.get(name) != flat_theirs.get(name)
    ]


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
