"""Reading and writing PyTorch's .pt and .pth files without PyTorch, and without running their code.

A file of `torch.save` is a pickle whose tensors are references to storages beside it: in the
format since 1.6 a zip of `NAME/data.pkl` and raw `NAME/data/KEY`, in the one before it a row of
five pickles with the storages after them. This reader knows the handful of functions that the
pickle of a state dict calls, builds the arrays itself, and refuses any other name unread.

References:
  PyTorch, torch/serialization.py and torch/_weights_only_unpickler.py.
"""

import collections
import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import jax.numpy as jnp
import numpy as np

from sphereface_jax.data.safe_pickle import SafeUnpickler, StandIn

STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_PICKLE_BYTES = 1 << 26
_TYPE_NAMES = {np.dtype(dtype): name for name, dtype in STORAGES.items()}


class _Storage(StandIn):
    """The memory of a tensor; its bytes come with the pickle or after it."""

    def __init__(self, dtype: np.dtype, length: int, data: bytes | None):
        self.dtype, self.length, self.data = dtype, length, data


class _Tensor(StandIn):
    """A view of a storage, made into an array once its bytes are there."""

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any):
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or not all(
            isinstance(number, int) and number >= 0 for number in numbers
        ):
            raise ValueError("a malformed tensor record")
        if len(shape) != len(strides):
            raise ValueError("a tensor whose shape and strides do not match")
        self.storage, self.offset = storage, offset
        self.shape, self.strides = tuple(shape), tuple(strides)

    def array(self) -> np.ndarray:
        """Copies the view out of its storage."""
        storage = self.storage
        if storage.data is None or len(storage.data) < storage.length * storage.dtype.itemsize:
            raise ValueError("truncated: a tensor's bytes are missing")
        reach = sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape:
            return np.zeros(self.shape, storage.dtype)
        if self.offset + reach >= storage.length or math.prod(self.shape) > storage.length:
            raise ValueError("a tensor that reaches beyond its storage")
        flat = np.frombuffer(storage.data, storage.dtype, storage.length)
        byte_strides = tuple(stride * storage.dtype.itemsize for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, byte_strides)
        return view.copy()


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): lambda *args: _Tensor(*args[:4]),
    ("torch._utils", "_rebuild_tensor_v2"): lambda *args: _Tensor(*args[:4]),
    ("torch._utils", "_rebuild_parameter"): lambda data, *rest: data,
    ("torch.nn.parameter", "Parameter"): lambda data, *rest: data,
    ("torch", "Size"): tuple,
    **{("torch", name): name for name in STORAGES},
}


class _Unpickler(SafeUnpickler):
    """An unpickler that knows state dicts and nothing else."""

    refusal = (
        "it asks for the code {}, which is never run; save the state_dict() of the network alone"
    )

    def __init__(self, file: io.BytesIO, load_storage: Callable[[tuple[Any, ...]], _Storage]):
        super().__init__(file, _KNOWN, encoding="utf-8")
        self._load_storage = load_storage

    def persistent_load(self, reference: Any) -> _Storage:
        """Returns the storage that a reference names."""
        if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
            raise ValueError("a reference that is not a storage")
        return self._load_storage(reference[1:])


def read_torch_file(path: Path) -> Any:
    """Reads a file of `torch.save`: nested dicts and lists of numbers, texts and arrays.

    Raises:
      ValueError: the file is not one of these, is damaged, or asks for code to be run.
    """
    try:
        with path.open("rb") as file:
            tree = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(path)
            return _arrays(tree)
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply for a file of weights") from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises whatever it runs into
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path}: expected a file of weights as PyTorch saves it, found another or a damaged "
            f"one ({reason})"
        ) from None


def _storage(reference: tuple[Any, ...], data: bytes | None) -> _Storage:
    kind, length = reference[0], reference[3]
    if kind not in STORAGES or not isinstance(length, int) or length < 0:
        raise ValueError("a storage of an unknown type")
    return _Storage(np.dtype(STORAGES[kind]), length, data)


def _read_zip(file: IO[bytes]) -> Any:
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("a zip archive without one data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        order = folder + "byteorder"
        if order in entries and archive.read(order) != b"little":
            raise ValueError("written on a big-endian machine")

        def read(name: str) -> bytes:
            entry = entries[name]
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed, which PyTorch never does")
            return archive.read(entry)

        storages: dict[str, _Storage] = {}

        def load(reference: tuple[Any, ...]) -> _Storage:
            key = str(reference[1])
            if key not in storages:
                storages[key] = _storage(reference, read(f"{folder}data/{key}"))
            return storages[key]

        if entries[pickles[0]].file_size > _MOST_PICKLE_BYTES:
            raise ValueError("its pickle is larger than any state dict's")
        return _Unpickler(io.BytesIO(read(pickles[0])), load).load()


def _read_legacy(path: Path) -> Any:
    file = io.BytesIO(path.read_bytes())
    storages: dict[str, _Storage] = {}

    def load(reference: tuple[Any, ...]) -> _Storage:
        key = str(reference[1])
        if len(reference) > 4 and reference[4] is not None:
            raise ValueError("a view of a storage, which only files of PyTorch < 0.4 have")
        if key not in storages:
            storages[key] = _storage(reference, None)
        return storages[key]

    def part() -> Any:
        return _Unpickler(file, load).load()

    if part() != _LEGACY_MAGIC:
        raise ValueError("another kind of pickle")
    version, system, tree, keys = part(), part(), part(), part()
    if version != 1001 or not system.get("little_endian", True):
        raise ValueError("an unknown version or byte order")
    for key in keys:
        storage = storages[str(key)]
        (length,) = struct.unpack("<q", file.read(8))
        if length != storage.length:
            raise ValueError("a storage of another length than announced")
        storage.data = file.read(length * storage.dtype.itemsize)
    return tree


def _arrays(tree: Any) -> Any:
    if isinstance(tree, _Tensor):
        return tree.array()
    if isinstance(tree, Mapping):
        return {key: _arrays(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_arrays(value) for value in tree]
    return tree


def torch_file_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Returns the file that `torch.save(OrderedDict(tensors))` would write.

    The pickle is spelt out opcode by opcode, since its functions are PyTorch's, which need not be
    there.
    """
    program = io.BytesIO()
    program.write(b"\x80\x02ccollections\nOrderedDict\n)R(")
    for key, (name, tensor) in enumerate(tensors.items()):
        kind = _TYPE_NAMES[tensor.dtype]
        program.write(_text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((")
        program.write(_text("storage") + f"ctorch\n{kind}\n".encode() + _text(str(key)))
        program.write(_text("cpu") + _integer(tensor.size) + b"tQ" + _integer(0))
        strides = [math.prod(tensor.shape[axis + 1 :]) for axis in range(tensor.ndim)]
        for numbers in (tensor.shape, strides):
            program.write(b"(" + b"".join(_integer(number) for number in numbers) + b"t")
        program.write(b"\x89ccollections\nOrderedDict\n)RtR")
    program.write(b"u.")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry("weights/data.pkl"), program.getvalue())
        archive.writestr(_entry("weights/byteorder"), b"little")
        for key, tensor in enumerate(tensors.values()):
            little = tensor.astype(tensor.dtype.newbyteorder("<"))
            archive.writestr(_entry(f"weights/data/{key}"), little.tobytes())
        archive.writestr(_entry("weights/version"), b"3\n")
    return out.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name)  # of 1980, so that equal weights make equal files


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)
