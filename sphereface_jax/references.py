"""A reference set: enrolled people, and who among them a picture shows, or nobody.

One file holds it: a mean vector per person, how many pictures it is the mean of, and the
fingerprint of the network that made them. It is replaced as a whole, so an update is atomic and a
removed person leaves nothing behind. (Protocols call such people a gallery.)
"""

import dataclasses
import hashlib
import zipfile
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax._checks import require
from sphereface_jax.data.files import atomic_file
from sphereface_jax.data.text import existing_file
from sphereface_jax.evaluation.pairs import check_embeddings, unit_rows
from sphereface_jax.evaluation.search import ReferenceIndex
from sphereface_jax.training.config import DataConfig, TrainConfig
from sphereface_jax.training.run_folder import SavedRun

_FIRST_OPTIONS = ("name", "embedding_dim", "channels", "dtype")
_ARRAYS = ("names", "vectors", "counts", "fingerprint", "run")


def run_fingerprint(run: SavedRun) -> str:
    """Names a network and how its pixels are prepared: equal for equal vectors, else different.

    Returns:
      32 hexadecimal digits.
    """
    digest = hashlib.sha256(_network_text(run.config).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path((run.params, run.model_state)):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]


def _network_text(config: TrainConfig) -> str:
    """A network and its preprocessing as they were written before they had further options.

    An option that came later is named where it is not at its default and matters to the vectors, so
    that the fingerprints of earlier runs stay.
    """
    data, model = config.data, config.model
    said = [
        f"{field.name}={getattr(model, field.name)!r}"
        for field in dataclasses.fields(model)
        if field.name in _FIRST_OPTIONS
        or (field.metadata["resume"] == "fixed" and getattr(model, field.name) != field.default)
    ]
    network = f"ModelConfig({', '.join(said)})"
    pixels = f"{data.image_size!r}, {data.color_order!r}, {data.pixel_divisor!r}"
    if data.pixel_mean != DataConfig.pixel_mean:
        pixels += f", mean {data.pixel_mean!r}"
    return f"({pixels}, {network})"


@dataclasses.dataclass(frozen=True)
class Match:
    """A person whom a picture may show.

    Attributes:
      name: of the person.
      cosine: of the picture's vector with the person's mean.
    """

    name: str
    cosine: float


