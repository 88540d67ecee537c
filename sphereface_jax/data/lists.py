"""List files: `path label` a line (Caffe), or three fields between tabs.

`aligned<TAB>path<TAB>label` is InsightFace's .lst and `index<TAB>label...<TAB>path` MXNet's, whose
first label counts; a label is a whole number, perhaps written as `3.0`. A path is taken below the
root; an absolute one, which InsightFace's lists hold, has to lie in the root already.
"""

import os
import re
from pathlib import Path

import numpy as np

from sphereface_jax._checks import expect
from sphereface_jax.data.folder import check_identities
from sphereface_jax.data.source import EncodedFaces, with_file_sizes
from sphereface_jax.data.text import is_whole, read_lines


class ListSource(EncodedFaces):
    """A face source over a list file.

    An identity is named after the folder of its images where folder and label go together one to
    one, as in CASIA-WebFace, and otherwise by its label. Gaps between the labels close up.

    Args:
      path: the list file.
      root: the folder that its paths start from; the list's own by default. No path may leave it;
        `/` allows all absolute ones.

    Raises:
      FileNotFoundError: no such list, or the first image is not under `root`.
      ValueError: a line of another form, a path outside `root`, or an empty list; names
        the line.
    """

    def __init__(self, path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None):
        self.path = Path(path)
        self.root = Path(root) if root is not None else self.path.parent
        self._prefixes = _spellings(self.root)
        self._files, stored = self._read_lines()
        if not os.path.isfile(self.describe(0)):
            raise FileNotFoundError(
                f"{self.path}: its first image is not at {self.describe(0)}; name the folder that "
                "its paths start from (--data.root of `sphereface train`)"
            )
        values, labels = np.unique(np.array(stored, np.int64), return_inverse=True)
        self.labels = labels.astype(np.int32)
        self.identities = self._names(values)
        check_identities(self.identities, str(self.path))

    def describe(self, index: int) -> str:
        """The path of image `index`."""
        return os.path.join(self.root, self._files[index])

    def contents(self) -> list[str]:
        """Folder, name and size of every image; the size of every k-th where there are many."""
        lines = ["/".join(file.replace("\\", "/").rsplit("/", 2)[-2:]) for file in self._files]
        return with_file_sizes(lines, self.describe)

    def _read_lines(self) -> tuple[list[str], list[int]]:
        files, labels = [], []
        for number, line in enumerate(read_lines(self.path, "a list file"), start=1):
            if line.strip():
                where = f"{self.path}:{number}"
                file, label = _parse(line, where)
                files.append(self._below_root(file, where))
                labels.append(label)
        expect(files, self.path, "lines 'path label'", "an empty file")
        return files, labels

    def _below_root(self, file: str, where: str) -> str:
        """The path from the root on."""
        if not os.path.isabs(file):
            return file
        for prefix in self._prefixes:
            if file.startswith(prefix):
                return file[len(prefix) :].lstrip(os.sep)
        raise ValueError(
            f"{where}: expected a path within {self.root}, found {file[:200]!r}; name the folder "
            "that it lies in (--data.root of `sphereface train`, / for any)"
        )

    def _names(self, values: np.ndarray) -> tuple[str, ...]:
        folders = [os.path.basename(os.path.dirname(file)) for file in self._files]
        pairs = set(zip(folders, self.labels.tolist(), strict=True))
        one_to_one = len(pairs) == len(values) == len(set(folders))
        if one_to_one and "" not in folders:
            names = dict(sorted((label, folder) for folder, label in pairs))
            return tuple(names.values())
        return tuple(map(str, values.tolist()))


def _spellings(root: Path) -> tuple[str, ...]:
    """The root as an absolute path may start with it: as it is given, and without links."""
    given, real = os.path.abspath(root), os.path.realpath(root)
    return tuple(path.rstrip(os.sep) + os.sep for path in (given, real))


def _parse(line: str, where: str) -> tuple[str, int]:
    fields = line.split("\t") if line.count("\t") >= 2 else line.rsplit(maxsplit=1)
    expect(len(fields) >= 2, where, "'path label', separated by a space or a tab", repr(line[:60]))
    file, label = fields[-2].strip(), _label(fields[-1])
    if len(fields) > 2 and label is None and is_whole(fields[0].strip(), 18):
        file, label = fields[-1].strip(), _label(fields[1])  # MXNet's order
    elif len(fields) > 3:
        raise ValueError(
            f"{where}: expected 'aligned<TAB>path<TAB>label', found {len(fields)} fields; boxes "
            "and landmarks are not used here: align the faces first"
        )
    if label is None:
        raise ValueError(
            f"{where}: expected a whole number from 0, of at most nine digits, as label, found "
            f"{fields[-1].strip()[:60]!r}"
        )
    if not file or "\0" in file or ".." in Path(file).parts:
        raise ValueError(f"{where}: expected a path within the folder, found {file[:60]!r}")
    return file, label


def _label(field: str) -> int | None:
    """A label, perhaps written as `3.0` by a program that holds numbers as floats, or None."""
    whole = re.sub(r"\.0*$", "", field.strip())
    return int(whole) if is_whole(whole) else None
