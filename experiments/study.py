"""What the experiments share: train a few configs, examine each, keep the numbers.

An experiment is a handful of runs that differ in one thing. Each lives in a folder of its own under
--runs, is trained by `sphereface_jax.training.loop.train` and so goes on where it stopped; then it
takes an examination, pairs of people whom no run has seen. The numbers are kept beside the run and
together in one results file, which is never overwritten.
"""

import dataclasses
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import tyro

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.exams import Exam, examine, listed_exam, synthetic_exam
from experiments.pages import RESULTS
from sphereface_jax.data.files import read_json, read_records, write_json
from sphereface_jax.data.source import CASIA_LFW_OVERLAP
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.training.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    differences,
    to_dict,
)
from sphereface_jax.training.loop import train
from sphereface_jax.training.run_folder import RunFolder
from sphereface_jax.training.state import NonFiniteLossError

Preset = Literal["smoke", "cpu", "faces", "paper"]

Choice = TypeVar("Choice")

SMOKE = TrainConfig(
    data=DataConfig(image_size=(24, 16), synthetic_identities=8, synthetic_views=4),
    model=ModelConfig(name="spherenet4", embedding_dim=8, channels=(4, 4, 8, 8)),
    loss=LossConfig(margin=4),
    optimizer=OptimizerConfig(learning_rate=0.02),
    steps=6,
    batch_size=8,
    log_every=1,
)
CPU = TrainConfig(
    data=DataConfig(image_size=(56, 48), synthetic_identities=500, synthetic_views=100),
    model=ModelConfig(name="spherenet4", embedding_dim=64, channels=(16, 32, 64, 128)),
    # λ waits until the network has begun to learn, some 70 steps, and reaches its floor at 222; the
    # authors' takes 1,659. lambda_schedules.py shows what happens where it does not wait.
    loss=LossConfig(margin=4, lambda_base=1e5, lambda_power=3.0),
    optimizer=OptimizerConfig(learning_rate=0.1, schedule="cosine", clip_norm=5.0),
    steps=300,
    batch_size=128,
)
# Thousands of real people with a few images each: without normalisation, or with an early λ, a
# small network stays where it began. λ reaches its floor at step 950.
FACES = TrainConfig(
    data=DataConfig(
        image_size=(48, 40),
        resize=True,
        shift=2,
        crop=0.1,
        low_resolution=0.1,
        photometric=0.2,
        cutout=0.2,
    ),
    model=ModelConfig(name="sfnet4_bn", embedding_dim=256, channels=(32, 64, 128, 256)),
    loss=LossConfig(margin=4, lambda_gamma=0.00101, lambda_power=7.9),
    optimizer=OptimizerConfig(
        learning_rate=0.06, warmup_steps=200, schedule="cosine", clip_norm=5.0
    ),
    steps=1500,
    batch_size=128,
)
PAPER = TrainConfig(data=DataConfig(exclude=CASIA_LFW_OVERLAP), loss=LossConfig(margin=4))


@dataclass(frozen=True)
class Options:
    """What an experiment takes."""

    preset: Preset = "cpu"
    """smoke: seconds, for tests; cpu: minutes on two cores; faces: minutes a run, on thousands of
    real people; paper: the authors' scale."""
    train: str | None = None
    """Faces to train on in place of synthetic ones, as `sphereface train --data.train` takes them;
    the presets faces and paper need them."""
    root: str | None = None
    """The folder of the images that a list of --train names."""
    exclude: tuple[str, ...] | None = None
    """Identities of --train to leave out; for the paper preset those of CASIA that LFW has too."""
    pairs: Path | None = None
    """LFW's pairs.txt; the presets faces and paper need it."""
    images: Path | None = None
    """The folder of LFW's aligned images; the presets faces and paper need it."""
    runs: Path = Path("runs/experiments")
    """Where the runs live; the same command goes on with what is there."""
    out: Path | None = None
    """The results file; experiments/results/NAME_PRESET.json by default."""

    def results_file(self, name: str) -> Path:
        """Returns the file for the results of an experiment, which must not be there yet.

        Raises:
          ValueError: it is there.
        """
        path = self.out or RESULTS / f"{self.title(name)}.json"
        if path.exists():
            raise ValueError(f"{path}: expected no results yet; remove them, or give another --out")
        return path

    def title(self, name: str) -> str:
        """Returns what an experiment's results and runs are called."""
        return f"{name}_{self.preset}"

    def choose(self, by_preset: Mapping[str, Choice]) -> Choice:
        """Returns the preset's own.

        Raises:
          ValueError: the experiment has no such preset.
        """
        if self.preset not in by_preset:
            raise ValueError(f"--preset: expected one of {', '.join(by_preset)}, got {self.preset}")
        return by_preset[self.preset]

    def require(self, *names: str) -> None:
        """Refuses a preset without the data that it needs.

        Raises:
          ValueError: naming the first option that is missing.
        """
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(f"--{name}: the {self.preset} preset needs it, got none")

    def base_config(self) -> TrainConfig:
        """Returns the config that the runs of a preset share.

        Raises:
          ValueError: the preset needs faces, and none are named.
        """
        base = {"smoke": SMOKE, "cpu": CPU, "faces": FACES, "paper": PAPER}[self.preset]
        if self.preset in ("faces", "paper"):
            self.require("train")
        return self.on_named_faces(base)

    def on_named_faces(self, config: TrainConfig) -> TrainConfig:
        """Returns a config with the faces that --train, --root and --exclude name, if any."""
        named = {"train": self.train, "root": self.root, "exclude": self.exclude}
        given = {name: value for name, value in named.items() if value is not None}
        return dataclasses.replace(config, data=dataclasses.replace(config.data, **given))

    def exam(self) -> Exam:
        """Returns LFW where it is named, else synthetic strangers.

        Raises:
          ValueError: the preset needs LFW, and it is not named.
        """
        if self.preset in ("faces", "paper"):
            self.require("pairs", "images")
        if self.pairs is not None and self.images is not None:
            return listed_exam(self.pairs, self.images)
        if self.preset == "smoke":
            return synthetic_exam(20, 3, SMOKE.data.image_size, pairs_per_fold=4)
        return synthetic_exam(300, 8, CPU.data.image_size, pairs_per_fold=600)


