"""Ours against plain PyTorch: the same learning, from the same weights on the same batches?

    python -m experiments.benchmarks.accuracy --train ../shared/data/train --exclude celeba_7261 \
        --pairs ../shared/data/lfw/pairs.txt --images ../shared/data/lfw/aligned_112

SphereNet-4 with A-Softmax (in the faces preset SFNet-4 with batch normalisation), once by this
library and once by the loop of plain_torch.py, for three seeds. Both start from the same weights
(`interop` writes ours under PyTorch's names, and reads theirs back for the test), see the same
batches in the same order and make as many steps. Goals:

- the losses of the first 20 steps agree within 1e-3 of each other;
- later, when rounding has been amplified, a seed's two smoothed curves lie as close to each other
  on average as the curves of different seeds lie apart;
- on LFW they differ by no more than the deviation of the folds.

Needs the extra `parity`. What is missed is printed and recorded.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np
import torch
from flax import nnx

from experiments.benchmarks import plain_torch
from experiments.benchmarks.machine import describe_machine, write_results
from experiments.exams import Exam, score
from experiments.study import FACES, PAPER, SMOKE, Options, start
from sphereface_jax.data.files import read_json, write_json
from sphereface_jax.data.pipeline import make_pipeline
from sphereface_jax.data.source import FaceSource
from sphereface_jax.embedding import embed, embed_images
from sphereface_jax.interop.weights import load_state_dict, state_dict
from sphereface_jax.training.config import (
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    to_dict,
)
from sphereface_jax.training.distributed import shard_batch
from sphereface_jax.training.input import face_transform, open_training_data
from sphereface_jax.training.optimizer import make_schedule
from sphereface_jax.training.state import TrainState
from sphereface_jax.training.trainer import Trainer, make_trainer

FIRST_STEPS, FIRST_TOLERANCE, SMOOTHED = 20, 1e-3, 20
DIGITS = 5  # of a loss that is kept
CPU = TrainConfig(
    model=ModelConfig(name="spherenet4"),
    loss=LossConfig(margin=4, lambda_gamma=2.0),
    optimizer=OptimizerConfig(
        learning_rate=0.03, warmup_steps=30, schedule="cosine", clip_norm=5.0
    ),
    steps=200,
    batch_size=32,
)
CLIPPED = OptimizerConfig(clip_norm=5.0)
PRESETS = {
    "smoke": dataclasses.replace(SMOKE, optimizer=CLIPPED),
    "cpu": CPU,
    "faces": dataclasses.replace(
        FACES, loss=LossConfig(margin=4, lambda_gamma=0.00076, lambda_power=7.9), steps=3000
    ),
    "paper": dataclasses.replace(
        PAPER, model=ModelConfig(name="spherenet4"), optimizer=CLIPPED, steps=5000
    ),
}


def batches(config: TrainConfig, source: FaceSource) -> Iterator[dict[str, np.ndarray]]:
    """The batches of a run: a function of its seed, whoever asks."""
    pipeline = make_pipeline(
        source,
        batch_size=config.batch_size,
        seed=config.seed,
        transform=face_transform(config.data),
    )
    with closing(pipeline):
        for _ in range(config.steps):
            yield next(pipeline)


def train_here(trainer: Trainer, source: FaceSource) -> tuple[list[float], TrainState]:
    """Trains by this library; returns the loss of every step, and the end."""
    state, losses = trainer.init(), []
    for batch in batches(trainer.config, source):
        state, metrics = trainer.step(state, shard_batch(batch, trainer.mesh))
        losses.append(float(metrics["loss"]))
    return losses, state


def train_there(trainer: Trainer, source: FaceSource) -> tuple[list[float], dict[str, np.ndarray]]:
    """Trains in PyTorch from the same weights; returns the loss of every step, and the weights."""
    config, begin = trainer.config, trainer.init()
    network = plain_torch.NETWORKS[config.model.name](
        config.model.channels, config.model.embedding_dim, config.data.image_size
    )
    ours = state_dict(nnx.merge(trainer.graph, begin.params, begin.model_state))
    network.load_state_dict({name: torch.tensor(array) for name, array in ours.items()})
    classes = np.array(begin.prototypes[: trainer.objective.num_classes])
    rate, steps = make_schedule(config.optimizer, config.steps), range(config.steps)
    losses = plain_torch.train(
        network,
        torch.tensor(classes, requires_grad=True),
        ((batch["image"], batch["label"]) for batch in batches(config, source)),
        rates=[float(rate(step)) for step in steps],
        lambdas=[float(trainer.objective.annealing_lambda(step)) for step in steps],
        clip_norm=config.optimizer.clip_norm,
    )
    return losses, plain_torch.state_of(network)


def score_weights(trainer: Trainer, model: nnx.Module, exam: Exam) -> dict[str, Any]:
    """What a network makes of an exam."""
    graph, params, others = nnx.split(model, nnx.Param, ...)
    both = embed_images(
        functools.partial(embed, graph, params, others),
        exam.images,
        transform=face_transform(trainer.config.data),
    )
    return score(both[:, 0], both[:, 1], exam)["verification"]


def run_seed(config: TrainConfig, exam: Exam) -> dict[str, Any]:
    """Both sides of one seed."""
    source, _ = open_training_data(config)
    trainer = make_trainer(config, len(source.identities))
    began = time.perf_counter()
    here, state = train_here(trainer, source)
    halfway = time.perf_counter()
    there, tensors = train_there(trainer, source)
    ended = time.perf_counter()
    here, there = (np.round(losses, DIGITS).tolist() for losses in (here, there))
    model = nnx.merge(trainer.graph, state.params, state.model_state)
    score_here = score_weights(trainer, model, exam)
    load_state_dict(model, tensors)
    score_there = score_weights(trainer, model, exam)
    return {
        "here": {"losses": here, "seconds": halfway - began, "verification": score_here},
        "there": {"losses": there, "seconds": ended - halfway, "verification": score_there},
    }


def kept_seed(config: TrainConfig, exam: Exam) -> dict[str, Any]:
    """As run_seed, or what it found earlier for the same config and exam."""
    file, asked = config.out / "seed.json", {"config": to_dict(config), "exam": exam.title}
    kept = read_json(file) if file.is_file() else {}
    if {key: kept.get(key) for key in asked} != asked:
        kept = asked | {"found": run_seed(config, exam)}
        config.out.mkdir(parents=True, exist_ok=True)
        write_json(file, kept)
    return kept["found"]


def judge(seeds: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How far both sides agree, and whether that reaches the goals."""

    def losses(side: str) -> np.ndarray:
        return np.array([seed[side]["losses"] for seed in seeds.values()])

    def verified(side: str, key: str) -> np.ndarray:
        return np.array([seed[side]["verification"][key] for seed in seeds.values()])

    here, there = losses("here"), losses("there")
    relative = np.abs(here / there - 1)[:, :FIRST_STEPS]
    smooth_here, smooth_there = smoothed(here), smoothed(there)
    gaps = np.abs(smooth_here - smooth_there).mean(axis=1)
    spread = np.ptp(smooth_there, axis=0).mean()
    apart = np.abs(verified("here", "accuracy_10_fold") - verified("there", "accuracy_10_fold"))
    deviation = verified("there", "accuracy_std")
    return {
        "first_steps": goal(relative.max(), FIRST_TOLERANCE),
        "curves": goal(gaps.max(), spread),
        "accuracy": goal(apart.max(), deviation[apart.argmax()]),
    }