class ReferenceSet:
    """Enrolled people, each by the mean of their pictures' vectors, weighted by quality.

    The weight of a picture is the length of its embedding, so the mean is the direction of the sum
    of the vectors as the network gives them.

    Args:
      fingerprint: of the network, `run_fingerprint`.
      run: the folder of the run that the vectors come from.

    Example:
      >>> people = ReferenceSet("f00d", run="runs/faces")
      >>> people.enroll("Ann", [[2.0, 0.0], [1.0, 0.1]])
      >>> people.enroll("Bob", [[0.0, 1.0]])
      >>> [match.name for match in people.identify([[0.9, 0.1]], threshold=0.5)[0]]
      ['Ann']
      >>> people.identify([[-1.0, 0.0]], threshold=0.5)
      [[]]
    """

    def __init__(self, fingerprint: str, *, run: str = ""):
        self.fingerprint, self.run = fingerprint, run
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._counts: dict[str, int] = {}
        self._index: ReferenceIndex | None = None

    def __len__(self) -> int:
        """How many people are enrolled."""
        return len(self._vectors)

    @property
    def names(self) -> list[str]:
        """The people, in the order of their enrolment."""
        return list(self._vectors)

    @property
    def counts(self) -> dict[str, int]:
        """How many pictures each person's mean is of."""
        return dict(self._counts)

    @property
    def vectors(self) -> NDArray[np.float32]:
        """[N, D] unit vectors, in the order of `names`."""
        return np.stack(list(self._vectors.values()))

    def check_network(self, fingerprint: str, run: str) -> None:
        """Refuses vectors of another network.

        Args:
          fingerprint: of the network whose vectors are to be compared.
          run: what to call it in the error.

        Raises:
          ValueError: naming both.
        """
        if fingerprint != self.fingerprint:
            raise ValueError(
                f"{run}: expected the network {self.fingerprint[:8]} of {self.run}, whose vectors "
                f"the reference set holds, got {fingerprint[:8]}; enroll again, or give --bridge"
            )

    def enroll(self, name: str, vectors: ArrayLike) -> None:
        """Enrolls a person by one picture or several, in place of what is there of them.

        Args:
          name: of the person.
          vectors: [n, D] embeddings, not normalised; longer ones weigh more.

        Raises:
          ValueError: no name, or vectors of another width, NaN, infinite or zero, or that cancel
            out.
        """
        rows = check_embeddings(f"{name or 'name'}", vectors).astype(np.float64)
        if not name.strip():
            raise ValueError("name: expected a person's name, got none")
        width = len(next(iter(self._vectors.values()))) if self._vectors else rows.shape[1]
        require(rows.shape[1] == width, name, f"width {width}", rows.shape[1])
        mean = check_embeddings(name, rows.mean(axis=0, keepdims=True))
        self._vectors[name] = unit_rows(mean)[0].astype(np.float32)
        self._counts[name] = len(rows)
        self._index = None

    def remove(self, name: str) -> None:
        """Removes a person; the next `save` leaves nothing of them in the file.

        Raises:
          ValueError: nobody of that name is enrolled.
        """
        if name not in self._vectors:
            raise ValueError(f"{name}: expected an enrolled person, found nobody of that name")
        del self._vectors[name], self._counts[name]
        self._index = None

    def identify(self, vectors: ArrayLike, *, threshold: float, k: int = 1) -> list[list[Match]]:
        """Finds the people whom each picture may show.

        Args:
          vectors: [P, D] embeddings of any length.
          threshold: the cosine that a match must exceed.
          k: matches to return at most.

        Returns:
          For each picture its matches, the best first; none where it shows nobody enrolled.

        Raises:
          ValueError: nobody is enrolled, or vectors of another width, NaN, infinite or zero.
        """
        if not self._vectors:
            raise ValueError("expected enrolled people, found none; enroll them first")
        if self._index is None:
            self._index = ReferenceIndex(self.vectors)
        rows, cosines = self._index.search(vectors, k=k)
        names = self.names
        return [
            [
                Match(names[row], float(cosine))
                for row, cosine in zip(found, scores, strict=True)
                if cosine > threshold
            ]
            for found, scores in zip(rows.tolist(), cosines.tolist(), strict=True)
        ]

    def mapped(self, vectors: NDArray[np.floating], fingerprint: str, run: str) -> Self:
        """The same people by other vectors, those that a bridge makes of these, say.

        Args:
          vectors: [N, D], one a person, in the order of `names`; of any length.
          fingerprint: of the network that these vectors are of.
          run: what to call it.

        Returns:
          A set with the same names and counts.

        Raises:
          ValueError: for another number of vectors than people, or one that is NaN, infinite or
            zero.
        """
        other = type(self)(fingerprint, run=run)
        unit = unit_rows(check_embeddings("vectors", vectors, num_rows=len(self)))
        other._vectors = dict(zip(self.names, unit.astype(np.float32), strict=True))
        other._counts = dict(self._counts)
        return other

    def save(self, path: Path) -> None:
        """Writes the set, atomically and without pickles, in place of what is there."""
        arrays: dict[str, Any] = {
            "names": np.array(self.names, dtype=str),
            "vectors": self.vectors if self._vectors else np.empty((0, 0), np.float32),
            "counts": np.array(list(self._counts.values()), np.int64),
            "fingerprint": np.array(self.fingerprint),
            "run": np.array(self.run),
        }
        with atomic_file(path) as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a set; nothing in it is unpickled.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: it is another file, or damaged.
        """
        opened = existing_file(path, "a reference set; `sphereface enroll` makes one").open("rb")
        try:
            with opened, np.load(opened, allow_pickle=False) as file:
                found = {name: file[name] for name in _ARRAYS}
        except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile):
            raise ValueError(
                f"{path}: expected a reference set, as `sphereface enroll` writes it, found "
                "another or a damaged file"
            ) from None
        names, vectors, counts = found["names"], found["vectors"], found["counts"]
        if vectors.ndim != 2 or not len(names) == len(vectors) == len(counts):
            raise ValueError(
                f"{path}: expected names [N], vectors [N, D] and counts [N], got "
                f"{list(names.shape)}, {list(vectors.shape)} and {list(counts.shape)}"
            )
        people = cls(str(found["fingerprint"]), run=str(found["run"]))
        if len(names):
            rows = check_embeddings(str(path), vectors)
            people._vectors = dict(zip(map(str, names.tolist()), rows, strict=True))
            people._counts = dict(zip(people._vectors, map(int, counts), strict=True))
        return people
