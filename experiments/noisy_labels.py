"""Labels that lie: are planted errors found, and what of the accuracy that they cost comes back?

Labels are made wrong on purpose (a share of them drawn at random among the other people, people
parted under two names, two people under one name, copies under another name), a network learns from
them, and `clean`'s functions say what is wrong. The accuracy is that of people whom no network saw.
Beside cleaning stand interclass filtering, and sub-centres whose minor centres and far images are
dropped (Deng et al., ECCV 2020): the authors' recipe, 75 degrees and all.

    python -m experiments.noisy_labels                       # cpu: synthetic faces, three seeds
    python -m experiments.noisy_labels --preset faces --train FACES --vectors VECTORS.npz

The second plants into a folder of real faces and looks by another network's vectors, by a small
network that learns the wrong labels, and by both together. Such a folder has errors of its own, so
each precision is also given beyond what is found where nothing was planted.

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
from sphereface_jax.evaluation.label_noise import LabelNoise, agreed, find_noise
from sphereface_jax.evaluation.pairs import unit_rows
from sphereface_jax.training.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)

CLEANED = ("cleaned", "cleaned twice", "cleaned three times", "cleaned four times")
REMEDIES = (*CLEANED, "filtered", "subcentres", "minor centres dropped")
NAME, RATE, FARTHEST = "noisy_labels", 0.4, np.cos(np.radians(75))
COSFACE = LossConfig("cosface", scale=16, margin=0)
LOSSES = {
    "cosface": COSFACE,
    "filtered": dataclasses.replace(COSFACE, filter_threshold=0.4),
    "subcentres": LossConfig("subcenter_arcface", scale=16, margin=0),
}
CPU = TrainConfig(
    data=DataConfig(image_size=(32, 24)),
    model=ModelConfig(name="sfnet10_bn", embedding_dim=64, channels=(16, 32, 64, 128)),
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

    vectors: Path | None = None
    """Vectors of the images of --train by another network, as `sphereface embed` writes them."""
    seeds: int = 3
    """How many sets to draw and to learn."""
    own: bool = True
    """Learn --train too, with its flips; --no-own looks by --vectors alone."""


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


def planted_names(truth: np.ndarray) -> np.ndarray:
    """30 % of people under two names, and 20 % of people two to a name."""
    return np.unique(parted(joined(truth, 0.2), 0.3), return_inverse=True)[1]


def flagged(noise: LabelNoise) -> np.ndarray:
    """[N], the images to move or to drop."""
    is_flagged = np.zeros(len(noise.labels), bool)
    flags = [each.images[0] for each in noise.findings if each.action in ("move", "drop")]
    is_flagged[flags] = True
    return is_flagged


def examine_flips(
    noise: LabelNoise, labels: np.ndarray, truth: np.ndarray, natural: np.ndarray | bool = False
) -> dict[str, Any]:
    """Precision and recall of the images flagged, and how many moves go home.

    Args:
      noise: what was found.
      labels: [N], in which it was.
      truth: [N], what they were before errors were planted.
      natural: [N], images flagged in `truth` itself: whether they are wrong is not known.

    Returns:
      By name.
    """
    flags = [each for each in noise.findings if each.action in ("move", "drop")]
    is_flagged, is_wrong = flagged(noise), labels != truth
    both = int((is_flagged & is_wrong).sum())
    moves = [each for each in flags if each.action == "move" and is_wrong[each.images[0]]]
    home = [truth[each.images[0]] == each.target for each in moves]
    return {
        "wrong": int(is_wrong.sum()),
        "flagged": int(is_flagged.sum()),
        "flagged_share": round(float(is_flagged.mean()), 4),
        "precision": ratio(both, int(is_flagged.sum())),
        "precision_beyond": ratio(
            both, int((is_flagged & (is_wrong | ~np.asarray(natural))).sum())
        ),
        "recall": ratio(both, int(is_wrong.sum())),
        "moves_of_wrong": len(moves),
        "moves_home": ratio(sum(home), len(home)),
        "merges": sum(each.action == "merge" for each in noise.findings),
        "splits": sum(each.action == "split" for each in noise.findings),
        "estimated_wrong": round(noise.wrong, 4),
    }


def examine_names(
    noise: LabelNoise,
    merges: set[frozenset[int]],
    splits: set[int],
    natural: frozenset[int] = frozenset(),
) -> dict[str, float | None]:
    """Precision and recall of the merges and splits.

    Args:
      noise: what was found.
      merges: the true ones.
      splits: the true ones.
      natural: names that were to be split before any were joined.

    Returns:
      By name.
    """
    found = {frozenset((m.identity, m.target)) for m in noise.findings if m.action == "merge"}
    cut = {each.identity for each in noise.findings if each.action == "split"}
    return {
        "merge_precision": ratio(len(found & merges), len(found)),
        "merge_recall": ratio(len(found & merges), len(merges)),
        "split_precision": ratio(len(cut & splits), len(cut)),
        "split_precision_beyond": ratio(len(cut & splits), len(cut - (natural - splits))),
        "split_recall": ratio(len(cut & splits), len(splits)),
    }


def ratio(part: int, whole: int) -> float | None:
    """A share, or nothing of nothing."""
    return round(float(part / whole), 4) if whole else None


def look(embeddings: np.ndarray, labels: np.ndarray) -> LabelNoise:
    """What `clean` does with vectors, without its blocks of classes, for there are few."""
    return find_noise(embeddings, labels, nearest=nearest)


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
        self.folder = options.runs / options.title(NAME)
        is_smoke = options.preset == "smoke"
        # Fewer steps would teach nothing, and a network that knows nothing cannot judge labels.
        self.base = dataclasses.replace(CPU, steps=60, batch_size=32) if is_smoke else CPU
        if options.preset == "faces":
            real = DataConfig(image_size=(48, 40), resize=True)
            self.base = dataclasses.replace(CPU, data=real)
        self.people, self.views = (12, 8) if is_smoke else (300, 30)
        size = self.base.data.image_size
        self.exam = (
            synthetic_exam(20, 3, size, pairs_per_fold=4)
            if options.preset != "cpu"
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
    ) -> tuple[Path, float]:
        """Trains on labels, and returns the run and its accuracy on strangers."""
        rows = np.arange(len(labels)) if stays is None else np.flatnonzero(stays)
        lines = [f"{faces.names[row]} {labels[row]}" for row in rows.tolist()]
        listed = self.folder / "lists" / f"{name}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(listed, "\n".join(lines) + "\n")
        data = dataclasses.replace(self.base.data, train=str(listed), root=str(faces.folder))
        run = self.folder / re.sub(r"\W+", "_", name)
        config = dataclasses.replace(self.base, out=run, data=data, loss=LOSSES[loss], seed=seed)
        found = learn(config, self.exam)
        score = found["verification"]["accuracy_10_fold"] if "verification" in found else 0.5
        print(f"{name}: {score:.4f}", flush=True)
        return run, score


def regained(study: Study, seed: int) -> dict[str, Any]:
    """What 40 % of flips cost, what each remedy gives back, and what was found.

    Each round looks at the first labels again, by what learnt those that the round before left. The
    remedies beside cleaning are tried on the first seed alone.
    """
    faces = study.faces(seed)
    labels = flipped(faces.truth, RATE, seed)
    source = ImageFolder(faces.folder)
    train = functools.partial(study.learn, faces=faces, seed=seed)
    run, scores = {}, {}
    run["clean"], scores["clean"] = train(f"clean_{seed}", labels=faces.truth)
    run["flipped"], scores["flipped"] = train(f"flipped_{seed}", labels=labels)
    found, teacher = {}, run["flipped"]
    for name in CLEANED:
        noise = look(embedded(teacher, source), labels)
        found[f"found, then {name}"] = examine_flips(noise, labels, faces.truth)
        new, stays = cleaned(noise, labels)
        teacher, scores[name] = train(f"{name}_{seed}", labels=new, stays=stays)
    clean_set = look(embedded(run["clean"], source), faces.truth)
    found["clean_set"] = examine_flips(clean_set, faces.truth, faces.truth)
    if seed == 0:
        _, scores["filtered"] = train(f"filtered_{seed}", labels=labels, loss="filtered")
        run["subcentres"], scores["subcentres"] = train(
            f"subcentres_{seed}", labels=labels, loss="subcentres"
        )
        kept = minor_dropped(run["subcentres"], source, labels)
        _, scores["minor centres dropped"] = train(f"minor_{seed}", labels=labels, stays=kept)
        is_wrong = labels != faces.truth
        found["minor_centres"] = {
            "precision": ratio(int((~kept & is_wrong).sum()), int((~kept).sum())),
            "recall": ratio(int((~kept & is_wrong).sum()), int(is_wrong.sum())),
        }
    lost = scores["clean"] - scores["flipped"]
    return {
        "accuracy": {name: round(score, 4) for name, score in scores.items()},
        "regained": {
            name: round((scores[name] - scores["flipped"]) / lost, 3) if lost > 0 else None
            for name in REMEDIES
            if name in scores
        },
        **found,
    }


def names(study: Study) -> dict[str, Any]:
    """20 % of flips, 30 % of people under two names, and 20 % of people two to a name, at once."""
    faces = study.faces(0)
    truth = planted_names(faces.truth)
    labels = flipped(truth, 0.2, 0)
    run, _ = study.learn("names", faces, labels)
    noise = look(embedded(run, ImageFolder(faces.folder)), labels)
    return names_found(noise, labels, truth, faces.truth)


def names_found(
    noise: LabelNoise,
    labels: np.ndarray,
    truth: np.ndarray,
    people: np.ndarray,
    natural: frozenset[int] = frozenset(),
) -> dict[str, Any]:
    """What was found of names.

    Args:
      noise: what was found.
      labels: [N], in which it was.
      truth: [N], the names without the flips.
      people: [N], who they are.
      natural: people of whom two were found where nothing was planted.

    Returns:
      By name.
    """
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
    odd = frozenset(truth[np.isin(people, list(natural))].tolist())
    return examine_names(noise, merges, splits, odd) | examine_flips(
        dataclasses.replace(noise, findings=at_home), home[labels], home[truth]
    )


def planted(embeddings: np.ndarray, truth: np.ndarray, seeds: int = 1) -> dict[str, Any]:
    """Errors of each kind, planted into the labels of another network's vectors.

    Args:
      embeddings: [N, D].
      truth: [N].
      seeds: how many sets of flips to draw.

    Returns:
      What was found, by what was planted.
    """
    none = look(embeddings, truth)
    found = {"none": examine_flips(none, truth, truth)}
    natural = flagged(none)
    for rate in (0.2, 0.4):
        for seed in range(seeds):
            labels = flipped(truth, rate, seed)
            found[f"flips {rate:g}" + f", seed {seed}" * (seed > 0)] = examine_flips(
                look(embeddings, labels), labels, truth, natural
            )
    both = planted_names(truth)
    odd = frozenset(each.identity for each in none.findings if each.action == "split")
    found["names"] = names_found(look(embeddings, both), both, both, truth, odd)
    copies = np.random.default_rng(0).permutation(len(truth))[: len(truth) // 50]
    more = np.concatenate([embeddings, embeddings[copies]])
    right = np.append(truth, truth[copies])
    labels = np.append(truth, flipped(truth[copies], 1.0, 0))
    found["copies"] = examine_flips(
        look(more, labels), labels, right, np.append(natural, natural[copies])
    )
    return found


def real(study: Study, options: NoisyOptions) -> dict[str, Any]:
    """Errors of --train, by another network's vectors, by one that learnt them, and by both."""
    options.require("train")
    if options.vectors is None:
        raise ValueError("--vectors: the faces preset needs them, got none")
    faces = Faces.of(Path(str(options.train)))
    stored = load_vectors(options.vectors)
    rows = stored.find_rows(faces.names)
    if (rows < 0).any():
        raise ValueError(
            f"{options.vectors}: expected vectors of all of {options.train}, some are missing"
        )
    vectors, truth = stored.embeddings[rows], faces.truth
    found = {"by vectors": planted(vectors, truth, options.seeds)}
    return found | (by_own_network(study, faces, vectors) if options.own else {})


