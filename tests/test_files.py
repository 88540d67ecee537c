"""Atomic writes: all of a file, or nothing."""

import errno
import os
from pathlib import Path

import pytest

from sphereface_jax.data.files import AtomicFile


def write(path: Path, data: bytes, error: BaseException | None = None) -> None:
    with AtomicFile(path) as file:
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