def goal(found: float, at_most: float) -> dict[str, Any]:
    """A number, what it should be at most, and whether it is."""
    return {"found": float(found), "at_most": float(at_most), "met": bool(found <= at_most)}


def smoothed(losses: np.ndarray) -> np.ndarray:
    """A running mean over the steps of each row."""
    window = min(SMOOTHED, losses.shape[1])
    return np.lib.stride_tricks.sliding_window_view(losses, window, axis=1).mean(axis=-1)


def main(options: Options) -> None:
    """Runs all seeds and writes what was found."""
    out, machine, began = options.results_file("accuracy"), describe_machine(), time.perf_counter()
    if options.preset != "smoke":
        options.require("train", "pairs", "images")
    config, exam = options.on_named_faces(options.choose(PRESETS)), options.exam()
    folder, seeds = options.runs / options.title("accuracy"), {}
    for seed in range(2 if options.preset == "smoke" else 3):
        print(f"accuracy: seed {seed}", flush=True)
        seeded = dataclasses.replace(config, seed=seed, out=folder / f"seed{seed}")
        seeds[f"seed {seed}"] = kept_seed(seeded, exam)
    goals = judge(seeds)
    for name, found in goals.items():
        print(f"{name}: {'met' if found['met'] else 'MISSED'}: {found}")
    results = {
        "experiment": "accuracy",
        "preset": options.preset,
        "exam": exam.title,
        "goals": goals,
        "seeds": seeds,
        "config": to_dict(config),
        "torch": torch.__version__,
        "machine": machine,
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_results(out, results)


if __name__ == "__main__":
    start(main, Options, __doc__)