def by_own_network(study: Study, faces: Faces, vectors: np.ndarray) -> dict[str, Any]:
    """What networks find in the wrong labels that they learnt, alone and where vectors agree.

    Args:
      study: whose runs they are.
      faces: real ones.
      vectors: [N, D], of their images, by another network.

    Returns:
      What was found, by what was planted.
    """
    none, source, truth = look(vectors, faces.truth), ImageFolder(faces.folder), faces.truth
    odd = frozenset(each.identity for each in none.findings if each.action == "split")
    flips, two_names = flipped(truth, 0.2, 0), planted_names(truth)

    def look_by_own(name: str, labels: np.ndarray, *kept: np.ndarray) -> LabelNoise:
        run, _ = study.learn(f"real {name}", faces, *kept)
        return look(embedded(run, source), labels)

    first = look_by_own("flips 0.2", flips, flips)
    again = look_by_own("flips 0.2, cleaned once", flips, *cleaned(first, flips))
    of_names = look_by_own("names", two_names, two_names)
    second, second_of_names = look(vectors, flips), look(vectors, two_names)

    def judge_flips(noise: LabelNoise) -> dict[str, Any]:
        return examine_flips(noise, flips, truth, flagged(none))

    def judge_names(noise: LabelNoise) -> dict[str, Any]:
        return names_found(noise, two_names, two_names, truth, odd)

    found = {}
    for name, own, other, judge in (
        ("flips 0.2", first, second, judge_flips),
        ("flips 0.2, cleaned once", again, second, judge_flips),
        ("names", of_names, second_of_names, judge_names),
    ):
        both = dataclasses.replace(own, findings=agreed(own.findings, other.findings))
        found[f"{name}, by a network that learnt them"] = judge(own)
        found[f"{name}, by both"] = judge(both)
    return found


def main(options: NoisyOptions) -> None:
    """Plants, learns, looks, and writes what came of it."""
    out, began, machine = options.results_file(NAME), time.perf_counter(), describe_machine()
    study = Study(options)
    results: dict[str, Any] = {"experiment": NAME, "preset": options.preset, "rate": RATE}
    if options.preset == "faces":
        results["real"] = real(study, options)
        results |= {"machine": machine}
        write_results(out, results | {"seconds": round(time.perf_counter() - began, 1)})
        return
    results["regained"] = {seed: regained(study, seed) for seed in range(options.seeds)}
    for name in REMEDIES:
        by_seed = [each["regained"].get(name) for each in results["regained"].values()]
        known = [share for share in by_seed if share is not None]
        results.setdefault("mean_regained", {})[name] = (
            round(float(np.mean(known)), 3) if known else None
        )
    results["names"] = names(study)
    strangers = study.faces(1)
    run = study.folder / "clean_0"
    results["another network"] = planted(
        embedded(run, ImageFolder(strangers.folder)), strangers.truth
    )
    results |= {"exam": study.exam.title, "machine": machine}
    write_results(out, results | {"seconds": round(time.perf_counter() - began, 1)})


if __name__ == "__main__":
    start(main, NoisyOptions, __doc__)
