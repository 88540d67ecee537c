"""A public network, fine-tuned with SphereFace: what is won on its new people, what LFW costs.

    python -m experiments.fine_tune --weights WEIGHTS.pt --arch mobilefacenet_foamliu \
        --train FACES --pairs lfw/pairs.txt --images lfw/aligned_112

A fifth of the people of --train is held out. On them, and on LFW, the network is measured as it
came and after it has learnt the others: verification by the authors' protocol, and the loss of a
held-out image, which is softmax over the held-out people, each the mean direction of his other
images, of cosines times 30. The loss must fall, and LFW may cost 0.3 points.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy.special import logsumexp

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.exams import Exam, drawn_exam, examine, listed_exam, score
from experiments.pages import RESULTS, table
from experiments.record_runs import without_folders
from experiments.study import start
from sphereface_jax.commands.import_weights import import_weights
from sphereface_jax.commands.weight_options import ImportOptions
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.evaluation.pairs import unit_rows
from sphereface_jax.training.config import (
    LossConfig,
    OptimizerConfig,
    TrainConfig,
    ValConfig,
    to_dict,
)
from sphereface_jax.training.input import open_training_data
from sphereface_jax.training.loop import train
from sphereface_jax.training.run_folder import read_config

SCALE, FOLDS = 30.0, 5
MOST_POINTS = 0.3


@dataclasses.dataclass(frozen=True)
class Options:
    """Whose weights, and which faces."""

    weights: Path
    """What `sphereface import` reads."""
    train: str
    """Faces to learn, as `sphereface train --data.train` takes them."""
    pairs: Path
    """Pairs in LFW's format."""
    images: Path
    """The folder of their aligned images."""
    arch: str = ""
    """The network, where the file does not say it."""
    exclude: tuple[str, ...] = ()
    """Identities of --train to leave out."""
    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 0.001
    head_rate: float = 10.0
    """The prototypes' rate, as a multiple of the network's."""
    head_first: int = 100
    """Steps in which the prototypes learn alone."""
    freeze: tuple[str, ...] = ()
    """Patterns of weights that stay as they are."""
    held_out_pairs: int = 3000
    """Of people held out, in five folds."""
    runs: Path = Path("runs/experiments/fine_tune")
    """Where the runs live; the same command goes on with what is there."""
    out: Path = RESULTS / "fine_tune.json"
    """The results file, which must not be there yet."""


def fine_tuning(options: Options, imported: TrainConfig, out: Path) -> TrainConfig:
    """The run that goes on from an imported one.

    Args:
      options: of the experiment.
      imported: the config of the imported run, whose network and pixels it takes.
      out: its folder.
    """
    return TrainConfig(
        out=out,
        init_from=imported.out,
        data=dataclasses.replace(
            imported.data, train=options.train, exclude=options.exclude, shift=2, photometric=0.2
        ),
        model=imported.model,
        # The prototypes learn first, so λ may start at its floor.
        loss=LossConfig(margin=4, lambda_base=5.0),
        optimizer=OptimizerConfig(
            learning_rate=options.learning_rate,
            schedule="cosine",
            clip_norm=5.0,
            head_rate=options.head_rate,
            head_first=options.head_first,
        ),
        freeze=options.freeze,
        steps=options.steps,
        batch_size=options.batch_size,
        val=ValConfig(fraction=0.2, every=options.steps),
    )


def loss_among(embeddings: np.ndarray, labels: np.ndarray, *, scale: float = SCALE) -> float:
    """Mean loss of images among their people, each the mean direction of his other images.

    Args:
      embeddings: [N, D].
      labels: [N], whose each is; those with one image are left out.
      scale: of the cosines.

    Returns:
      Cross entropy of softmax(scale * cosines), in nats.
    """
    directions = unit_rows(embeddings)
    _, rows, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), embeddings.shape[1]))
    np.add.at(sums, rows, directions)
    logits = scale * directions @ unit_rows(sums).T
    others = sums[rows] - directions
    several = counts[rows] > 1
    lengths = np.linalg.norm(others[several], axis=1)
    own = scale * np.sum(directions[several] * others[several], axis=1) / lengths
    logits, rows = logits[several], rows[several]
    logits[np.arange(len(rows)), rows] = own
    return float(np.mean(logsumexp(logits, axis=1) - own))


def measure(run: Path, held_out: Exam, lfw: Exam) -> dict[str, Any]:
    """Returns a run's numbers on both exams."""
    embedder = FaceEmbedder.from_run(run)
    embeddings, mirrored = embedder.embed_source(held_out.images)
    features = np.concatenate([embeddings, mirrored], axis=1)
    return {
        "lfw": examine(embedder, lfw)["verification"],
        "held_out": score(embeddings, mirrored, held_out)["verification"],
        "held_out_loss": loss_among(features, np.asarray(held_out.people)),
    }


def report(results: dict[str, Any]) -> str:
    """The results as a table."""
    rows = []
    for name in ("before", "after"):
        found = results[name]
        cells = [
            f"{100 * found[exam]['accuracy_10_fold']:.2f} % ± "
            f"{100 * found[exam]['accuracy_std']:.2f} %"
            for exam in ("lfw", "held_out")
        ]
        rows.append([name, *cells, f"{found['held_out_loss']:.4f}"])
    return table(["", "LFW `lfw_authors`", "people held out", "their loss"], rows)


def run(options: Options) -> dict[str, Any]:
    """Imports, measures, trains, measures again, and stores.

    Raises:
      ValueError: there are results already, or the weights do not fit.
    """
    if options.out.exists():
        raise ValueError(f"{options.out}: expected no results yet; remove them, or name another")
    before, after = options.runs / "before", options.runs / "after"
    if not before.exists():
        import_weights(
            ImportOptions(options.weights, out=before, arch=options.arch),
            console=Console(soft_wrap=True),
        )
    config = fine_tuning(options, dataclasses.replace(read_config(before), out=before), after)
    _, held_out = open_training_data(config)
    assert held_out is not None  # a fraction is held out
    exam = drawn_exam(
        held_out, "people held out", pairs_per_fold=options.held_out_pairs // FOLDS, num_folds=FOLDS
    )
    lfw = listed_exam(options.pairs, options.images)
    train(config)
    results = {
        "before": measure(before, exam, lfw),
        "after": measure(after, exam, lfw),
        "held_out_people": len(held_out.identities),
        "held_out_images": len(held_out.labels),
        "config": without_folders(to_dict(config)),
        "machine": describe_machine(),
    }
    write_results(options.out, results)
    return results


def main(options: Options) -> None:
    """Runs it, prints the table, and fails where a goal is missed."""
    results = run(options)
    print(report(results))
    came, tuned = results["before"], results["after"]
    cost = 100 * (came["lfw"]["accuracy_10_fold"] - tuned["lfw"]["accuracy_10_fold"])
    if cost > MOST_POINTS or tuned["held_out_loss"] >= came["held_out_loss"]:
        raise SystemExit(f"LFW lost more than {MOST_POINTS} points, or the held-out loss rose")


if __name__ == "__main__":
    start(main, Options, __doc__)
