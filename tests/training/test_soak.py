"""Half an hour of training, saving and scoring takes no more memory at its end.

    pytest -m soak -n 0 -s
    SOAK_SECONDS=60 SOAK_SAMPLES=memory.txt pytest -m soak -n 0 -s

The process trains a small network as `sphereface train` does, saves every 20 steps and scores
every 30, and its memory is looked at from outside: what it allocated, in RAM or swapped out, and
not the pages of files, which the kernel drops and reads again as it likes. A straight line through
what it held after the first third of the time must rise by less than 2 % of it.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from tiny_run import as_flags, tiny_config

from sphereface_jax.data.files import read_records

SECONDS = float(os.environ.get("SOAK_SECONDS", 1800))
WARM_UP = 1 / 3  # of the time: compilation, the first saves and scores, and caches that fill
LIMIT = 0.02  # of the memory


def growth(times: np.ndarray, sizes: np.ndarray) -> float:
    """How much a line through the sizes after the warm-up rises, as a share of their mean."""
    late = times >= times[0] + WARM_UP * (times[-1] - times[0])
    slope, _ = np.polyfit(times[late], sizes[late], 1)
    return float(slope * np.ptp(times[late]) / sizes[late].mean())


def allocated_megabytes(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return (
        sum(int(kilobytes) for kilobytes in re.findall(r"(?:RssAnon|VmSwap):\s+(\d+)", status))
        / 1e3
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is Linux's")
@pytest.mark.soak
def test_memory_stays_flat(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", steps=10**8, checkpoint_every=20, log_every=5)
    flags = [*as_flags(config), "--val.fraction=0.4", "--val.every=30", "--val.pairs=40"]
    flags += ["--data.synthetic-identities=50"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sphereface_jax.cli", "train", *flags],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    scores = config.out / "validation.jsonl"
    while not scores.is_file() and process.poll() is None:
        time.sleep(0.1)
    start, samples = time.monotonic(), []
    try:
        while (now := time.monotonic() - start) < SECONDS:
            assert process.poll() is None
            samples.append((now, allocated_megabytes(process.pid)))
            time.sleep(min(1.0, SECONDS / 100))
        process.send_signal(signal.SIGTERM)
        assert process.wait(600) == 128 + signal.SIGTERM
    finally:
        process.kill()
        if "SOAK_SAMPLES" in os.environ:
            np.savetxt(os.environ["SOAK_SAMPLES"], np.array(samples), fmt="%.1f", header="s MB")
    times, sizes = np.array(samples).T
    rise, step = growth(times, sizes), read_records(config.out / "metrics.jsonl")[-1]["step"]
    print(
        f"{SECONDS:.0f} s, {step} steps, {step // 20} saves, {len(read_records(scores))} scores: "
        f"{sizes[0]:.0f} MB at first, {np.median(sizes[-10:]):.0f} MB at the end, the line after "
        f"the warm-up rises by {rise:+.2%}"
    )
    assert rise < LIMIT


def test_a_leak_would_be_seen() -> None:
    times = np.arange(0, 1800.0)
    noise = np.random.default_rng(0).normal(scale=3, size=times.size)
    warm_up = 800 - 200 * np.exp(-times / 100)
    assert abs(growth(times, warm_up + noise)) < LIMIT / 2
    megabyte_a_minute = warm_up + noise + times / 60
    assert growth(times, megabyte_a_minute) > LIMIT
