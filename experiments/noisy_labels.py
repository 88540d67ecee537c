"""Labels that lie: are planted errors found, and what of the accuracy that they cost comes back?

Labels are made wrong on purpose (a share of them drawn at random among the other people, people
parted under two names, two people under one name, copies under another name), a network learns from
them, and `clean`'s functions say what is wrong. The accuracy is that of people whom no network saw.
Beside cleaning stand interclass filtering, and sub-centres whose minor centres and far images are
dropped (Deng et al., ECCV 2020): the authors' recipe, 75 degrees and all.

    python -m experiments.noisy_labels                       # cpu: synthetic faces, three seeds
    python -m experiments.noisy_labels --train FACES         # and flips planted in a folder
    python -m experiments.noisy_labels --train FACES --vectors VECTORS.npz   # another's embeddings

Faces are drawn into --runs, runs live there and go on where they stopped; nothing of --train is
written but numbers.
"""

import dataclasses
import functools
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.exams import synthetic_exam
from experiments.study import Options, learn, start
from sphereface_jax import nearest
from sphereface_jax.data.files import write_atomically
from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.data.images import encode_png
from sphereface_jax.data.source import FaceSource
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.data.vectors import load_vectors
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.evaluation.label_noise import LabelNoise, find_noise
from sphereface_jax.evaluation.pairs import unit_rows
from sphereface_jax.training.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)

REMEDIES = ("cleaned", "cleaned twice", "filtered", "subcentres", "minor centres dropped")
NAME, RATE, FARTHEST = "noisy_labels", 0.4, np.cos(np.radians(75))
COSFACE = LossConfig("cosface", scale=16, margin=0)
LOSSES = {
    "cosface": COSFACE,
    "filtered": dataclasses.replace(COSFACE, filter_threshold=0.4),
    "subcentres": LossConfig("subcenter_arcface", scale=16, margin=0),
}
CPU = TrainConfig(
    data=DataConfig(image_size=(32, 24)),
    model=ModelConfig(name="spherenet4", embedding_dim=32, channels=(8, 16, 32, 64)),
    loss=COSFACE,
    optimizer=OptimizerConfig(learning_rate=0.2, schedule="cosine", warmup_steps=50, clip_norm=5.0),
    steps=600,
    batch_size=128,
    log_every=50,
    checkpoint_every=10_000,
)


@dataclass(frozen=True)
class NoisyOptions(Options):
    """What to plant errors into."""

    vectors: tuple[Path, ...] = ()
    """Vectors of the images of --train by other networks, as `sphereface embed` writes them."""
    seeds: int = 3
    """How many sets to draw and to learn."""
    own: bool = True
    """Learn --train too, with its flips; --no-own looks at --vectors alone."""


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces whose labels are right, as far as is known.

    Attributes:
      folder: of <person>/<image>.
      names: of the N images in it.
      truth: [N] whom they show.
    """

    folder: Path
    names: list[str]
    truth: np.ndarray

    @classmethod
    def of(cls, folder: Path) -> "Faces":
        """Those of a folder."""
        source = ImageFolder(folder)
        paths = [Path(source.describe(index)) for index in range(len(source))]
        return cls(folder, [f"{path.parent.name}/{path.name}" for path in paths], source.labels)


def draw_faces(folder: Path, people: int, views: int, size: tuple[int, int], seed: int) -> Faces:
    """Draws <folder>/<person>/<view>.png, once."""
    source = SyntheticFaces(people, views, image_size=size, seed=seed)
    done = folder.with_suffix(".done")
    if not done.is_file():
        for index in range(len(source)):
            face = source[index]
            path = folder / source.identities[face["label"]] / f"{index % views:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(face["image"]))
        done.touch()
    return Faces.of(folder)


def flipped(truth: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """Labels of which a share is drawn anew among the other classes."""
    rng, classes = np.random.default_rng(seed), int(truth.max()) + 1
    moved = rng.integers(1, classes, len(truth)) * (rng.random(len(truth)) < rate)
    return (truth + moved) % classes


def parted(truth: np.ndarray, rate: float) -> np.ndarray:
    """Labels where half of the images of the first people has a name of its own."""
    classes = int(truth.max()) + 1
    return np.where(
        (truth < rate * classes) & (np.arange(len(truth)) % 2 == 1), truth + classes, truth
    )


def joined(truth: np.ndarray, rate: float) -> np.ndarray:
    """Labels where the last people have one name, two and two."""
    classes = int(truth.max()) + 1
    first = classes - 2 * int(rate * classes / 2)
    return np.where(truth >= first, first + (truth - first) // 2 * 2, truth)


def examine_flips(noise: LabelNoise, labels: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Precision and recall of the images flagged, and how many moves go home."""
    flags = [each for each in noise.findings if each.action in ("move", "drop")]
    is_flagged, is_wrong = np.zeros(len(truth), bool), labels != truth
    is_flagged[[each.images[0] for each in flags]] = True
    both = int((is_flagged & is_wrong).sum())
    moves = [each for each in flags if each.action == "move" and is_wrong[each.images[0]]]
    home = [truth[each.images[0]] == each.target for each in moves]
    return {
        "wrong": int(is_wrong.sum()),
        "flagged": int(is_flagged.sum()),
        "flagged_share": round(float(is_flagged.mean()), 4),
        "precision": ratio(both, int(is_flagged.sum())),
        "recall": ratio(both, int(is_wrong.sum())),
        "moves_of_wrong": len(moves),
        "moves_home": ratio(sum(home), len(home)),
        "merges": sum(each.action == "merge" for each in noise.findings),
        "splits": sum(each.action == "split" for each in noise.findings),
        "estimated_wrong": round(noise.wrong, 4),
    }


