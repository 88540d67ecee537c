"""Reading and writing .safetensors, by the package of that name.

References:
  https://github.com/huggingface/safetensors, README: Format.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads all tensors of a file.

    Raises:
      ValueError: the file is truncated or is not a safetensors file.
    """
    try:
        return load_file(path, backend="pread")
    except (SafetensorError, AttributeError) as error:  # AttributeError: a type NumPy lacks
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a whole safetensors file: {reason}") from None


def safetensors_bytes(
    tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of a file of tensors.

    Args:
      tensors: by name.
      metadata: text by name, for the file's header.

    Returns:
      What `read_safetensors` reads, ordered by type and name.
    """
    dense = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    return save(dense, dict(metadata) if metadata else None)
