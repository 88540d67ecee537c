"""What a training run is: one frozen dataclass, saved in the run's folder as config.json.

Every default is the authors' (facts in the docstrings of the fields); a departure is a named
option. The command line is generated from these classes, so a field's docstring is its help. Beside
its default a field says whether a resumed run may change it and, if it is a number, its range
(`setting`); so a new field needs no check elsewhere.
"""

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from sphereface_jax._checks import require
from sphereface_jax.data.files import flatten

Resume = Literal["fixed", "free", "data"]
"""Whether a resumed run may change a field: "fixed" fields say what is learnt and may not; "free"
ones say where, when and how the work is done; "data" ones name the data, whose own fingerprint
decides."""


@dataclass(frozen=True)
class Range:
    """The finite numbers that a field may hold.

    Attributes:
      low: the smallest.
      high: the largest.
      open_low: whether `low` itself is out.
      open_high: whether `high` itself is out.
      besides: one more number.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    besides: float | None = None

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return math.isfinite(value) and ((above and below) or value == self.besides)

    def __str__(self) -> str:
        if self.high == math.inf:
            words = f"{'above' if self.open_low else 'of at least'} {self.low:g}"
        else:
            left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
            words = f"in {left}{self.low:g}, {self.high:.10g}{right}"
        return words if self.besides is None else f"{words}, or {self.besides:g}"


COUNT = Range(1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, open_low=True)
PIXEL = Range(0, 255)
PROBABILITY = Range(0, 1)
BELOW_ONE = Range(0, 1, open_high=True)


def setting(default: Any, resume: Resume, within: Range | None = None) -> Any:
    """The field of a config.

    Args:
      default: its default; a class stands for a new instance of it.
      resume: whether a resumed run may change it.
      within: the range of its numbers; of each of them, if it holds several.

    Returns:
      What `dataclasses.field` returns.
    """
    metadata = {"resume": resume, "within": within}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def ranged(default: Any, within: Range) -> Any:
    """The field of a command's options, with the range of its number.

    Args:
      default: its default.
      within: the range.

    Returns:
      What `dataclasses.field` returns.
    """
    return dataclasses.field(default=default, metadata={"within": within})


@dataclass(frozen=True)
class DataConfig:
    """Where the faces come from and what happens to them before the network."""

    train: str = setting("synthetic", "data")
    """A folder of identities (DIR/<identity>/*.jpg), an archive of one, a RecordIO set, a list
    file, a TFDS data set by name or folder, or "synthetic"."""
    split: str = setting("train", "data")
    """Of a TFDS data set."""
    data_dir: str | None = setting(None, "data")
    """Where TFDS data sets lie; TFDS's own folder by default."""
    root: str | None = setting(None, "data")
    """The folder that the paths of a list file start from; the list's own by default."""
    exclude: tuple[str, ...] = setting((), "data")
    """Names of identities to leave out, such as those of the evaluation set."""
    license: str = setting("", "free")
    """Licence or terms of the faces, for the model card."""
    image_size: tuple[int, int] = setting((112, 96), "fixed", COUNT)
    """Height and width that the network sees; 112×112 images are cropped to 112×96."""
    color_order: Literal["bgr", "rgb"] = setting("bgr", "fixed")
    """Order of the colour channels that the network sees; the authors' is bgr."""
    pixel_mean: float | tuple[float, float, float] = setting(127.5, "fixed", PIXEL)
    """Pixels become (x − mean) / divisor; one number, or one a channel in the order that the
    network sees."""
    pixel_divisor: float | tuple[float, float, float] = setting(128.0, "fixed", POSITIVE)
    """The authors' is 128, InsightFace's 127.5; one number, or one a channel."""
    resize: bool = setting(False, "fixed")
    """Scale faces of another size instead of refusing them; no substitute for alignment."""
    mirror: float = setting(0.5, "fixed", PROBABILITY)
    """Probability of mirroring; the authors' one augmentation."""
    shift: int = setting(0, "fixed", NOT_NEGATIVE)
    """Shift each image by up to N pixels both ways."""
    crop: float = setting(0.0, "fixed", PROBABILITY)
    """Probability of cutting a part out and scaling it up."""
    low_resolution: float = setting(0.0, "fixed", PROBABILITY)
    """Probability of shrinking and scaling back up."""
    blur: float = setting(0.0, "fixed", PROBABILITY)
    """Probability of a Gaussian blur."""
    photometric: float = setting(0.0, "fixed", PROBABILITY)
    """Probability of changing brightness, contrast and saturation."""
    cutout: float = setting(0.0, "fixed", PROBABILITY)
    """Probability of painting a rectangle grey."""
    on_error: Literal["raise", "skip"] = setting("raise", "free")
    """An unreadable image stops the run, or is replaced by its neighbour and counted."""
    synthetic_identities: int = setting(1000, "data", COUNT)
    """How many people "synthetic" holds."""
    synthetic_views: int = setting(50, "data", COUNT)
    """How many images of each person "synthetic" holds."""


@dataclass(frozen=True)
class ModelConfig:
    """The backbone."""

    name: str = setting("spherenet20", "fixed")
    """Any network of sphereface_jax.models.MODELS, such as spherenet4, sfnet20_bn, iresnet50."""
    embedding_dim: int = setting(512, "fixed", COUNT)
    """Length of an embedding."""
    channels: tuple[int, int, int, int] = setting((64, 128, 256, 512), "fixed", COUNT)
    """Channels of the four stages; the paper's by default."""
    folded: bool = setting(False, "fixed")
    """Biases in place of the normalisations after a layer, as imported networks have whose
    normalisations were folded."""
    dtype: Literal["float32", "bfloat16"] = setting("float32", "fixed")
    """Of the network's computation; parameters, head and loss stay float32."""
    remat: bool = setting(False, "free")
    """Compute each unit of the network anew in the backward pass instead of keeping what is in it:
    less memory for more time (but on a CPU, whose compiler keeps it all the same)."""


@dataclass(frozen=True)
class LossConfig:
    """The loss. A hyper-parameter left out takes the default of the loss itself."""

    name: str = setting("sphereface", "fixed")
    """Any loss of sphereface_jax.LOSSES, or the name of one's own, which train() is given."""
    margin: float | None = setting(None, "fixed", NOT_NEGATIVE)
    """Margin m; a whole number for sphereface, in radians where it is an angle (arcface)."""
    scale: float | None = setting(None, "fixed", POSITIVE)
    """Scale s, for the losses that normalise the embeddings."""
    filter_threshold: float | None = setting(None, "fixed", Range(-1, 1))
    """Leave out other classes whose cosine is larger (interclass filtering), for noisy labels."""
    gradient: Literal["exact", "detached", "caffe"] = setting("exact", "fixed")
    """Of the margin: autodiff's, the plain cosine's, or that of the authors' Caffe layer."""
    class_block: int | None = setting(None, "free", COUNT)
    """Scan over blocks of N classes, 4096 say, where there is no memory for all logits."""
    sample_rate: float = setting(1.0, "fixed", Range(0, 1, open_low=True))
    """Compare with a random fraction of the other classes each step (PartialFC); 1: with all."""
    sampling: Literal["partial_fc", "partial_fc_v2"] = setting("partial_fc", "fixed")
    """What happens to the prototypes that a step did not draw: they stay as they are, momentum
    too (partial_fc), or they decay and go on by their momentum (partial_fc_v2, as in
    InsightFace's code of that name)."""
    options: dict[str, str] = setting(dict, "fixed")
    """Further hyper-parameters of the loss, as NAME VALUE pairs; the docs list them."""
    lambda_base: float = setting(1000.0, "fixed", NOT_NEGATIVE)
    """λ at the start, for the losses that anneal it."""
    lambda_gamma: float = setting(0.12, "fixed", NOT_NEGATIVE)
    """How fast λ falls: λ = base · (1 + γ · iteration)^-power."""
    lambda_power: float = setting(1.0, "fixed", NOT_NEGATIVE)
    """The power of λ's fall."""
    lambda_minimum: float = setting(5.0, "fixed", NOT_NEGATIVE)
    """The floor of λ."""


@dataclass(frozen=True)
class OptimizerConfig:
    """SGD as the authors ran it, unless told otherwise."""

    name: str = setting("sgd", "fixed")
    """sgd, or one of optax: adam, adamw, adabelief, lamb, lars, lion, rmsprop."""
    learning_rate: float = setting(0.1, "fixed", POSITIVE)
    """The highest learning rate; biases learn at twice the rate."""
    momentum: float = setting(0.9, "fixed", BELOW_ONE)
    """Of sgd."""
    weight_decay: float = setting(5e-4, "fixed", NOT_NEGATIVE)
    """On every weight, PReLU slopes and prototypes too; not on biases."""
    schedule: Literal["step", "cosine", "constant"] = setting("step", "fixed")
    """step: tenfold drops at the milestones."""
    milestones: tuple[float, ...] = setting((4 / 7, 6 / 7), "fixed", POSITIVE)
    """Where the step schedule drops, as fractions of all steps (the authors' 16k and 24k of
    28k), or as steps if they are whole numbers from 1."""
    warmup_steps: int = setting(0, "fixed", NOT_NEGATIVE)
    """Steps over which the rate rises linearly from zero."""
    clip_norm: float | None = setting(None, "fixed", POSITIVE)
    """Clip the gradient to this global norm."""
    head_rate: float = setting(1.0, "fixed", POSITIVE)
    """The prototypes' learning rate as a multiple of the network's."""
    head_first: int = setting(0, "fixed", NOT_NEGATIVE)
    """Steps at the start in which the prototypes learn and the network stays as it is."""
    ema_decay: float = setting(0.0, "fixed", BELOW_ONE)
    """Keep a moving average of the weights with this decay and evaluate that; 0 keeps none."""


@dataclass(frozen=True)
class ValConfig:
    """Verification on identities that are held out of training."""

    fraction: float = setting(0.0, "fixed", BELOW_ONE)
    """Fraction of the identities held out whole; choose hyper-parameters on these, never on LFW."""
    every: int = setting(1000, "free", COUNT)
    """Steps between two scores."""
    pairs: int = setting(3000, "free", COUNT)
    """Pairs drawn, half of them of the same person."""


@dataclass(frozen=True)
class MeshConfig:
    """How the devices are laid out."""

    data: int = setting(-1, "free", Range(1, besides=-1))
    """Devices along the batch; -1 takes all that are left."""
    model: int = setting(1, "free", COUNT)
    """Devices over which the prototypes are sharded."""
    shard_optimizer: bool = setting(False, "free")
    """Shard what the optimiser keeps for the network's weights, and their moving average,
    over data, instead of a copy on every device (ZeRO-1)."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    out: Path = setting(Path("runs/train"), "free")
    """The run's folder; the same command again resumes what is there."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    val: ValConfig = dataclasses.field(default_factory=ValConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    steps: int = setting(28_000, "fixed", COUNT)
    """Updates in all."""
    batch_size: int = setting(256, "fixed", COUNT)
    """Images per update, over all devices."""
    accumulate: int = setting(1, "free", COUNT)
    """Take each batch in N parts, one after another, in the memory of one part (but on a CPU,
    where all the parts are held)."""
    seed: int = setting(0, "fixed", Range(0, 2**32 - 1))
    """Of the weights, the order of examples, the augmentation and the held-out identities."""
    log_every: int = setting(10, "free", COUNT)
    """Steps between two lines of metrics.jsonl."""
    checkpoint_every: int = setting(200, "free", COUNT)
    """Steps between two checkpoints."""
    keep_checkpoints: int = setting(3, "free", COUNT)
    """How many checkpoints stay on disk."""
    init_from: Path | None = setting(None, "fixed")
    """Start from the weights of this run."""
    freeze: tuple[str, ...] = setting((), "fixed")
    """Weights of the network that stay as they are, as shell patterns of their names: 'stages.0.*',
    or '*' to train the prototypes alone."""
    compatible_with: Path | None = setting(None, "fixed")
    """Keep embeddings comparable with those of this older run: its prototypes become a second,
    frozen head (backward-compatible training)."""

    def __post_init__(self) -> None:
        check_fields(self)
        optimizer, data = self.optimizer, self.data
        require(
            optimizer.warmup_steps <= self.steps,
            "optimizer.warmup_steps",
            f"at most the {self.steps} steps of the run",
            optimizer.warmup_steps,
        )
        if optimizer.schedule == "step":
            self._check_milestones()
        most = (min(data.image_size) - 1) // 2
        height, width = data.image_size
        expected = f"at most {most} pixels, for images of {height}×{width}"
        require(data.shift <= most, "data.shift", expected, data.shift)

    def _check_milestones(self) -> None:
        milestones = self.optimizer.milestones
        as_steps = [milestone >= 1 for milestone in milestones]
        whole = all(float(milestone).is_integer() for milestone in milestones)
        require(
            not any(as_steps) or (all(as_steps) and whole and max(milestones) < self.steps),
            "optimizer.milestones",
            f"either fractions of the run below 1 or whole steps from 1 to {self.steps - 1}",
            " ".join(f"{milestone:g}" for milestone in milestones),
        )


@dataclass(frozen=True)
class ProcessConfig:
    """This process among those that train together.

    Nothing need be given on one host, nor where SLURM, Open MPI or a Kubernetes job started it.
    """

    coordinator: str | None = setting(None, "free")
    """HOST:PORT of process 0; any port that is free there."""
    num_processes: int | None = setting(None, "free", COUNT)
    """How many processes train together."""
    process_id: int | None = setting(None, "free", NOT_NEGATIVE)
    """Which of them this is, from 0."""

    def __post_init__(self) -> None:
        check_fields(self)
        address, count, index = self.coordinator, self.num_processes, self.process_id
        if address is None and count is None and index is None:
            return
        if address is None or count is None or index is None:
            raise ValueError(
                "processes: expected all of --coordinator, --num-processes and --process-id or "
                f"none, got {address}, {count} and {index}"
            )
        host, _, port = address.rpartition(":")
        require(bool(host) and port.isdecimal(), "coordinator", "HOST:PORT", address)
        require(index < count, "process_id", f"a number from 0 to {count - 1}", index)


def pixel_formula(data: DataConfig) -> str:
    """Says what becomes of a pixel.

    Example:
      >>> pixel_formula(DataConfig())
      '(x − 127.5) / 128'
    """

    def said(value: float | tuple[float, ...]) -> str:
        if isinstance(value, tuple):
            return f"({', '.join(f'{number:g}' for number in value)})"
        return f"{value:g}"

    return f"(x − {said(data.pixel_mean)}) / {said(data.pixel_divisor)}"


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a config as the nested dictionary that config.json holds."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


Config = TypeVar("Config")


def from_dict(cls: type[Config], values: dict[str, Any], *, where: str = "config.json") -> Config:
    """Builds a config from the dictionary of `to_dict`.

    Args:
      cls: a config's class.
      values: as `to_dict` returns them; a field that is left out has its default.
      where: what to call them in an error.

    Returns:
      The config.

    Raises:
      ValueError: a field is unknown, which happens when the file is from another version, or
        holds what it may not.
    """
    require(isinstance(values, dict), where, "the fields of a config", repr(values))
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(
            f"{where}: unknown field {unknown[0]!r}; was it written by a newer version?"
        )
    fields = {name: _decode(hints[name], value, where) for name, value in values.items()}
    try:
        return cls(**fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _decode(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where=where)
    if isinstance(hint, types.UnionType):
        hint = next(arm for arm in typing.get_args(hint) if arm is not types.NoneType)
    if value is None:
        return None
    if hint is Path and isinstance(value, str):
        return Path(value)
    return tuple(value) if isinstance(value, list) else value


def resume_conflicts(ours: "TrainConfig", theirs: "TrainConfig") -> list[str]:
    """What a resumed run may not change and does, as lines "field: theirs -> ours".

    Args:
      ours: the config asked for.
      theirs: the config of the run.

    Returns:
      A line for each such field, sorted.
    """
    fixed = [name for name, f in settings(TrainConfig).items() if f.metadata["resume"] == "fixed"]
    # A field that is a dictionary differs by its keys.
    starts = tuple(f"{name}{end}" for name in fixed for end in ":.")
    return [line for line in differences(ours, theirs) if line.startswith(starts)]


def differences(ours: Any, theirs: Any) -> list[str]:
    """The fields in which two configs differ, as lines "field: theirs -> ours".

    Args:
      ours: a config.
      theirs: another of its class.

    Returns:
      A line for each, sorted.
    """
    flat_ours, flat_theirs = flatten(to_dict(ours)), flatten(to_dict(theirs))
    return [
        f"{name}: {flat_theirs.get(name)} -> {flat_ours.get(name)}"
        for name in sorted(flat_ours | flat_theirs)
        if flat_ours.get(name) != flat_theirs.get(name)
    ]


def check_options(options: Any) -> None:
    """Checks the numbers of a command's options, which `ranged` made.

    Raises:
      ValueError: one is outside its range; it is named as it is typed.
    """
    hints = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        if "within" in field.metadata:
            value = getattr(options, field.name)
            expected = _missing(hints[field.name], value, field.metadata["within"])
            name = f"--{field.name.replace('_', '-')}"
            require(expected is None, name, str(expected), repr(value))


def settings(cls: type, prefix: str = "") -> dict[str, dataclasses.Field[Any]]:
    """Every field of a config class that holds a value, by its full name.

    Args:
      cls: a dataclass.
      prefix: what to put before every name.

    Returns:
      The fields, nested ones as `loss.name`.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Example:
      ...     steps: int = setting(10, "fixed", COUNT)
      >>> settings(Example)["steps"].metadata["resume"]
      'fixed'
    """
    found: dict[str, dataclasses.Field[Any]] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, name = hints[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hint):
            found |= settings(typing.cast(type, hint), f"{name}.")
        else:
            found[name] = field
    return found


def check_fields(config: Any, prefix: str = "") -> None:
    """Checks that every field, of nested configs too, holds what its type and range allow.

    Args:
      config: a dataclass's instance.
      prefix: what to put before every name in an error.

    Raises:
      ValueError: one does not; it is named.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, value, hint = f"{prefix}{field.name}", getattr(config, field.name), hints[field.name]
        if dataclasses.is_dataclass(hint):
            kind = typing.cast(type, hint)
            require(isinstance(value, kind), name, f"a {kind.__name__}", repr(value))
            check_fields(value, f"{name}.")
        else:
            expected = _missing(hint, value, field.metadata["within"])
            require(expected is None, name, str(expected), repr(value))


def _missing(hint: Any, value: Any, within: Range | None) -> str | None:
    """Returns what a type and a range expect, where a value is not that; else None."""
    arms = typing.get_args(hint)
    kind = typing.get_origin(hint) or hint
    if kind in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arms:
            return None
        missing = [_missing(arm, value, within) for arm in arms if arm is not types.NoneType]
        if None in missing:
            return None
        # Of several shapes, the one that the value has says best what it lacks.
        return missing[1 if len(missing) > 1 and isinstance(value, tuple) else 0]
    if kind is Literal:
        return None if value in arms else f"one of {', '.join(map(repr, arms))}"
    if kind is tuple:
        is_open = arms[-1] is Ellipsis
        if not isinstance(value, tuple) or not (is_open or len(value) == len(arms)):
            return "a list" if is_open else f"{len(arms)} values"
        return next((m for item in value if (m := _missing(arms[0], item, within))), None)
    if kind in (int, float):
        is_number = isinstance(value, int if kind is int else int | float)
        word = "a whole number" if kind is int else "a number"
        is_fine = is_number and not isinstance(value, bool) and (within is None or value in within)
        return None if is_fine else word if within is None else f"{word} {within}"
    if kind is Path:
        return None if isinstance(value, str | Path) else "a path"
    return None if isinstance(value, kind) else f"a {kind.__name__}"
