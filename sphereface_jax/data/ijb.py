"""IJB-B and IJB-C: faces, templates, pairs and galleries, in the published files.

| file (here IJB-C's)            | a line                                                       |
|--------------------------------|--------------------------------------------------------------|
| `ijbc_name_5pts_score.txt`     | image, five points (x y), the detector's score, with spaces  |
| `ijbc_face_tid_mid.txt`        | image, template, medium; line by line the images above       |
| `ijbc_template_pair_label.txt` | template, template, 1 for the same person or 0               |
| `ijbc_1N_gallery_G1.csv`, ...  | NIST's tables: TEMPLATE_ID, SUBJECT_ID, ..., one line per image |
| `ijbc_11_G1_G2_matches.csv`    | NIST's pairs: template, template; no header, no answer       |

IJB-B's files begin with `ijbb`, and its galleries are S1 and S2.
"""

import csv
import dataclasses
import os
import warnings

import numpy as np

from sphereface_jax._checks import expect
from sphereface_jax.data.text import existing_file, is_whole, read_lines

_WHAT = "a file of IJB's protocols"


@dataclasses.dataclass(frozen=True)
class IjbFaces:
    """Faces found in the images, N of them.

    Attributes:
      names: image files, below the folder of loose crops.
      landmarks: float32 [N, 5, 2], x and y of both eyes, the nose and both mouth corners.
      scores: float32 [N], how sure the detector is.
    """

    names: tuple[str, ...]
    landmarks: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class IjbTemplates:
    """Which template and medium each face belongs to, N of them.

    Attributes:
      names: image files.
      template_ids: int64 [N].
      media_ids: int64 [N].
    """

    names: tuple[str, ...]
    template_ids: np.ndarray
    media_ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class IjbPairs:
    """Pairs of templates, P of them.

    Attributes:
      left_ids: int64 [P].
      right_ids: int64 [P].
      is_same: bool [P].
    """

    left_ids: np.ndarray
    right_ids: np.ndarray
    is_same: np.ndarray


@dataclasses.dataclass(frozen=True)
class IjbSubjects:
    """Who each template of a gallery or of the probes shows, T of them.

    Attributes:
      template_ids: int64 [T], rising.
      subjects: int64 [T].
    """

    template_ids: np.ndarray
    subjects: np.ndarray


def read_ijb_faces(path: str | os.PathLike[str]) -> IjbFaces:
    """Reads `*_name_5pts_score.txt`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line that is not a name and eleven numbers; names the line.
    """
    names, rows = [], []
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        try:
            values = np.array(fields[1:], np.float32)
        except ValueError:
            values = np.empty(0, np.float32)
        if len(values) != 11:
            raise ValueError(
                f"{path}:{number}: expected an image, ten coordinates and a score, "
                f"found {line[:60]!r}"
            )
        names.append(fields[0])
        rows.append(values)
    table = np.stack(rows)
    return IjbFaces(tuple(names), table[:, :10].reshape(-1, 5, 2), table[:, 10])


def read_ijb_templates(path: str | os.PathLike[str]) -> IjbTemplates:
    """Reads `*_face_tid_mid.txt`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line that is not a name and two whole numbers; names the line.
    """
    names, ids = [], []
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if len(fields) != 3 or not all(is_whole(field, 18) for field in fields[1:]):
            raise ValueError(
                f"{path}:{number}: expected image, template and medium, found {line[:60]!r}"
            )
        names.append(fields[0])
        ids.append((int(fields[1]), int(fields[2])))
    table = np.array(ids, np.int64)
    return IjbTemplates(tuple(names), table[:, 0], table[:, 1])


