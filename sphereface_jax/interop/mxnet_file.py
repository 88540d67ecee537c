"""Reading MXNet's .params files, without MXNet: a list of arrays and a list of their names.

Little-endian throughout. A file is the number 0x112 and a zero, 8 bytes each; the arrays, after
their count of 8 bytes; and the names, after theirs, each after its length of 8 bytes. An array is

    version 2 or 3: its magic number, 4 bytes; the kind of its storage, 4 bytes, 0 for dense
    version 1:      its magic number
    then:           its rank, 4 bytes; its dimensions, 8 bytes each
    before that:    its rank; its dimensions, 4 bytes each

and for all of them the device (two numbers of 4 bytes), the type (4 bytes) and the numbers.
Every size is checked against what is left of the file before anything is made of it.

References:
  MXNet, src/ndarray/ndarray.cc, NDArray::Save and NDArray::Load; include/mxnet/base.h, Context.
"""

import math
import re
import struct
from pathlib import Path

import numpy as np

_LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_TYPES = {0: "f4", 1: "f8", 2: "f2", 3: "u1", 4: "i4", 5: "i1", 6: "i8"}
_MOST_RANK = 32
_LEAVES = {
    "weight": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}
_NAME = re.compile(rf"(?:arg:|aux:)?(.+)_({'|'.join(_LEAVES)})")


class _Bytes:
    """A file's content, read from front to back."""

    def __init__(self, content: bytes):
        self._content, self._at = content, 0

    @property
    def left(self) -> int:
        """How many bytes were not read."""
        return len(self._content) - self._at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > self.left:
            raise ValueError(f"truncated: {count} bytes wanted, {self.left} left")
        self._at += count
        return self._content[self._at - count : self._at]

    def numbers(self, format_: str) -> tuple[int, ...]:
        """The next numbers, as `struct` has them."""
        return struct.unpack(f"<{format_}", self.take(struct.calcsize(f"<{format_}")))

    def number(self, format_: str) -> int:
        """The next number."""
        return self.numbers(format_)[0]

    def count(self, least: int) -> int:
        """How many things follow, of at least some bytes each."""
        count = self.number("Q")
        if count * least > self.left:
            raise ValueError(f"truncated: {count} arrays or names announced")
        return count


def read_mxnet_file(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a .params file.

    Returns:
      The arrays by name, without `arg:` and `aux:`, and with PyTorch's words for what a layer
      holds: `bn0_moving_var` is `bn0.running_var`, `bn0_gamma` is `bn0.weight`.

    Raises:
      ValueError: the file is not one of these, is damaged, or holds sparse arrays or arrays without
        names.
    """
    try:
        return _read(_Bytes(path.read_bytes()))
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a .params file as MXNet saves it, found another or a damaged one "
            f"({error})"
        ) from None


def _read(content: _Bytes) -> dict[str, np.ndarray]:
    if content.left < 16 or content.numbers("QQ")[0] != _LIST_MAGIC:
        raise ValueError("it begins otherwise")
    arrays = [_array(content) for _ in range(content.count(least=4))]
    names = [
        content.take(content.number("Q")).decode("utf-8") for _ in range(content.count(least=8))
    ]
    if content.left:
        raise ValueError(f"{content.left} bytes after the last name")
    if len(names) != len(arrays):
        raise ValueError(f"{len(arrays)} arrays with {len(names)} names")
    tensors = {_torch_name(name): array for name, array in zip(names, arrays, strict=True)}
    if len(tensors) != len(names):
        raise ValueError("two arrays of one name")
    return tensors


def _array(content: _Bytes) -> np.ndarray:
    magic = content.number("I")
    if magic in (_V2, _V3) and (storage := content.number("i")):
        raise ValueError(f"an array whose storage is of kind {storage}, not dense")
    is_old = magic not in (_V1, _V2, _V3)
    rank = magic if is_old else content.number("I")
    if rank > _MOST_RANK:
        raise ValueError(f"an array of {rank} dimensions")
    if rank == 0 and magic != _V3:
        raise ValueError("an array that was never given numbers")
    shape = content.numbers(f"{rank}{'I' if is_old else 'q'}")
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape}")
    content.numbers("ii")  # the device it was on
    kind = content.number("i")
    if kind not in _TYPES:
        raise ValueError(f"an array of the unknown type {kind}")
    dtype = np.dtype(f"<{_TYPES[kind]}")
    values = content.take(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(values, dtype).reshape(shape)


def _torch_name(name: str) -> str:
    match = _NAME.fullmatch(name)
    return name if match is None else f"{match[1]}.{_LEAVES[match[2]]}"
