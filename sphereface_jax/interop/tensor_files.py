"""Any file of weights by its name: FILE, or FILE/KEY for a part of it."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sphereface_jax.interop.mxnet_file import read_mxnet_file
from sphereface_jax.interop.safetensors_file import read_safetensors
from sphereface_jax.interop.torch_file import read_torch_file

# Of DataParallel, of torch.compile, and of modules that hold the network, in any nesting.
_WRAPPERS = re.compile(r"((module|_orig_mod|backbone|model)\.)+")


_READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": read_safetensors,
    ".params": read_mxnet_file,
}


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
    """Reads the tensors of a .safetensors, .params, .pt or .pth file, or of a part of it.

    A training checkpoint that holds one dictionary of tensors among other things is unwrapped; one
    that holds several must be asked for one, as FILE/KEY.

    Args:
      path: FILE or FILE/KEY; a KEY may also name a single tensor.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, asks for code, or holds no such tensors.
    """
    file, keys = split_key(path)
    tree = _READERS.get(file.suffix, read_torch_file)(file)
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
    return tensors


def without_wrappers(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Drops what wrapped a network from its tensors' names.

    `module.` (DataParallel), `_orig_mod.` (torch.compile), `backbone.` and `model.`, nested.

    Returns:
      The tensors by the names that are left, and what was dropped, sorted.

    Raises:
      ValueError: two names became one.

    Example:
      >>> without_wrappers({"module._orig_mod.fc.bias": np.zeros(3)})
      ({'fc.bias': array([0., 0., 0.])}, ['module._orig_mod.'])
    """
    bare: dict[str, str] = {}
    dropped = set()
    for name in tensors:
        found = _WRAPPERS.match(name)
        prefix = found.group() if found else ""
        rest = name.removeprefix(prefix)
        if bare.setdefault(rest, name) != name:
            raise ValueError(
                f"expected each tensor once, found {bare[rest]} and {name}, which are one without "
                "what wraps the network; save the one that is meant"
            )
        dropped |= {prefix} - {""}
    return {rest: tensors[name] for rest, name in bare.items()}, sorted(dropped)


def _items(tree: Any) -> list[tuple[str, Any]]:
    return [(str(key), value) for key, value in tree.items()] if isinstance(tree, dict) else []


def _state_dict(tree: Any) -> dict[str, np.ndarray] | None:
    """The tree itself if it is a dictionary of nothing but tensors."""
    items = _items(tree)
    is_one = bool(items) and all(isinstance(value, np.ndarray) for _, value in items)
    return dict(items) if is_one else None
