"""InsightFace's training sets: RecordIO files of faces, with or without identity ranges.

Their record 0 holds no image but two labels, the key of the first identity record and the one after
the last; each identity record holds the first image key of that identity and the one after its
last. A text file `property` beside them reads `classes,height,width`.

Keys are stored as float32, which is exact to 2^24: in larger sets the ranges are passed over and
every record's own label is read instead.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sphereface_jax._checks import expect
from sphereface_jax.data.files import write_atomically
from sphereface_jax.data.finder import PassedOver
from sphereface_jax.data.images import UnreadableImage
from sphereface_jax.data.recordio import RecordFile, pack_image, unpack_image, write_record_file
from sphereface_jax.data.source import EncodedFaces, FaceSource, encoded_image
from sphereface_jax.data.text import is_whole

_EXACT = 1 << 24  # whole numbers up to here are exact in float32


class RecordSource(EncodedFaces):
    """A face source over a `.rec` file.

    Where record 0 gives identity ranges they tell the labels, and each image's own label is checked
    as it is read; an image in no range, such as one appended later, has its own label. Otherwise
    every record's label is read on opening. The first of several labels counts. Identities are
    named by their label; gaps between the labels close up.

    Args:
      path: the `.rec` file, its `.idx`, or a folder that holds just one `.rec` file.

    Attributes:
      remarks: a line on the images that are in no range, if there are any.
      passed_over: records in no range that cannot be read as images.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file, a label that is not a whole number from 0, or one beyond the class
        count of the `property` file.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._file = RecordFile(find_record_file(path))
        self.remarks: list[str] = []
        self.passed_over: list[PassedOver] = []
        ranges = self._read_ranges() if self._file.keys[-1] < _EXACT else None
        self._positions, self._stored_labels = ranges or self._read_labels(range(len(self._file)))
        expect(
            len(self._positions), self._file.path, "images", f"none in {len(self._file)} records"
        )
        self._check_class_count()
        names, labels = np.unique(self._stored_labels, return_inverse=True)
        self.labels = labels.astype(np.int32)
        self.identities = tuple(map(str, names.tolist()))

    def read_encoded(self, index: int) -> bytes:
        """The bytes of image `index` as they were stored.

        Raises:
          UnreadableImage: the record is damaged, or bears another label.
        """
        name = self.describe(index)
        try:
            record = unpack_image(self._file.read(int(self._positions[index])), name)
        except ValueError as error:
            raise UnreadableImage(str(error)) from None
        if record.labels[0] != self._stored_labels[index]:
            raise UnreadableImage(
                f"{name}: expected label {self._stored_labels[index]}, found {record.labels[0]:g}"
            )
        return record.image

    def describe(self, index: int) -> str:
        """File and record key."""
        return self._file.describe(int(self._positions[index]))

    def contents(self) -> list[str]:
        """Key and size of every image."""
        keys, sizes = self._file.keys[self._positions], self._file.sizes[self._positions]
        return [f"{key} {size}" for key, size in zip(keys.tolist(), sizes.tolist(), strict=True)]

    def _read_ranges(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Positions and labels of the images, by record 0; None if record 0 is an image."""
        labels, has_image = self._file.read_labels(0)
        if has_image or len(labels) != 2:
            return None
        first, end = self._whole_numbers(labels, 0)
        spans, classes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        is_known = np.zeros(len(self._file), bool)
        is_known[0] = True
        for key in range(first, end):
            position = self._file.position(key)
            span = self._read_range(position)
            is_known[position] = is_known[span] = True
            if not len(span):
                continue
            label = self._whole_numbers(self._file.read_labels(int(span[0]))[0], int(span[0]))[0]
            spans.append(span)
            classes.append(np.full(len(span), label))
        positions, labels = self._read_labels(np.flatnonzero(~is_known), self.passed_over)
        if len(positions):
            self.remarks.append(
                f"{self._file.path}: {len(positions):,} images are in no identity's range, the "
                f"first in record {self._file.keys[positions[0]]}; they are taken by their own "
                "labels"
            )
        return np.concatenate([*spans, positions]), np.concatenate([*classes, labels])

    def _read_range(self, position: int) -> np.ndarray:
        """The positions of the images that an identity record announces."""
        labels, _ = self._file.read_labels(position)
        if len(labels) != 2:
            raise ValueError(
                f"{self._file.describe(position)}: expected the range of an identity, found "
                f"{len(labels)} labels"
            )
        first, end = self._whole_numbers(labels, position)
        span = np.arange(*np.searchsorted(self._file.keys, [first, end]))
        if len(span) != end - first:
            raise ValueError(
                f"{self._file.describe(position)}: expected the images {first} to {end - 1}, found "
                f"{len(span)} of them in the file"
            )
        return span

    def _read_labels(
        self, places: Iterable[int], unreadable: list[PassedOver] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions and labels of those records that are images.

        Args:
          places: the records.
          unreadable: takes those that cannot be read; without it they raise ValueError.
        """
        positions, labels = [], []
        for position in places:
            try:
                values, has_image = self._file.read_labels(position)
                if has_image or len(values) == 1:
                    labels.append(self._whole_numbers(values[:1], position)[0])
                    positions.append(position)
            except ValueError as error:
                if unreadable is None:
                    raise
                unreadable.append(PassedOver(self._file.describe(position), str(error)))
        return np.array(positions, np.int64), np.array(labels, np.int64)

    def _whole_numbers(self, values: np.ndarray, position: int) -> list[int]:
        if not ((values >= 0) & (values < 2**31) & (values == np.floor(values))).all():
            raise ValueError(
                f"{self._file.describe(position)}: expected whole numbers from 0 as labels, found "
                f"{values[:4].tolist()}"
            )
        return [int(value) for value in values]

    def _check_class_count(self) -> None:
        path = self._file.path.parent / "property"
        if not path.is_file():
            return
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        count = text.split(",")[0]
        expect(is_whole(count), path, "'classes,height,width'", repr(text[:60]))
        largest = int(self._stored_labels.argmax())
        if self._stored_labels[largest] >= int(count):
            raise ValueError(
                f"{self.describe(largest)}: expected a label below {count}, the class count of "
                f"{path}, found {self._stored_labels[largest]}"
            )


def find_record_file(path: str | os.PathLike[str]) -> Path:
    """The `.rec` file meant by a `.rec`, its `.idx`, or a folder that holds just one.

    Raises:
      FileNotFoundError: none there.
      ValueError: several.
    """
    path = Path(path)
    if not path.is_dir():
        return path.with_suffix(".rec") if path.suffix == ".idx" else path
    found = sorted(path.glob("*.rec"))
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:4])
        raise ValueError(f"{path}: expected one .rec file, found {names}; name the one you mean")
    if not found:
        raise FileNotFoundError(f"{path}: expected a .rec file, found none")
    return found[0]