def examine_names(
    noise: LabelNoise, merges: set[frozenset[int]], splits: set[int]
) -> dict[str, float | None]:
    """Precision and recall of the merges and splits, given the true ones."""
    found = {frozenset((m.identity, m.target)) for m in noise.findings if m.action == "merge"}
    cut = {each.identity for each in noise.findings if each.action == "split"}
    return {
        "merge_precision": ratio(len(found & merges), len(found)),
        "merge_recall": ratio(len(found & merges), len(merges)),
        "split_precision": ratio(len(cut & splits), len(cut)),
        "split_recall": ratio(len(cut & splits), len(splits)),
    }


def ratio(part: int, whole: int) -> float | None:
    """A share, or nothing of nothing."""
    return round(float(part / whole), 4) if whole else None


def look(embeddings: np.ndarray, labels: np.ndarray) -> LabelNoise:
    """What `clean` does with vectors."""
    return find_noise(embeddings, labels, nearest=functools.partial(nearest, class_block=4096))


def embedded(run: Path, faces: FaceSource) -> np.ndarray:
    """Joined embeddings of a run, with those of the mirror images."""
    return np.concatenate(FaceEmbedder.from_run(run).embed_source(faces), axis=1)


def minor_dropped(run: Path, source: FaceSource, labels: np.ndarray) -> np.ndarray:
    """Which images the authors of sub-centre ArcFace keep: near their class's dominant centre."""
    embedder = FaceEmbedder.from_run(run)
    unit = unit_rows(embedder.embed_source(source)[0])
    centres = np.asarray(embedder.run.prototypes)[: labels.max() + 1].astype(np.float64)
    centres /= np.linalg.norm(centres, axis=2, keepdims=True)
    cosines = np.einsum("nd,nkd->nk", unit, centres[labels])
    votes = np.zeros(centres.shape[:2])
    np.add.at(votes, (labels, cosines.argmax(axis=1)), 1)
    return cosines[np.arange(len(labels)), votes.argmax(axis=1)[labels]] >= FARTHEST


