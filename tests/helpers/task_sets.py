"""Small sets for every task, whose right answers are computed on paper."""

import json
from pathlib import Path

import numpy as np
from command import call
from faces_on_disk import write_image

from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.data.vectors import FaceVectors, save_vectors

FACES = SyntheticFaces(6, 4, image_size=(24, 16))


def store(path: Path, vectors: dict[str, list[float] | np.ndarray]) -> Path:
    """Writes vectors by image path."""
    save_vectors(path, FaceVectors(list(vectors), np.array(list(vectors.values()), float)))
    return path


def write_lines(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def evaluate(tmp_path: Path, *args: object) -> dict:
    """Runs the command and returns the protocols of its JSON."""
    out = tmp_path / "out.json"
    assert call("evaluate", *args, "--json", out) == 0
    return json.loads(out.read_text())["protocols"]


def people_pairs(directory: Path, *, people: int = 6) -> Path:
    """Two folds of pairs of images 1 and 2 of each person, and of 1 with the next person's 2."""
    lines = [f"2\t{people // 2}"]
    for fold in np.split(np.arange(people), 2):
        lines += [f"P{person}\t1\t2" for person in fold]
        lines += [f"P{person}\t1\tP{(person + 1) % people}\t2" for person in fold]
    return write_lines(directory / "pairs.txt", *lines)


def people_folder(directory: Path, people: int = 6, views: int = 2) -> Path:
    for person in range(people):
        for view in range(views):
            image = FACES[4 * person + view]["image"]
            write_image(directory / f"P{person}" / f"P{person}_{view + 1:04d}.png", image)
    return directory


def angles(**degrees: float) -> dict[str, list[float]]:
    """Vectors on a half circle by the images' names, `P0_1` for the first image of P0."""
    return {
        f"lfw/{name[:2]}/{name[:2]}_000{name[3]}.jpg": [
            np.cos(np.radians(angle)),
            np.sin(np.radians(angle)),
        ]
        for name, angle in degrees.items()
    }


# A's and B's second images are nearest to their first, B's third to A's first; C has one image,
# nearer to A than anything but A's own.
PEOPLE = {
    "s/A/1.jpg": [1.0, 0.0, 0.0],
    "s/A/2.jpg": [0.9, 0.1, 0.0],
    "s/B/1.jpg": [0.0, 1.0, 0.0],
    "s/B/2.jpg": [0.0, 0.9, 0.1],
    "s/B/3.jpg": [0.8, 0.6, 0.0],
    "s/C/1.jpg": [0.9, 0.0, 0.3],
}


def videos(tmp_path: Path) -> tuple[Path, dict[str, list[float]]]:
    """Two splits of six video pairs each, and two frames a video, by angle."""
    lines = ["split number, pair number, first name, second name, same, is same"]
    vectors = {}
    for person in range(6):
        for video, degrees in ((0, 20.0 * person), (1, 20.0 * person + 2)):
            for frame, sway in ((1, -1.0), (2, 1.0)):
                angle = np.radians(degrees + sway)
                vectors[f"db/P{person}/{video}/{video}.{frame}.jpg"] = [
                    np.cos(angle),
                    np.sin(angle),
                ]
        split = person // 3 + 1
        lines.append(f"{split}, 1, P{person}/0, P{person}/1, 1, 1")
        lines.append(f"{split}, 2, P{person}/0, P{(person + 1) % 6}/1, 0, 0")
    return write_lines(tmp_path / "splits.txt", *lines), vectors


def megaface_lists(tmp_path: Path) -> list[object]:
    probes = {"path": ["A/1.png", "A/2.png", "B/1.png", "B/2.png"], "id": ["A", "A", "B", "B"]}
    distractors = {"path": ["0/x@N00/1.jpg", "0/x@N00/2.jpg", "0/y@N00/1.jpg"]}
    for name, content in (("probes", probes), ("distractors", distractors)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return [
        *("--megaface.probes", tmp_path / "probes.json"),
        *("--megaface.distractors", tmp_path / "distractors.json"),
    ]


MEGAFACE = {
    "facescrub/A/1.png": [1.0, 0.0, 0.0],
    "facescrub/A/2.png": [0.8, 0.6, 0.0],  # 0.8 from its mate
    "facescrub/B/1.png": [0.0, 0.0, 1.0],
    "facescrub/B/2.png": [0.0, 0.6, 0.8],
    "0/x@N00/1.jpg": [0.9, 0.0, np.sqrt(0.19)],  # 0.9 from A/1, 0.72 from A/2, 0.44 from B/1
    "0/x@N00/2.jpg": [0.0, -1.0, 0.0],
    "0/y@N00/1.jpg": [-1.0, 0.0, 0.0],
}


def ijb_folder(directory: Path) -> Path:
    """Templates 1 to 6: 1 and 4 show person 10, 2 and 5 person 20, 3 and 6 person 30.

    Template 1 is two frames of a medium and a still; the others are a still each.
    """
    directory.mkdir()
    templates = [(1, 7), (1, 7), (1, 8), (2, 9), (3, 10), (4, 11), (5, 12), (6, 13)]
    write_lines(
        directory / "ijbc_face_tid_mid.txt",
        *(f"{n}.jpg {template} {media}" for n, (template, media) in enumerate(templates, 1)),
    )
    points = "30 51 65 51 48 71 33 92 62 92"
    write_lines(
        directory / "ijbc_name_5pts_score.txt", *(f"{n}.jpg {points} 0.5" for n in range(1, 9))
    )
    write_lines(directory / "ijbc_template_pair_label.txt", "1 4 1", "2 5 1", "3 6 1", "1 5 0")
    header = "TEMPLATE_ID,SUBJECT_ID"
    write_lines(directory / "ijbc_1N_gallery_G1.csv", header, "1,10", "2,20")
    write_lines(directory / "ijbc_1N_gallery_G2.csv", header, "3,30")
    write_lines(directory / "ijbc_1N_probe_mixed.csv", header, "4,10", "5,20", "6,30")
    return directory


# The frames of template 1 point along x and -x, its medium so nowhere, and the still alone decides.
IJB = {
    "crops/1.jpg": [1.0, 0.0, 0.0],
    "crops/2.jpg": [-1.0, 0.0, 0.0],
    "crops/3.jpg": [0.0, 1.0, 0.0],
    "crops/4.jpg": [0.0, 0.0, 1.0],
    "crops/5.jpg": [1.0, 1.0, 1.0],
    "crops/6.jpg": [0.0, 1.0, 0.1],
    "crops/7.jpg": [0.1, 0.0, 1.0],
    "crops/8.jpg": [0.2, 0.9, 0.0],  # template 6 looks more like 1 (0.976) than like 3 (0.689)
}
