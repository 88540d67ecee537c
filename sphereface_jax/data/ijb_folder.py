"""The folder of IJB-B or IJB-C: its published files, those that are there, read together."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sphereface_jax.data.ijb import (
    IjbFaces,
    IjbPairs,
    IjbSubjects,
    IjbTemplates,
    read_ijb_faces,
    read_ijb_matches,
    read_ijb_pairs,
    read_ijb_subjects,
    read_ijb_templates,
)
from sphereface_jax.data.text import existing_folder

_TEMPLATES = "_face_tid_mid.txt"


@dataclasses.dataclass(frozen=True)
class IjbLists:
    """What the folder of one benchmark says.

    Attributes:
      title: the beginning of its files' names, ijbb or ijbc.
      templates: which template and medium each image belongs to.
      faces: landmarks and scores of the images, in the same order, or None.
      pairs: the template pairs of 1:1, or None.
      probes: who the probe templates show, or None.
      galleries: who the templates of each gallery show; empty without probes.
    """

    title: str
    templates: IjbTemplates
    faces: IjbFaces | None
    pairs: IjbPairs | None
    probes: IjbSubjects | None
    galleries: tuple[IjbSubjects, ...]


def read_ijb(folder: Path) -> IjbLists:
    """Reads the files of IJB-B or IJB-C that a folder has.

    Raises:
      FileNotFoundError: no such folder, or it has no `*_face_tid_mid.txt`.
      ValueError: a file is damaged, does not fit the others, or there are two of its kind.
    """
    existing_folder(folder, "a folder of IJB's files")
    templates_path = _only(folder, f"*{_TEMPLATES}")
    if templates_path is None:
        raise FileNotFoundError(f"{folder}: expected a file *{_TEMPLATES} in it, found none")
    templates = read_ijb_templates(templates_path)
    faces, pairs, probes = None, None, None
    galleries: tuple[IjbSubjects, ...] = ()
    if (path := _only(folder, "*_name_5pts_score.txt")) is not None:
        faces = read_ijb_faces(path)
        _check_faces(path, faces, templates_path, templates.names)
    if (path := _only(folder, "*_1N_probe_mixed.csv")) is not None:
        probes = read_ijb_subjects(path)
        galleries = tuple(map(read_ijb_subjects, sorted(folder.glob("*_1N_gallery_*.csv"))))
    if (path := _only(folder, "*_template_pair_label.txt")) is not None:
        pairs = read_ijb_pairs(path)
    elif probes is not None and (path := _only(folder, "*_11_[GS]1_[GS]2_matches.csv")):
        pairs = read_ijb_matches(path, probes, *galleries)
    title = templates_path.name.removesuffix(_TEMPLATES)
    return IjbLists(title, templates, faces, pairs, probes, galleries)


def _only(folder: Path, pattern: str) -> Path | None:
    """The one file of a pattern in a folder, if there is one."""
    found = sorted(folder.glob(pattern))
    if len(found) > 1:
        raise ValueError(
            f"{folder}: expected one file {pattern}, found {found[0].name} and {found[1].name}; "
            "give each benchmark a folder of its own"
        )
    return found[0] if found else None


def _check_faces(path: Path, faces: IjbFaces, templates_path: Path, names: Sequence[str]) -> None:
    """Refuses landmarks that are not, line by line, those of the images of the templates."""
    if len(faces.names) != len(names):
        raise ValueError(
            f"{path} and {templates_path}: expected one line per image in both, found "
            f"{len(faces.names)} and {len(names)} lines"
        )
    first_line: dict[str, int] = {}
    for line, (name, expected) in enumerate(zip(faces.names, names, strict=True)):
        if name != expected:
            raise ValueError(
                f"{path}:{line + 1}: expected image {expected!r} as in {templates_path}, found "
                f"{name!r}"
            )
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{path}:{line + 1}: expected a path below a folder, found {name!r}")
        first = first_line.setdefault(name, line)
        if first != line and not np.array_equal(faces.landmarks[first], faces.landmarks[line]):
            raise ValueError(
                f"{path}:{line + 1}: expected the landmarks of line {first + 1} for image {name!r}"
            )
