"""InsightFace's verification packs (`lfw.bin`, `cfp_fp.bin`, ...), read without running a pickle.

A pack is the pickle of `(encoded images, is_same)`: images 2p and 2p + 1 make pair p. The only
names that it may call (`safe_pickle.py`) are the handful that rebuild bytes and NumPy arrays, and
even these are stand-ins of this module that know plain numbers and bytes alone.
"""

import io
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sphereface_jax.data.files import write_atomically
from sphereface_jax.data.images import decode_image
from sphereface_jax.data.safe_pickle import RefusedError, SafeUnpickler, StandIn
from sphereface_jax.data.text import existing_file


class VerificationPack:
    """Pairs of face images for verification: an `ImageSequence` of 2P images, pair p at 2p, 2p + 1.

    Attributes:
      is_same: bool [P], whether each pair shows one person.
      folds: int32 [P], ten folds of consecutive pairs.
    """

    def __init__(self, name: str, images: Sequence[bytes], is_same: Sequence[bool]):
        self._name, self._images = name, images
        self.is_same = np.array(is_same, bool)
        sizes = [len(part) for part in np.array_split(self.is_same, 10)]
        self.folds = np.repeat(np.arange(10, dtype=np.int32), sizes)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": decode_image(self._images[index], self.describe(index))}

    def read_encoded(self, index: int) -> bytes:
        """The bytes of image `index` as they were stored."""
        return self._images[index]

    def describe(self, index: int) -> str:
        """File, pair and side."""
        return f"{self._name} pair {index // 2} image {index % 2}"


def read_pack(path: str | os.PathLike[str]) -> VerificationPack:
    """Reads a verification pack.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a pack, cut short, or a pickle that asks for more than bytes and numbers.
    """
    path = existing_file(path, "a verification pack")
    content = _load(path.read_bytes(), str(path))
    if not (isinstance(content, list | tuple) and len(content) == 2):
        raise ValueError(
            f"{path}: expected a pickled pair (images, is_same), found {_kind(content)}"
        )
    images, is_same = (part.array if isinstance(part, _Array) else part for part in content)
    if not (isinstance(images, list | tuple) and isinstance(is_same, list | tuple | np.ndarray)):
        raise ValueError(
            f"{path}: expected a list of images and a list of answers, found {_kind(images)} and "
            f"{_kind(is_same)}"
        )
    if len(images) != 2 * len(is_same) or not len(is_same):
        raise ValueError(
            f"{path}: expected two images for each pair, found {len(images)} images and "
            f"{len(is_same)} pairs"
        )
    encoded = [_image_bytes(image, f"{path} image {i}") for i, image in enumerate(images)]
    answers = [_answer(value, f"{path} pair {i}") for i, value in enumerate(is_same)]
    return VerificationPack(str(path), encoded, answers)


def write_pack(
    path: str | os.PathLike[str], images: Sequence[bytes], is_same: Sequence[bool]
) -> None:
    """Writes a verification pack that InsightFace's tools read as well.

    Args:
      path: the file.
      images: encoded images, those of pair p at 2p and 2p + 1.
      is_same: whether each pair shows one person.

    Raises:
      ValueError: not two images a pair.
    """
    if len(images) != 2 * len(is_same):
        raise ValueError(
            f"images: expected two for each of {len(is_same)} pairs, got {len(images)}"
        )
    content = [bytes(image) for image in images], [bool(same) for same in is_same]
    write_atomically(Path(path), pickle.dumps(content, protocol=4))


class _Dtype(StandIn):
    """A NumPy dtype of plain numbers."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *_: Any):
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not (isinstance(code, str) and len(code) in (2, 3) and code[0] in "biuf"):
            raise RefusedError(f"it holds an array of {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array(StandIn):
    """A NumPy array of plain numbers; its content comes with BUILD, as NumPy's own does."""

    __slots__ = ("array",)

    def __init__(self, *_: Any):
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _from_buffer(data, dtype, shape, "F" if fortran else "C").array


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    data = data.encode("latin1") if isinstance(data, str) else bytes(data)
    result = _Array()
    result.array = np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
    return result


def _scalar(dtype: Any, data: Any) -> Any:
    return _from_buffer(data, dtype, (), "C").array[()].item()


def _no_bytes() -> bytes:
    """What Python 3 writes for `b""` in the old protocols; `bytes(10**12)` is refused."""
    return b""


def _latin1(text: Any, encoding: Any) -> bytes:
    """What Python 3 writes for bytes in the old protocols."""
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"it encodes as {encoding!r}")
    return text.encode("latin1")


_NUMPY_CORE = ("numpy.core", "numpy._core")
_ALLOWED: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("_codecs", "encode"): _latin1,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in _NUMPY_CORE},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _NUMPY_CORE},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in _NUMPY_CORE},
}


def _load(data: bytes, name: str) -> Any:
    try:
        return SafeUnpickler(io.BytesIO(data), _ALLOWED, encoding="bytes").load()
    except RefusedError as error:
        raise ValueError(
            f"{name}: refused: expected a pickle of lists, bytes, bools and numbers alone, but "
            f"{' '.join(str(error).split())[:200]}"
        ) from None
    except Exception as error:  # a damaged pickle raises whatever its damage leads to
        raise ValueError(
            f"{name}: expected a verification pack, found a damaged or truncated pickle "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]})"
        ) from None


def _image_bytes(image: Any, name: str) -> bytes:
    if isinstance(image, _Array):
        image = image.array
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        return image.tobytes()
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    raise ValueError(f"{name}: expected the bytes of an encoded image, found {_kind(image)}")


def _answer(value: Any, name: str) -> bool:
    if isinstance(value, bool | np.bool_) or (
        isinstance(value, int | np.integer) and value in (0, 1)
    ):
        return bool(value)
    raise ValueError(f"{name}: expected True or False, found {_kind(value)}")


def _kind(value: Any) -> str:
    return type(value).__name__.strip("_").lower()
