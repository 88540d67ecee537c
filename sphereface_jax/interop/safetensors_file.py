"""Reading and writing .safetensors: eight bytes of length, a JSON header, raw tensors.

The format is small enough that its checks are most of the work, and the NumPy side of the
`safetensors` package has no bfloat16, in which many weights come.

References:
  https://github.com/huggingface/safetensors, README: Format.
"""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_NAMES = {np.dtype(dtype): name for name, dtype in TYPES.items()}
_MOST_HEADER_BYTES = 100_000_000


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads all tensors of a file.

    Raises:
      ValueError: the file is truncated or is no safetensors file.
    """
    content = path.read_bytes()
    try:
        return _decode(content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a whole safetensors file: {reason}") from None


def _decode(content: bytes) -> dict[str, np.ndarray]:
    if len(content) < 8:
        raise ValueError(f"{len(content)} bytes")
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(_MOST_HEADER_BYTES, len(content) - 8):
        raise ValueError(f"its header should have {length} bytes, the file has {len(content)}")
    header = json.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    header.pop("__metadata__", None)
    data = memoryview(content)[8 + length :]
    return {name: _tensor(name, entry, data) for name, entry in header.items()}


def _tensor(name: str, entry: Any, data: memoryview) -> np.ndarray:
    dtype = np.dtype(TYPES[entry["dtype"]])
    shape, (start, end) = entry["shape"], entry["data_offsets"]
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, start, end)):
        raise ValueError(f"{name}: invalid shape or data_offsets")
    if end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} does not fill its place")
    if end > len(data):
        raise ValueError(f"{name} ends at byte {end} of {len(data)}; it was cut short")
    return np.frombuffer(data[start:end], dtype).reshape(shape)


def safetensors_bytes(
    tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Returns the file of some tensors; `metadata` maps texts to texts.

    Args:
      tensors: by name, of the dtypes that the format knows.
      metadata: texts by name to store in the file.

    Returns:
      The file, with the tensors in their order.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        kind = _NAMES[tensor.dtype]
        header[name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = (tensor.astype(tensor.dtype.newbyteorder("<")).tobytes() for tensor in tensors.values())
    return struct.pack("<Q", len(text)) + text + b"".join(body)