@dataclass(frozen=True)
class StudyOptions(Options):
    """What an experiment of `run_study` takes."""

    seeds: int = 1
    """How often to train each variant: with other weights, order of examples and augmentation."""


AnyOptions = TypeVar("AnyOptions")


def start(main: Callable[[AnyOptions], None], options: type[AnyOptions], doc: str | None) -> None:
    """Reads the command line and runs an experiment; a wrong input is one line and exit code 2."""
    chosen = tyro.cli(options, description=doc)
    try:
        main(chosen)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def run_study(
    name: str, variants: Callable[[StudyOptions], Mapping[str, TrainConfig]], options: StudyOptions
) -> None:
    """Trains and examines every variant of an experiment and writes its results.

    Args:
      name: of the experiment.
      variants: from the options to a config each, by what they are called in tables.
      options: of the command line.

    Raises:
      ValueError: there are results already, the preset lacks data, or no seed is asked for.
    """
    if options.seeds < 1:
        raise ValueError(f"--seeds: expected 1 or more, got {options.seeds}")
    configs, out, exam = variants(options), options.results_file(name), options.exam()
    machine = describe_machine()
    folder, began = options.runs / options.title(name), time.perf_counter()
    base = options.base_config()
    rows: dict[str, dict[str, Any]] = {}
    for seed in range(options.seeds):
        for variant, config in configs.items():
            print(f"{name}: {variant}, seed {seed}", flush=True)
            run = folder / (re.sub(r"[^\w.]+", "_", variant) + f"_seed{seed}" * (seed > 0))
            found = learn(dataclasses.replace(config, seed=seed, out=run), exam)
            if seed == 0:
                rows[variant] = {"changes": differences(config, base), **found}
            if "verification" in found:
                scores = rows[variant].setdefault("accuracy_by_seed", {})
                scores[str(seed)] = found["verification"]["accuracy_10_fold"]
    results = {
        "experiment": name,
        "preset": options.preset,
        "exam": exam.title,
        "variants": rows,
        "config": to_dict(base),
        "machine": machine,
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_results(out, results)


def learn(config: TrainConfig, exam: Exam) -> dict[str, Any]:
    """Trains a run, or goes on with it, and returns what it learnt; kept as RUN/experiment.json.

    A run whose loss stops being a number is a finding: the result says so in place of a score.

    Raises:
      ValueError: the folder holds a run of another config.
    """
    RunFolder(config).check()
    kept = config.out / "experiment.json"
    if kept.is_file() and (found := read_json(kept))["exam"] == exam.title:
        return found
    try:
        train(config)
    except NonFiniteLossError as error:
        print(error)
        found = {"diverged": str(error).split(";")[0], "training": training_facts(config)}
    else:
        embedder = FaceEmbedder.from_run(config.out)
        found = {
            "num_classes": embedder.run.num_classes,
            "training": training_facts(config),
            **examine(embedder, exam),
        }
    found["exam"] = exam.title
    write_json(kept, found)
    return found


def training_facts(config: TrainConfig) -> dict[str, Any]:
    """Returns the end of a run (the mean of the last tenth of its log), its pace and its curve."""
    records = read_records(config.out / "metrics.jsonl")
    if not records:
        return {}
    tail = records[-max(1, len(records) // 10) :]
    keys = ("loss", "accuracy", "target_angle", "embedding_norm")
    logged = config.log_every * config.batch_size
    every = max(1, len(records) // 40)
    shown = [key for key in ("step", "loss", "accuracy", "annealing_lambda") if key in records[0]]
    return {
        **{key: round(float(np.mean([record[key] for record in tail])), 4) for key in keys},
        "images_per_second": round(np.median([r["images_per_second"] for r in records]), 1),
        "seconds": round(sum(logged / record["images_per_second"] for record in records), 1),
        "curve": {
            key: [round(record[key], 4) for record in records[every - 1 :: every]] for key in shown
        },
    }
