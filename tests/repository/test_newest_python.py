"""The newest Python is found where it is, and its absence is said."""

import sys
from pathlib import Path

import newest_python
import pytest


def put_python(path: Path, program: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Python: an empty path and an empty pyenv."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def test_pythons_of_the_path_and_of_pyenv_are_found_if_they_run(elsewhere: Path) -> None:
    put_python(elsewhere / "bin" / "python3.99", "exit 127")  # a shim
    put_python(elsewhere / "bin" / "python3.98-config", "echo 3 98 0")
    first = put_python(elsewhere / "bin" / "python3.9", "echo 3 9 18")
    second = put_python(
        elsewhere / "pyenv" / "versions" / "3.13.0" / "bin" / "python3.13", "echo 3 13 0"
    )
    assert newest_python.pythons() == {(3, 9, 18): first, (3, 13, 0): second}


@pytest.mark.parametrize("version", [(), (3, 9, 18), sys.version_info[:3]])
def test_no_newer_python_is_said(
    elsewhere: Path, version: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    if version:
        put_python(elsewhere / "bin" / "python3.9", f"echo {' '.join(map(str, version))}")
    newest_python.main()
    assert capsys.readouterr().out.startswith("No Python newer than")


def test_a_newer_python_without_packages_is_said(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_python(elsewhere / "bin" / "python3.99", "echo 3 99 0")
    put_python(elsewhere / "bin" / "make", "exit 2")
    newest_python.main()
    assert capsys.readouterr().out.startswith("Python 3.99.0 is here, but")
