"""A few minutes on a CPU: learn a hypersphere of synthetic faces, and test it on strangers.

A small SphereNet-4 learns with A-Softmax to tell 1,000 synthetic people apart, then is asked of
pairs of unseen people whether they are one. Two baselines take the same test: the
cosine of raw pixels, and the network before training.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sphereface_jax._console import counting, say
from sphereface_jax.commands.compare import store_calibration
from sphereface_jax.commands.keep import keep_pairs, keep_people, keep_training
from sphereface_jax.commands.report import report
from sphereface_jax.compilation import run_arithmetic
from sphereface_jax.data.files import read_json, write_json
from sphereface_jax.data.pipeline import ordered_batches
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.data.vectors import FaceVectors
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.embedding import embed, embed_images
from sphereface_jax.evaluation.draw_pairs import verification_pairs
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.verification import lfw_authors
from sphereface_jax.reports.tables import print_results
from sphereface_jax.tasks.pair_list import operating_point
from sphereface_jax.training.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from sphereface_jax.training.input import face_transform
from sphereface_jax.training.loop import train
from sphereface_jax.training.model_card import write_model_card
from sphereface_jax.training.run_folder import read_config
from sphereface_jax.training.trainer import make_trainer

STRANGERS, FIRST_STRANGER, VIEWS, PAIRS_PER_FOLD = 300, 2_000_000, 8, 600
_TEST = "synthetic strangers"


def quickstart_config(out: Path, *, seed: int) -> TrainConfig:
    """The config of the quickstart's run.

    Args:
      out: the run's folder.
      seed: of everything.

    Returns:
      A SphereNet of four layers, 900 steps on synthetic faces.
    """
    return TrainConfig(
        out=out,
        data=DataConfig(
            train="synthetic",
            image_size=(56, 48),
            resize=True,  # the drawn faces are of this size; those of other commands need not be
            synthetic_identities=1000,
            synthetic_views=120,
        ),
        model=ModelConfig(name="spherenet4", embedding_dim=128, channels=(32, 64, 128, 256)),
        loss=LossConfig(name="sphereface", margin=4),
        optimizer=OptimizerConfig(learning_rate=0.1, schedule="cosine", clip_norm=5.0),
        steps=900,
        batch_size=128,
        seed=seed,
    )


@run_arithmetic()
def quickstart(out: Path, *, seed: int, console: Console) -> None:
    """Trains, scores, draws; a finished run only prints its results.

    Leaves report.html and evaluation.json in the run's folder.

    Args:
      out: the run's folder.
      seed: of everything.
      console: where to print.
    """
    config = quickstart_config(out, seed=seed)
    if (out / "result.json").is_file() and not read_config(out).data.resize:
        say(
            console,
            f"{out} takes faces of 56×48 only; another --out makes a run that scales others",
        )
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, resize=False))
    train(config, console=console)
    evaluation = out / "evaluation.json"
    if not evaluation.is_file():
        write_json(evaluation, _score(config, console))
        write_model_card(out)
    scores = read_json(evaluation)
    say(
        console,
        f"\nOn {scores['pairs']:,} pairs of {STRANGERS} unseen people, ten-fold accuracy:\n"
        f"  raw pixels          {_percent(scores['baselines']['raw_pixels'])}\n"
        f"  untrained network   {_percent(scores['baselines']['untrained'])}\n"
        f"  trained network     {_percent(scores['protocols']['lfw_authors'])}\n",
    )
    say(console, f"  {evaluation}")
    report([out], console=console)


def _percent(result: dict[str, Any]) -> str:
    return f"{result['accuracy_10_fold']:7.2%} ± {result['accuracy_std']:.2%}"


def _score(config: TrainConfig, console: Console) -> dict[str, Any]:
    """Takes the test with raw pixels, the untrained and the trained network; calibrates."""
    strangers = SyntheticFaces(
        STRANGERS,
        VIEWS,
        seed=config.seed,
        image_size=config.data.image_size,
        first_identity=FIRST_STRANGER,
    )
    left, right, is_same, folds = verification_pairs(
        strangers.labels, pairs_per_fold=PAIRS_PER_FOLD, seed=config.seed
    )
    pairs = Pairs(left, right, is_same=is_same, folds=folds)
    embedder = FaceEmbedder.from_run(config.out)
    with counting(console, "scoring", "images", len(strangers)) as advance:
        embeddings, mirrored = embedder.embed_source(strangers, advance=advance)
    people = (strangers.identities[label] for label in strangers.labels)
    names = [f"{person}/{index % VIEWS:02d}" for index, person in enumerate(people)]
    vectors = FaceVectors(names, embeddings, mirrored)
    trained = lfw_authors(vectors.features(), pairs)
    untrained = lfw_authors(_untrained_features(config, strangers), pairs)
    raw_pixels = lfw_authors(_raw_pixels(config, strangers), pairs)
    print_results({"lfw_authors": trained.to_json()}, console, title=_TEST)
    store_calibration(
        config.out,
        operating_point(vectors, pairs),
        pairs=_TEST,
        step=embedder.run.step,
    )
    kept: dict[str, Any] = {
        "step": embedder.run.step,
        "images": {n: (strangers, i) for i, n in enumerate(names)},
    }
    scored = {"lfw_authors": trained, "raw pixels": raw_pixels, "untrained": untrained}
    keep_pairs(config.out, _TEST, pairs, scored, vectors=vectors, **kept)
    keep_people(config.out, _TEST, vectors, **kept)
    keep_training(config, console)
    baselines = {"raw_pixels": raw_pixels.to_json(), "untrained": untrained.to_json()}
    protocols = {"lfw_authors": {**trained.to_json(), "input": _TEST}}
    return {"protocols": protocols, "pairs": len(pairs), "baselines": baselines}


def _untrained_features(config: TrainConfig, source: SyntheticFaces) -> np.ndarray:
    trainer = make_trainer(config, config.data.synthetic_identities)
    state = trainer.init()
    both = embed_images(
        functools.partial(embed, trainer.graph, state.params, state.model_state),
        source,
        transform=face_transform(config.data),
    )
    return both.reshape(len(both), -1)


def _raw_pixels(config: TrainConfig, source: SyntheticFaces) -> np.ndarray:
    batches = ordered_batches(source, 64, transform=face_transform(config.data))
    images = np.concatenate([batch["image"][batch["valid"]] for batch in batches])
    return images.reshape(len(images), -1).astype(np.float32)
