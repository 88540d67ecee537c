"""RecordIO files (`.rec` with its `.idx`), the container of InsightFace's data sets, without MXNet.

A file is a row of records, each on a 4-byte border: the magic number, a word of 3 bits of flag and
29 of length, the payload, padding. A payload that contains the magic number on such a border is cut
there into parts (flags 1, 2, 3: first, middle, last) and the number left out, so that the magic
number always starts a record and a file without its index can be scanned. The `.idx` lists
`key<TAB>offset`, one record per line.

An image's payload opens with a header: the count of vector labels (0: the scalar counts), a scalar
label, two ids; then the vector labels as float32, then the encoded image.

Reference: dmlc-core's recordio.h and MXNet's image_recordio.h.
"""

import os
import struct
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sphereface_jax._checks import expect
from sphereface_jax.data.files import atomic_file
from sphereface_jax.data.text import existing_file

_MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", _MAGIC)
_PART = struct.Struct("<II")
_IMAGE_HEADER = struct.Struct("<IfQQ")
_LENGTH_MASK = (1 << 29) - 1
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)


class ImageRecord(NamedTuple):
    """One unpacked payload: `labels` float32 [L], L >= 1; `image` the encoded bytes."""

    labels: np.ndarray
    image: bytes


class RecordFile:
    """Random access to the payloads of a `.rec` file; safe from many threads.

    Args:
      path: the `.rec` file. Its `.idx` is looked for beside it; the file is scanned if there is
        none, and the keys are then 0, 1, ...

    Attributes:
      keys: int64 [N], sorted.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a RecordIO file, a damaged index, or a record that runs past the end.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = existing_file(path, "a RecordIO file")
        self._descriptor = os.open(self.path, os.O_RDONLY)
        self._closer = weakref.finalize(self, os.close, self._descriptor)
        # Not at exit: by then other threads may still read, and the system closes it anyway.
        self._closer.atexit = False
        self._size = os.fstat(self._descriptor).st_size
        if (start := self._read(0, 4)) != _MAGIC_BYTES:
            raise ValueError(
                f"{self.path}: expected a RecordIO file, which starts with {_MAGIC_BYTES.hex()}, "
                f"found {start.hex() or 'an empty file'}"
            )
        index = self.path.with_suffix(".idx")
        if index.is_file():
            self.keys, self._offsets = _read_index(index, self._size)
        else:
            self._offsets = np.fromiter(self._scan(), np.int64)
            self.keys = np.arange(len(self._offsets), dtype=np.int64)
        expect(len(self.keys), index, "an index of records", "an empty file")
        self._ends = _next_larger(self._offsets, self._size)
        self._check_end(index)

    def __len__(self) -> int:
        return len(self.keys)

    def close(self) -> None:
        """Closes the file; dropping the last reference does the same."""
        self._closer()
        self._descriptor = -1  # the number may go to another file

    def describe(self, position: int) -> str:
        """File and key, for errors."""
        return f"{self.path} record {self.keys[position]}"

    @property
    def sizes(self) -> np.ndarray:
        """Bytes that each record takes in the file."""
        return self._ends - self._offsets

    def position(self, key: int) -> int:
        """The place of a key in `keys`.

        Raises:
          ValueError: no such key.
        """
        place = int(np.searchsorted(self.keys, key))
        if place == len(self.keys) or self.keys[place] != key:
            raise ValueError(f"{self.path}: expected a record with key {key}, found none")
        return place

    def read(self, position: int) -> bytes:
        """The payload of the record at a position in `keys`, its parts joined.

        Raises:
          ValueError: no record starts there, or it runs past the end of the file.
        """
        name, offset = self.describe(position), int(self._offsets[position])
        data = self._read(offset, int(self._ends[position]) - offset)
        parts: list[bytes] = []
        start = 0
        while True:
            flag, length = self._parse_part(data[start : start + _PART.size], offset + start, name)
            if flag not in ((_MIDDLE, _LAST) if parts else (_WHOLE, _FIRST)):
                raise self._damaged(name, offset + start, f"part {flag} after {len(parts)} parts")
            start += _PART.size
            if start + length > len(data):
                raise self._damaged(name, offset, "the next record's start within it")
            parts.append(data[start : start + length])
            start += length + (-length % 4)
            if flag in (_WHOLE, _LAST):
                return _MAGIC_BYTES.join(parts)

    def read_labels(self, position: int) -> tuple[np.ndarray, bool]:
        """The labels of an image record and whether an image follows, without reading the image.

        Raises:
          ValueError: as `read` and `unpack_image`.
        """
        name, offset = self.describe(position), int(self._offsets[position])
        head = self._read(offset, _PART.size + _IMAGE_HEADER.size)
        flag, length = self._parse_part(head[: _PART.size], offset, name)
        count = _IMAGE_HEADER.unpack_from(head, _PART.size)[0] if length >= 24 else 1
        if flag == _WHOLE and not count and offset + _PART.size + length <= self._ends[position]:
            scalar = _IMAGE_HEADER.unpack_from(head, _PART.size)[1]
            return np.array([scalar], np.float32), length > _IMAGE_HEADER.size
        record = unpack_image(self.read(position), name)
        return record.labels, bool(record.image)

    def _check_end(self, index: Path) -> None:
        """Refuses an index that is older than what was appended to the file."""
        last = int(np.argmax(self._offsets))
        end, flag = int(self._offsets[last]), _FIRST
        while flag in (_FIRST, _MIDDLE):
            try:
                flag, length = self._parse_part(self._read(end, _PART.size), end, "the last record")
            except ValueError:
                return  # a damaged record says so when it is read
            end += _PART.size + length + (-length % 4)
        if self._read(end, 4) == _MAGIC_BYTES:
            raise ValueError(
                f"{index}: record {self.keys[last]} is the last, which ends at byte {end}, and "
                f"{self.path.name} goes on to byte {self._size}; delete the index to have the file "
                "scanned, or make it anew"
            )

    def _scan(self) -> Iterator[int]:
        """The offsets of all records, from their headers alone."""
        offset, inside = 0, False
        while offset < self._size:
            name = "a record"
            flag, length = self._parse_part(self._read(offset, _PART.size), offset, name)
            if inside != (flag in (_MIDDLE, _LAST)):
                raise self._damaged(
                    name,
                    offset,
                    f"part {flag} {'within' if inside else 'outside'} a record of several parts",
                )
            if not inside:
                yield offset
            inside = flag in (_FIRST, _MIDDLE)
            offset += _PART.size + length + (-length % 4)
        if inside:
            raise self._damaged("the last record", offset, "the end of the file")

    def _parse_part(self, head: bytes, offset: int, name: str) -> tuple[int, int]:
        """Flag and length of the part whose first 8 bytes these are."""
        if len(head) < _PART.size:
            raise self._damaged(name, offset, "the end of the file")
        magic, word = _PART.unpack(head)
        flag, length = word >> 29, word & _LENGTH_MASK
        if magic != _MAGIC or flag > _LAST:
            raise self._damaged(name, offset, f"the bytes {head.hex()}")
        if offset + _PART.size + length > self._size:
            raise self._damaged(name, offset, f"a length of {length} bytes, past the end")
        return flag, length

    def _read(self, offset: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, offset)

    def _damaged(self, name: str, offset: int, found: str) -> ValueError:
        return ValueError(
            f"{self.path}: {name.removeprefix(f'{self.path} ')}, at byte {offset} of {self._size}: "
            f"expected a RecordIO record, found {found}; the file or its index is damaged or cut "
            "short"
        )


def write_record_file(path: str | os.PathLike[str], records: Iterable[tuple[int, bytes]]) -> None:
    """Writes a `.rec` and its `.idx`; they appear when all records are written.

    Args:
      path: the `.rec` file.
      records: the key of each, under which the index lists it, and its payload of any content.

    Raises:
      ValueError: a payload has 512 MiB or more.
    """
    path = Path(path)
    with atomic_file(path.with_suffix(".idx")) as index, atomic_file(path) as file:
        for key, payload in records:
            if len(payload) > _LENGTH_MASK:
                raise ValueError(
                    f"record {key}: expected less than 512 MiB, got {len(payload)} bytes"
                )
            index.write(f"{key}\t{file.tell()}\n".encode())
            parts = _split_at_magic(payload)
            flags = [_FIRST, *[_MIDDLE] * (len(parts) - 2), _LAST] if len(parts) > 1 else [_WHOLE]
            for flag, part in zip(flags, parts, strict=True):
                padding = bytes(-len(part) % 4)
                file.write(_PART.pack(_MAGIC, flag << 29 | len(part)) + part + padding)


def unpack_image(payload: bytes, name: str) -> ImageRecord:
    """Splits a payload into its labels and its encoded image.

    Args:
      payload: as `RecordFile.read` returns it.
      name: what to call the record in an error.

    Returns:
      The labels, float32 [L], and the encoded image.

    Raises:
      ValueError: the payload is too short for its header.
    """
    if len(payload) < _IMAGE_HEADER.size:
        raise ValueError(
            f"{name}: expected an image header of {_IMAGE_HEADER.size} bytes, found {len(payload)}"
        )
    count, scalar, _, _ = _IMAGE_HEADER.unpack_from(payload)
    start = _IMAGE_HEADER.size + 4 * count
    expect(start <= len(payload), name, f"{count} labels", f"{len(payload)} bytes in all")
    if not count:
        return ImageRecord(np.array([scalar], np.float32), payload[start:])
    labels = np.frombuffer(payload, "<f4", count, _IMAGE_HEADER.size)
    return ImageRecord(labels, payload[start:])


def pack_image(image: bytes, labels: Sequence[float], key: int) -> bytes:
    """Joins labels and an encoded image into a payload; a single label is stored as the scalar.

    Args:
      image: encoded, as JPEG say.
      labels: numbers, stored as float32.
      key: the record's, in the header once more.

    Returns:
      The payload, as `unpack_image` takes it.
    """
    if len(labels) == 1:
        return _IMAGE_HEADER.pack(0, labels[0], key, 0) + image
    return _IMAGE_HEADER.pack(len(labels), 0.0, key, 0) + np.array(labels, "<f4").tobytes() + image


def _split_at_magic(payload: bytes) -> list[bytes]:
    parts, start = [], 0
    place = payload.find(_MAGIC_BYTES)
    while place >= 0:
        if place % 4 == 0:
            parts.append(payload[start:place])
            start = place + 4
        place = payload.find(_MAGIC_BYTES, place + 1 if place % 4 else place + 4)
    return [*parts, payload[start:]]


def _read_index(index: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys and offsets, sorted by key."""
    try:
        table = np.array(list(map(int, index.read_bytes().split())), np.int64).reshape(-1, 2)
    except (ValueError, OverflowError):
        raise ValueError(_first_bad_line(index)) from None
    keys, offsets = table[np.argsort(table[:, 0], kind="stable")].T
    wrong = (offsets < 0) | (offsets > size - _PART.size) | (offsets % 4 != 0)
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{index}: key {keys[place]} points at byte {offsets[place]}; expected a multiple of 4 "
            f"within the {size} bytes of the .rec file: one of the two is damaged or cut short"
        )
    if (twice := np.flatnonzero(np.diff(keys) == 0)).size:
        raise ValueError(f"{index}: expected every key once, found key {keys[twice[0]]} twice")
    return keys, offsets


def _first_bad_line(index: Path) -> str:
    for number, line in enumerate(index.read_bytes().split(b"\n"), start=1):
        fields = line.split()
        if fields and (len(fields) != 2 or not all(f.isdigit() and len(f) < 19 for f in fields)):
            return f"{index}:{number}: expected 'key<TAB>offset', found {line[:60]!r}"
    return f"{index}: expected a line 'key<TAB>offset' for each record"


def _next_larger(offsets: np.ndarray, size: int) -> np.ndarray:
    """For each offset where the following record starts, the last one ending with the file."""
    borders = np.append(np.unique(offsets), size)
    return borders[np.searchsorted(borders, offsets, side="right")]
