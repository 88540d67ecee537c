"""Runs a check of `mesh_checks` in a process of its own, with eight virtual CPU devices.

The devices of a process are fixed when JAX starts, and the other tests are quicker with one.
"""

import os
import subprocess
import sys
from pathlib import Path

HELPERS = Path(__file__).resolve().parent
DEVICES = 8
# Eight devices on two cores are slow: a device may wait long for the others.
PATIENCE = (
    "--xla_cpu_collective_call_terminate_timeout_seconds=600"
    " --xla_cpu_collective_timeout_seconds=600"
)


def environment(devices: int, flags: str = "") -> dict[str, str]:
    """Returns that of a process with so many virtual devices, which finds the tests' modules."""
    # Of the tests' modules, of conftest.py, and of the package.
    folders = (HELPERS, HELPERS.parent, HELPERS.parents[1])
    paths = [*map(str, folders), os.environ.get("PYTHONPATH", "")]
    flags = f"--xla_force_host_platform_device_count={devices} {PATIENCE} {flags}"
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
    }


def run_on_devices(check: str, *arguments: object) -> str:
    """Runs a function of `mesh_checks`, and returns what it printed; fails where it does."""
    call = f"import conftest, mesh_checks; mesh_checks.{check}(*{arguments!r})"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", call],
        env=environment(DEVICES),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr[-8000:]
    return result.stdout
