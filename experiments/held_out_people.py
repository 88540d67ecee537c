"""Parts a folder of people once and for all: who is trained on, and who is only ever tested.

    python -m experiments.held_out_people --faces FACES --vectors VECTORS.npz --out SPLIT

writes SPLIT/train.txt, a list for `sphereface train --data.train` with `--data.root FACES`, and of
the people held out pairs.txt in LFW's format, the folders people/ and open_set/ of links to their
images, and MegaFace's lists probes.json and distractors.json, in which the trained people are the
distractors. Sets from the web hold some people under two names. Those whose mean vectors, by
another network, are close are one identity of train.txt, so that neither this split nor
`--val.fraction` parts the two; who is held out has one name only.
"""

from pathlib import Path

import numpy as np
import tyro

from sphereface_jax.data.files import write_atomically, write_json
from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.data.vectors import identity_of, load_vectors
from sphereface_jax.evaluation.draw_pairs import verification_pairs

FOLDS = 10


def close_means(people: np.ndarray, embeddings: np.ndarray, limit: float) -> list[tuple[str, str]]:
    """The pairs of people whose mean directions are at a cosine above `limit`.

    Args:
      people: [N] whose each vector is.
      embeddings: [N, D].
      limit: on the cosine.
    """
    names, rows = np.unique(people, return_inverse=True)
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    means = np.zeros((len(names), embeddings.shape[1]), np.float64)
    np.add.at(means, rows, directions)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    first, second = np.nonzero(np.triu(means @ means.T > limit, 1))
    return [(str(names[a]), str(names[b])) for a, b in zip(first, second, strict=True)]


def one_name(names: tuple[str, ...], same: list[tuple[str, str]]) -> dict[str, str]:
    """A name for each name: the first of all that `same` joins with it."""
    found = {name: name for name in names}
    for pair in same:
        low, high = sorted(found[name] for name in pair)
        found = {name: low if joined == high else joined for name, joined in found.items()}
    return found


def main(
    faces: Path,
    vectors: Path,
    out: Path,
    held: int = 500,
    pairs: int = 6000,
    limit: float = 0.7,
    seed: int = 0,
) -> None:
    """Writes the lists.

    Args:
      faces: folder <identity>/<image>.
      vectors: of its images, paths and embeddings by any good network.
      out: where the lists go; what is there is not written over.
      held: how many people to hold out.
      pairs: how many pairs of them to draw.
      limit: above this cosine of their means two names are one person.
      seed: who is held out, and the pairs.

    Raises:
      FileExistsError: there is a split already.
      ValueError: a person without a vector.
    """
    if out.exists():
        raise FileExistsError(f"{out}: there is a split already; training may have begun on it")
    source = ImageFolder(faces)
    stored = load_vectors(vectors)
    people = np.array([identity_of(path) for path in stored.paths])
    if missing := sorted(set(source.identities) - set(people.tolist())):
        raise ValueError(
            f"{vectors}: expected vectors of everybody in {faces}, none of {missing[0]}"
        )
    same = close_means(people, stored.embeddings, limit)
    joined = one_name(source.identities, same)
    alone = sorted(set(source.identities).difference(name for pair in same for name in pair))
    chosen = np.random.Generator(np.random.Philox(seed)).permutation(len(alone))[:held]
    tested = sorted(alone[place] for place in chosen)

    paths = [Path(source.describe(index)) for index in range(len(source))]
    by_person: dict[str, list[Path]] = {name: [] for name in source.identities}
    for path in paths:
        by_person[path.parent.name].append(path)
    trained = [name for name in source.identities if name not in set(tested)]
    label = {name: number for number, name in enumerate(sorted({joined[n] for n in trained}))}
    lines = [
        f"{name}/{path.name} {label[joined[name]]}" for name in trained for path in by_person[name]
    ]
    out.mkdir(parents=True)
    write_atomically(out / "train.txt", "\n".join(lines) + "\n")

    for number, name in enumerate(tested):
        for view, path in enumerate(by_person[name], start=1):
            folders = ["people"] if number % 2 and view > 1 else ["people", "open_set"]
            for folder in folders:
                link = out / folder / name / f"{name}_{view:04d}{path.suffix}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())
    views = [(name, view) for name in tested for view in range(1, len(by_person[name]) + 1)]
    write_pairs(out / "pairs.txt", views, pairs, seed)
    probes = [
        (name, f"{name}/{name}_{view:04d}{by_person[name][view - 1].suffix}")
        for name, view in views
    ]
    write_json(out / "probes.json", {"path": [p for _, p in probes], "id": [n for n, _ in probes]})
    first = {joined[name]: f"{name}/{by_person[name][0].name}" for name in reversed(trained)}
    write_json(out / "distractors.json", {"path": sorted(first.values())})
    write_json(
        out / "split.json", {"seed": seed, "limit": limit, "one_person": same, "held_out": tested}
    )
    print(
        f"{len(source.identities)} names, {len(paths)} images; {len(same)} pairs of names are one "
        f"person\ntrained on: {len(label)} people, {len(lines)} images\n"
        f"held out: {len(tested)} people, {len(views)} images"
    )


def write_pairs(path: Path, views: list[tuple[str, int]], count: int, seed: int) -> None:
    """LFW's pairs.txt: ten folds that share nobody, half of each of the same person."""
    labels = np.unique([name for name, _ in views], return_inverse=True)[1]
    left, right, is_same, _ = verification_pairs(
        labels, pairs_per_fold=count // FOLDS // 2 * 2, num_folds=FOLDS, seed=seed
    )
    lines = [f"{FOLDS}\t{len(left) // FOLDS // 2}"]
    for a, b, same in zip(left, right, is_same, strict=True):
        (name, view), (other, other_view) = views[a], views[b]
        lines.append(f"{name}\t{view}\t" + ("" if same else f"{other}\t") + f"{other_view}")
    write_atomically(path, "\n".join(lines) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
