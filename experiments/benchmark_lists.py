"""Small stand-ins for the paper's benchmarks, in the layouts that the real ones have.

CASIA-WebFace, LFW, YouTube Faces and MegaFace cannot be given away. What is drawn here has their
files and folders, so that the commands that read those can be tried without them.
"""

from pathlib import Path

from sphereface_jax.data.files import write_atomically, write_json
from sphereface_jax.data.finder import find_images_below
from sphereface_jax.data.images import encode_png
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.data.vectors import identity_of

FOLDS, PROBES_OF_ONE = 10, 5


def draw_people(folder: Path, people: int, views: int, size: tuple[int, int], first: int) -> None:
    """Synthetic people as FOLDER/P000007/P000007_0001.png, numbered from `first`."""
    faces = SyntheticFaces(people, views, image_size=size, first_identity=first)
    for index in range(len(faces)):
        number, view = divmod(index, views)
        person = _person(first + number)
        path = folder / person / f"{person}_{view + 1:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(faces[index]["image"]))


def _person(number: int) -> str:
    return f"P{number:06d}"


def write_pairs(path: Path, first: int) -> None:
    """LFW's pairs.txt on twenty people of `draw_people`: four pairs a fold, two people a fold."""
    lines = [f"{FOLDS}\t2"]
    for fold in range(FOLDS):
        one, other = _person(first + 2 * fold), _person(first + 2 * fold + 1)
        lines += [f"{person}\t1\t2" for person in (one, other)]
        lines += [f"{one}\t{view}\t{other}\t{view}" for view in (1, 2)]
    write_atomically(path, "\n".join(lines) + "\n")


def draw_videos(folder: Path, size: tuple[int, int], first: int) -> None:
    """Two videos of three frames of each of twenty people, as FOLDER/P000007/1/000002.png."""
    faces = SyntheticFaces(2 * FOLDS, 6, image_size=size, first_identity=first)
    for index in range(len(faces)):
        number, view = divmod(index, 6)
        video, frame = divmod(view, 3)
        path = folder / _person(first + number) / str(video) / f"{frame:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(faces[index]["image"]))


def write_splits(path: Path, first: int) -> None:
    """YouTube Faces' splits.txt on the videos of `draw_videos`."""
    lines = ["split number, pair number, first name, second name, similarity, is same"]
    for fold in range(FOLDS):
        one, other = _person(first + 2 * fold), _person(first + 2 * fold + 1)
        pairs = [(one, one, 1), (other, other, 1), (one, other, 0), (other, one, 0)]
        lines += [
            f"{fold + 1}, {number}, {left}/0, {right}/1, 0.5, {same}"
            for number, (left, right, same) in enumerate(pairs)
        ]
    write_atomically(path, "\n".join(lines) + "\n")


def write_megaface_lists(images: Path, probes: Path, distractors: Path) -> None:
    """MegaFace's two lists out of a folder of people: those with one image are the distractors.

    Raises:
      ValueError: nobody has two images, or nobody only one.
    """
    by_person: dict[str, list[str]] = {}
    for path in find_images_below(images).paths:
        name = path.relative_to(images).as_posix()
        by_person.setdefault(identity_of(name), []).append(name)
    several = {person: names for person, names in by_person.items() if len(names) > 1}
    chosen = [(name, who) for who, names in several.items() for name in names[:PROBES_OF_ONE]]
    alone = [names[0] for names in by_person.values() if len(names) == 1]
    if not chosen or not alone:
        raise ValueError(
            f"{images}: expected people with several images and people with one, found "
            f"{len(several)} and {len(alone)}"
        )
    write_json(probes, {"path": [name for name, _ in chosen], "id": [who for _, who in chosen]})
    write_json(distractors, {"path": alone})