def cleaned(noise: LabelNoise, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(labels, which images stay) as `prepare --apply` makes them."""
    new, stays = noise.labels.copy(), np.ones(len(labels), bool)
    for number, each in enumerate(noise.findings):
        rows = list(each.images)
        if each.action == "drop":
            stays[rows] = False
        elif each.action == "move":
            new[rows] = each.target
        elif each.action == "split":
            new[rows] = labels.max() + 1 + number
    return new, stays


class Study:
    """Runs that differ in their labels and their loss, each examined on strangers."""

    def __init__(self, options: NoisyOptions):
        self.folder = options.runs / f"{NAME}_{options.preset}"
        is_smoke = options.preset == "smoke"
        # Fewer steps would teach nothing, and a network that knows nothing cannot judge labels.
        self.base = dataclasses.replace(CPU, steps=60, batch_size=32) if is_smoke else CPU
        self.people, self.views = (12, 8) if is_smoke else (300, 30)
        size = self.base.data.image_size
        self.exam = (
            synthetic_exam(20, 3, size, pairs_per_fold=4)
            if is_smoke
            else synthetic_exam(300, 8, size, pairs_per_fold=600)
        )

    def faces(self, seed: int) -> Faces:
        """The drawn people of a seed."""
        size = self.base.data.image_size
        return draw_faces(self.folder / f"faces_{seed}", self.people, self.views, size, seed)

    def learn(
        self,
        name: str,
        faces: Faces,
        labels: np.ndarray,
        stays: np.ndarray | None = None,
        *,
        loss: str = "cosface",
        seed: int = 0,
        **changes: Any,
    ) -> tuple[Path, float]:
        """Trains on labels, and returns the run and its accuracy on strangers."""
        rows = np.arange(len(labels)) if stays is None else np.flatnonzero(stays)
        lines = [f"{faces.names[row]} {labels[row]}" for row in rows.tolist()]
        listed = self.folder / "lists" / f"{name}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(listed, "\n".join(lines) + "\n")
        data = dataclasses.replace(self.base.data, train=str(listed), root=str(faces.folder))
        data = dataclasses.replace(data, **changes)
        run = self.folder / re.sub(r"\W+", "_", name)
        config = dataclasses.replace(self.base, out=run, data=data, loss=LOSSES[loss], seed=seed)
        found = learn(config, self.exam)
        score = found["verification"]["accuracy_10_fold"] if "verification" in found else 0.5
        print(f"{name}: {score:.4f}", flush=True)
        return run, score


def regained(study: Study, seed: int) -> dict[str, Any]:
    """What 40 % of flips cost, what each remedy gives back, and what was found."""
    faces = study.faces(seed)
    labels = flipped(faces.truth, RATE, seed)
    source = ImageFolder(faces.folder)
    train = functools.partial(study.learn, faces=faces, seed=seed)
    run, scores = {}, {}
    run["clean"], scores["clean"] = train(f"clean_{seed}", labels=faces.truth)
    run["flipped"], scores["flipped"] = train(f"flipped_{seed}", labels=labels)
    noise = look(embedded(run["flipped"], source), labels)
    new, stays = cleaned(noise, labels)
    run["cleaned"], scores["cleaned"] = train(f"cleaned_{seed}", labels=new, stays=stays)
    again = look(embedded(run["cleaned"], source), labels)
    new, stays = cleaned(again, labels)
    _, scores["cleaned twice"] = train(f"twice_{seed}", labels=new, stays=stays)
    _, scores["filtered"] = train(f"filtered_{seed}", labels=labels, loss="filtered")
    run["subcentres"], scores["subcentres"] = train(
        f"subcentres_{seed}", labels=labels, loss="subcentres"
    )
    kept = minor_dropped(run["subcentres"], source, labels)
    _, scores["minor centres dropped"] = train(f"minor_{seed}", labels=labels, stays=kept)
    lost = scores["clean"] - scores["flipped"]
    is_wrong = labels != faces.truth
    return {
        "accuracy": {name: round(score, 4) for name, score in scores.items()},
        "regained": {
            name: round((scores[name] - scores["flipped"]) / lost, 3) if lost > 0 else None
            for name in REMEDIES
        },
        "found": examine_flips(noise, labels, faces.truth),
        "found the second time": examine_flips(again, labels, faces.truth),
        "clean_set": examine_flips(
            look(embedded(run["clean"], source), faces.truth), faces.truth, faces.truth
        ),
        "minor_centres": {
            "precision": ratio(int((~kept & is_wrong).sum()), int((~kept).sum())),
            "recall": ratio(int((~kept & is_wrong).sum()), int(is_wrong.sum())),
        },
    }


def names(study: Study) -> dict[str, Any]:
    """20 % of flips, 30 % of people under two names, and 20 % of people two to a name, at once."""
    faces = study.faces(0)
    truth = parted(joined(faces.truth, 0.2), 0.3)
    truth = np.unique(truth, return_inverse=True)[1]
    labels = flipped(truth, 0.2, 0)
    run, _ = study.learn("names", faces, labels)
    noise = look(embedded(run, ImageFolder(faces.folder)), labels)
    return names_found(noise, labels, truth, faces.truth)


def names_found(
    noise: LabelNoise, labels: np.ndarray, truth: np.ndarray, people: np.ndarray
) -> dict[str, Any]:
    """What was found, where `truth` has the names without the flips and `people` who they are."""
    pairs = np.unique(np.stack([truth, people]), axis=1).T.tolist()
    by_person: dict[int, set[int]] = {}
    by_name: dict[int, set[int]] = {}
    for name, person in pairs:
        by_person.setdefault(person, set()).add(name)
        by_name.setdefault(name, set()).add(person)
    merges = {frozenset(both) for both in by_person.values() if len(both) > 1}
    splits = {name for name, both in by_name.items() if len(both) > 1}
    # An image moved to the other name of its person is at home.
    home = np.arange(truth.max() + 1)
    for both in merges:
        home[list(both)] = min(both)
    at_home = [
        each._replace(target=int(home[each.target])) if each.target >= 0 else each
        for each in noise.findings
    ]
    return examine_names(noise, merges, splits) | examine_flips(
        dataclasses.replace(noise, findings=at_home), home[labels], home[truth]
    )


def planted(embeddings: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Errors of each kind, planted into the labels of another network's vectors."""
    found = {"none": examine_flips(look(embeddings, truth), truth, truth)}
    for rate in (0.2, 0.4):
        labels = flipped(truth, rate, 0)
        found[f"flips {rate:g}"] = examine_flips(look(embeddings, labels), labels, truth)
    both = np.unique(parted(joined(truth, 0.2), 0.3), return_inverse=True)[1]
    found["names"] = names_found(look(embeddings, both), both, both, truth)
    copies = np.random.default_rng(0).permutation(len(truth))[: len(truth) // 50]
    more = np.concatenate([embeddings, embeddings[copies]])
    right = np.append(truth, truth[copies])
    labels = np.append(truth, flipped(truth[copies], 1.0, 0))
    found["copies"] = examine_flips(look(more, labels), labels, right)
    return found


def real(study: Study, options: NoisyOptions) -> dict[str, Any]:
    """Flips in the labels of --train, by vectors of other networks and by one that learnt them."""
    found: dict[str, Any] = {}
    if options.train is None:
        return found
    faces = Faces.of(Path(options.train))
    for path in options.vectors:
        stored = load_vectors(path)
        rows = stored.find_rows(faces.names)
        if (rows < 0).any():
            raise ValueError(
                f"{path}: expected vectors of all of {options.train}, some are missing"
            )
        found[path.stem] = planted(stored.embeddings[rows], faces.truth)
    if options.own:
        size = {"image_size": (56, 48), "resize": True} if options.preset == "cpu" else {}
        for rate in (0.2, 0.4):
            labels = flipped(faces.truth, rate, 0)
            run, _ = study.learn(f"real_{rate:g}", faces, labels, **size)
            noise = look(embedded(run, ImageFolder(faces.folder)), labels)
            found[f"learnt with {rate:g} flipped"] = examine_flips(noise, labels, faces.truth)
    return found


def main(options: NoisyOptions) -> None:
    """Plants, learns, looks, and writes what came of it."""
    out, began, machine = options.results_file(NAME), time.perf_counter(), describe_machine()
    study = Study(options)
    results: dict[str, Any] = {"experiment": NAME, "preset": options.preset, "rate": RATE}
    results["regained"] = {seed: regained(study, seed) for seed in range(options.seeds)}
    for name in REMEDIES:
        shares = [each["regained"][name] for each in results["regained"].values()]
        known = [share for share in shares if share is not None]
        results.setdefault("mean_regained", {})[name] = (
            round(float(np.mean(known)), 3) if known else None
        )
    results["names"] = names(study)
    strangers = study.faces(1)
    run = study.folder / "clean_0"
    results["another network"] = planted(
        embedded(run, ImageFolder(strangers.folder)), strangers.truth
    )
    results["real"] = real(study, options)
    results |= {"exam": study.exam.title, "machine": machine}
    write_results(out, results | {"seconds": round(time.perf_counter() - began, 1)})


if __name__ == "__main__":
    start(main, NoisyOptions, __doc__)
