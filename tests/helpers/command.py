"""Runs the command as a shell would, in this process."""

import pytest

from sphereface_jax.cli import main


def call(*args: object) -> int:
    """Runs the command and returns its exit code."""
    try:
        main([str(arg) for arg in args])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Runs the command, which must exit with code 2, and returns the one line that it says."""
    assert call(*args) == 2
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    return captured