def read_ijb_pairs(path: str | os.PathLike[str]) -> IjbPairs:
    """Reads `*_template_pair_label.txt`, 15.7 million lines for IJB-C.

    Raises:
      FileNotFoundError: no such file.
      ValueError: lines that are not three whole numbers, the last 0 or 1, or a template paired
        with itself.
    """
    table = _whole_numbers(path, columns=3, delimiter=None)
    if not np.isin(table[:, 2], (0, 1)).all():
        line = int((~np.isin(table[:, 2], (0, 1))).argmax()) + 1
        raise ValueError(f"{path}:{line}: expected a label of 0 or 1, found {table[line - 1, 2]}")
    one = table[:, 0] == table[:, 1]
    if one.any():
        line = int(one.argmax()) + 1
        raise ValueError(f"{path}:{line}: expected a pair, found {table[line - 1, 0]} twice")
    return IjbPairs(table[:, 0], table[:, 1], table[:, 2] == 1)


def read_ijb_matches(path: str | os.PathLike[str], *tables: IjbSubjects) -> IjbPairs:
    """Reads NIST's `*_11_*_matches.csv`; whether a pair is the same, the tables of subjects say.

    Args:
      path: the file.
      *tables: galleries and probes that the pairs are drawn from.

    Returns:
      The template ids of both sides and whether their subjects are one, each [P].

    Raises:
      FileNotFoundError: no such file.
      ValueError: lines that are not two whole numbers, or a template in none of the tables.
    """
    pairs = _whole_numbers(path, columns=2, delimiter=",")
    known = np.concatenate([table.template_ids for table in tables])
    subjects = np.concatenate([table.subjects for table in tables])
    order = np.argsort(known, kind="stable")
    place = order[np.searchsorted(known[order], pairs).clip(max=len(known) - 1)]
    if not np.array_equal(known[place], pairs):
        missing = pairs[known[place] != pairs][0]
        raise ValueError(f"{path}: expected templates of the tables, found {missing}")
    subject = subjects[place]
    return IjbPairs(pairs[:, 0], pairs[:, 1], subject[:, 0] == subject[:, 1])


def read_ijb_subjects(path: str | os.PathLike[str]) -> IjbSubjects:
    """Reads NIST's `*_1N_gallery_*.csv` or `*_1N_probe_*.csv`: each template once.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no such header, ids that are not whole numbers, or a template of two subjects;
        names the line.
    """
    subject_of: dict[int, int] = {}
    rows = list(csv.reader(_lines(path)))
    header = [name.strip().upper() for name in rows[0]]
    if not {"TEMPLATE_ID", "SUBJECT_ID"} <= set(header):
        raise ValueError(f"{path}:1: expected columns TEMPLATE_ID and SUBJECT_ID, found {header}")
    columns = header.index("TEMPLATE_ID"), header.index("SUBJECT_ID")
    for number, row in enumerate(rows[1:], start=2):
        fields = [row[column].strip() for column in columns] if len(row) > max(columns) else []
        if not fields or not all(is_whole(field, 18) for field in fields):
            raise ValueError(f"{path}:{number}: expected whole numbers as ids, found {row[:2]}")
        template, subject = map(int, fields)
        if subject_of.setdefault(template, subject) != subject:
            raise ValueError(
                f"{path}:{number}: expected one subject for template {template}, "
                f"found {subject_of[template]} and {subject}"
            )
    expect(subject_of, path, "templates below the header", "none")
    templates = sorted(subject_of)
    return IjbSubjects(
        np.array(templates, np.int64),
        np.array([subject_of[template] for template in templates], np.int64),
    )


def _lines(path: str | os.PathLike[str]) -> list[str]:
    lines = read_lines(path, _WHAT)
    while lines and not lines[-1].strip():
        lines.pop()
    expect(lines, path, "lines of text", "an empty file")
    return lines


def _whole_numbers(
    path: str | os.PathLike[str], *, columns: int, delimiter: str | None
) -> np.ndarray:
    """A table of whole numbers [P, columns]."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # NumPy warns of an empty file
        try:
            table = np.loadtxt(existing_file(path, _WHAT), np.int64, delimiter=delimiter, ndmin=2)
        except (ValueError, UserWarning) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{path}: expected lines of {columns} whole numbers: {reason}"
            ) from None
    if table.shape[1] != columns:
        found = table.shape[1]
        raise ValueError(f"{path}: expected lines of {columns} whole numbers, found {found} a line")
    return table
