"""Writing without leaving half a file behind: a temporary name first, then one atomic rename.

And the JSON that is written so, and how many may write at once: the cores that are there.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from sphereface_jax.data.text import IN_PLAIN_LETTERS


@contextlib.contextmanager
def atomic_file(path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """Yields a file that appears under its name only if the block ends without an error.

    Args:
      path: the file; its folder is made if need be, and a file of that name is replaced.
      sync: wait until the disk has it, so that it outlives a power cut; for many small files that
        can be made again it costs more than it saves.

    Yields:
      The file, open for bytes.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # A full disk names no file of its own, and of the others the caller knows this one.
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to write into, which has its name only if the block ends without an error.

    Args:
      path: the folder; it must not exist yet. Those above it are made if need be.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_writable_folder(path: Path) -> None:
    """Refuses, before long work, a file that could not be written in the end.

    Raises:
      FileNotFoundError: the file's folder is not there.
      PermissionError: it may not be written to.
    """
    folder = path.parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: expected a folder to write {path.name} into, found none; create it first"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{folder}: expected a folder to write {path.name} into, found one that may not be "
            "written to; change its permissions, or name another"
        )


def claim_folder(folder: Path, name: str, made: dict[str, Any], what: str) -> None:
    """Writes into a folder how what it holds is made, or checks that it is made so.

    Args:
      folder: the folder.
      name: of the JSON file in it.
      made: how, in JSON's types.
      what: what the folder holds.

    Raises:
      ValueError: the folder's are made in another way, or the file is damaged.
    """
    path = folder / name
    if not path.is_file():
        write_json(path, made)
        return
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        raise ValueError(f"{path}: expected JSON, found other text; delete {folder}") from None
    if found != json.loads(json.dumps(made)):
        raise ValueError(
            f"{folder}: expected {what} made with {made}, found {what} made with {found}; delete "
            "it, or name another folder"
        )


def available_cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def write_atomically(path: Path, content: str | bytes, *, sync: bool = True) -> None:
    """Writes a file under a temporary name, then renames it.

    Args:
      path: the file, replaced if it is there.
      content: bytes, or text, which is written in UTF-8, `printable`.
      sync: as for `atomic_file`.
    """
    with atomic_file(path, sync=sync) as file:
        file.write(
            content if isinstance(content, bytes) else content.encode("utf-8", IN_PLAIN_LETTERS)
        )


def write_json(path: Path, values: Any) -> None:
    """Writes JSON atomically.

    Args:
      path: the file, replaced if it is there.
      values: what JSON can hold.
    """
    write_atomically(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
      ValueError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from error


def read_json_if_there(path: Path) -> Any:
    """Reads JSON as `read_json` does; None where there is no such file."""
    return read_json(path) if path.is_file() else None


def file_name(title: str) -> str:
    """A title as the name of a file: letters, digits, `_`, `-` and dots inside, 100 at most."""
    return re.sub(r"[^\w.-]", "_", title).strip(".")[:100]


def read_records(path: Path) -> list[dict[str, Any]]:
    """Reads a file of one JSON object a line; a last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary as one of dotted names.

    Args:
      values: by name, nested to any depth.
      prefix: what to put before every name.

    Returns:
      The values that are not dictionaries.

    Example:
      >>> flatten({"loss": {"name": "sphereface"}, "seed": 0})
      {'loss.name': 'sphereface', 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
