"""Any file of weights by its name: FILE, or FILE/KEY for a part of it."""

from pathlib import Path
from typing import Any

import numpy as np

from sphereface_jax.interop.safetensors_file import read_safetensors
from sphereface_jax.interop.torch_file import read_torch_file


def split_key(path: Path) -> tuple[Path, list[str]]:
    """Splits FILE/KEY/KEY into the file and the keys.

    Raises:
      FileNotFoundError: no part of the path is a file.
    """
    for file in (path, *path.parents):
        if file.is_file():
            return file, list(path.relative_to(file).parts)
    raise FileNotFoundError(f"{path}: expected a file of weights, found none")


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a .safetensors, .pt or .pth file, or of a part of it.

    A training checkpoint that holds one dictionary of tensors among other things is unwrapped; one
    that holds several must be asked for one, as FILE/KEY. DataParallel's `module.` is dropped.

    Args:
      path: FILE or FILE/KEY; a KEY may also name a single tensor.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, asks for code, or holds no such tensors.
    """
    file, keys = split_key(path)
    tree = read_safetensors(file) if file.suffix == ".safetensors" else read_torch_file(file)
    for key in keys:
        if not isinstance(tree, dict) or key not in tree:
            found = ", ".join(list(map(str, tree))[:5]) if isinstance(tree, dict) else "a tensor"
            raise ValueError(f"{file}: expected {key} in it, found {found}")
        tree = tree[key]
    if isinstance(tree, np.ndarray):
        return {keys[-1]: tree}
    tensors = _state_dict(tree)
    if tensors is None:
        inner = {key: value for key, value in _items(tree) if _state_dict(value)}
        if len(inner) != 1:
            found = f"several: {', '.join(inner)}" if inner else "none"
            raise ValueError(
                f"{path}: expected one state dict, found {found}; name it as {file}/KEY"
            )
        (tensors,) = inner.values()
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _items(tree: Any) -> list[tuple[str, Any]]:
    return [(str(key), value) for key, value in tree.items()] if isinstance(tree, dict) else []


def _state_dict(tree: Any) -> dict[str, np.ndarray] | None:
    """The tree itself if it is a dictionary of nothing but tensors."""
    items = _items(tree)
    is_one = bool(items) and all(isinstance(value, np.ndarray) for _, value in items)
    return dict(items) if is_one else None