def write_records(source: FaceSource, path: str | os.PathLike[str]) -> None:
    """Writes a source as InsightFace lays it out: `.rec`, `.idx` and `property`.

    Images are not encoded again where the source has their bytes; those it renders become PNG.

    Args:
      source: any face source.
      path: the `.rec` file.

    Raises:
      UnreadableImage: an image without bytes.
    """
    path = Path(path)
    order = np.argsort(source.labels, kind="stable")
    counts = np.bincount(source.labels, minlength=len(source.identities))
    ends = 1 + np.cumsum(counts)
    first_identity, end = len(source) + 1, len(source) + 1 + len(counts)

    def records() -> Iterator[tuple[int, bytes]]:
        if end <= _EXACT:
            yield 0, pack_image(b"", [first_identity, end], 0)
        for key, index in enumerate(order.tolist(), start=1):
            image, label = encoded_image(source, index), int(source.labels[index])
            yield key, pack_image(image, [label], key)
        if end <= _EXACT:
            for label, last in enumerate(ends.tolist()):
                key = first_identity + label
                yield key, pack_image(b"", [last - int(counts[label]), last], key)

    write_record_file(path, records())
    height, width = source[int(order[0])]["image"].shape[:2]
    write_atomically(path.parent / "property", f"{len(counts)},{height},{width}\n")
