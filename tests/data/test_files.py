"""Atomic writes: all of a file, or nothing."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from sphereface_jax.data.files import atomic_file, require_writable_folder
from sphereface_jax.data.vectors import load_vectors


def write(path: Path, data: bytes, error: BaseException | None = None) -> None:
    with atomic_file(path) as file:
        file.write(data)
        assert not path.exists() or path.read_bytes() == b"old"
        if error is not None:
            raise error


def test_the_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write(path, b"old")
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(28, "full")])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path / "file", b"old")
    with pytest.raises(type(error)):
        write(tmp_path / "file", b"new", error)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write(path, b"new", full)

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write(path, b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    require_writable_folder(path)
    with pytest.raises(FileNotFoundError, match=r"no: expected a folder to write x\.npz into"):
        require_writable_folder(tmp_path / "no" / "x.npz")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(PermissionError, match=f"{tmp_path}: .* to write file into, found one that"):
        require_writable_folder(path)


def test_what_cannot_be_opened_has_the_file_s_own_name(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250)  # as a name it is short enough, with the temporary one's ends not
    with pytest.raises(OSError, match="too long") as caught, atomic_file(path):
        pass
    assert caught.value.filename == str(path)


def test_a_plain_npy_array_is_no_file_of_embeddings(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"e.npy: expected an .npz file of plain arrays"):
        load_vectors(tmp_path / "e.npy")
