"""The results file of a benchmark, and the machine that it ran on."""

import os
import platform
from pathlib import Path
from typing import Any

import jax

from sphereface_jax.data.files import write_json


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, device and versions, and how busy the machine is.

    A real-time process (`chrt -f 50 python ...`) is not disturbed by what else runs.
    """
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in names if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "load_before": round(os.getloadavg()[0], 2),
        "real_time": getattr(os, "sched_getscheduler", lambda _: 0)(0) != 0,
    }


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes results as JSON, whole or not at all, and says where."""
    write_json(path, results)
    print(path)
