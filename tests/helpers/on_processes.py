"""Runs a check of `process_checks` in several processes at once, which train together."""

import socket
import subprocess
import sys

from on_devices import environment

DEVICES = 2  # of each process


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_on_processes(
    count: int, check: str, *arguments: object, codes: tuple[int, ...] = (0,)
) -> list[str]:
    """Runs a function of `process_checks` in each process, and returns what each printed.

    Every process must exit with one of the codes.
    """
    coordinator = f"127.0.0.1:{free_port()}"
    processes = []
    for index in range(count):
        call = (
            "import conftest, process_checks; "
            f"process_checks.join({coordinator!r}, {count}, {index}); "
            f"process_checks.{check}(*{arguments!r})"
        )
        processes.append(
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", call],
                env=environment(DEVICES),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        results = [process.communicate(timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, results, strict=True):
        assert process.returncode in codes, errors[-8000:]
    return [output for output, _ in results]
