"""How a benchmark measures: rates in turn, memory, and contenders in processes of their own.

Imports nothing heavy: what a contender imports, it pays for itself.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
T = TypeVar("T")


def seconds(run: Callable[[], T]) -> tuple[T, float, float]:
    """What a call returns, how long it takes, and how much processor time of this process."""
    start, start_processor = time.perf_counter(), time.process_time()
    found = run()
    return found, time.perf_counter() - start, time.process_time() - start_processor


def rates(contestants: Mapping[str, Callable[[], int]], rounds: int) -> dict[str, np.ndarray]:
    """Images a second of each contestant, [rounds, 2]: of the clock and of processor time.

    They run in turn, so that a busy machine is busy for all; one round before them warms up.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            images, *took = seconds(run)
            if number:
                found[name].append(images / np.array(took))
    return {name: np.array(values) for name, values in found.items()}


def held_bytes() -> int:
    """Memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """Most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_own_process(module: str, *arguments: object, **environment: str) -> dict[str, Any]:
    """What a module of this folder prints as its last line of JSON, or why it cannot.

    Args:
      module: its name.
      arguments: of its command line.
      environment: variables beside this process's own.
    """
    result = subprocess.run(
        [sys.executable, "-m", f"experiments.benchmarks.{module}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
        return {"cannot": lines[-1]}
    return json.loads(result.stdout.splitlines()[-1])
