"""Kills at random moments end in the same bits: two in the suite, 20 with `pytest -m chaos`.

`pytest -m chaos -n 0 -s` prints the list of kills while it grows.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

from experiments import kill_and_resume
from experiments.kill_and_resume import Config, Run, batches_that_count
from sphereface_jax.training.run_folder import load_run

pytestmark = pytest.mark.slow

GRACE = 30  # seconds from SIGTERM to SIGKILL, as Kubernetes and SLURM have them by default


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the processes that a test starts."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


def compare(config: Config, folder: Path) -> list[kill_and_resume.Kill]:
    undisturbed, killed = Run(folder / "undisturbed", config), Run(folder / "killed", config)
    try:
        undisturbed.finish()
        kills = kill_and_resume.run_killed(killed)
    finally:
        undisturbed.end()
        killed.end()
    assert len(kills) == config.kills
    assert kill_and_resume.compare(undisturbed, killed)
    return kills


def test_two_kills_end_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".cache" / "jax"))
    kills = compare(Config(steps=60, kills=2), tmp_path)
    assert [kill.where for kill in kills] == ["step", "save"]


@pytest.mark.chaos
def test_twenty_kills_end_in_the_same_bits(tmp_path: Path) -> None:
    kills = compare(Config(steps=300, kills=20), tmp_path)
    assert sum(kill.proof.startswith("left ") for kill in kills) >= 3
    assert sum(kill.proof == "had not said yet where it goes on" for kill in kills) >= 3


def test_a_lost_or_doubled_batch_would_be_seen() -> None:
    def batches(process: int, *steps: int) -> list[dict[str, int]]:
        return [{"process": process, "first": 8 * step, "count": 8, "crc": step} for step in steps]

    whole = batches_that_count(batches(1, 0, 1, 2, 3))
    assert batches_that_count(batches(1, 0, 1, 2) + batches(2, 1, 2, 3)) == whole
    assert batches_that_count(batches(1, 0, 1) + batches(2, 3)) != whole
    assert batches_that_count(batches(1, 0, 1, 2, 2, 3)) != whole
    assert batches_that_count(batches(1, 0, 1, 3, 2)) != whole


@pytest.mark.chaos
def test_sigterm_saves_within_the_grace_period(tmp_path: Path) -> None:
    run = Run(tmp_path, Config(steps=100_000, checkpoint_every=100_000))
    took = []
    for _ in range(5):
        before = len(run.batches())
        run.start()
        kill_and_resume.wait(run, lambda before=before: len(run.batches()) > before + 5)
        start = time.monotonic()
        (process,) = run.processes
        process.terminate()
        assert process.wait() == 128 + signal.SIGTERM
        took.append(time.monotonic() - start)
        assert took[-1] < GRACE
        assert load_run(run.out).step == len(run.batches()) > before
    print("seconds from SIGTERM to the end: " + ", ".join(f"{seconds:.1f}" for seconds in took))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB; only the superuser may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.chaos
def test_a_full_disk_costs_warnings_only(tiny_disk: Path, tmp_path: Path) -> None:
    """Filled to the last byte under a running process, and freed again."""
    config = Config(steps=300)
    undisturbed, crowded = Run(tmp_path / "undisturbed", config), Run(tmp_path / "crowded", config)
    undisturbed.finish()
    (tiny_disk / "run").mkdir()
    crowded.folder.mkdir()
    crowded.out.symlink_to(tiny_disk / "run")
    crowded.start()
    kill_and_resume.wait(crowded, lambda: len(crowded.batches()) > 30)
    ballast = tiny_disk / "ballast"
    fill(ballast)
    for failures in (1, 2):
        kill_and_resume.wait(
            crowded, lambda failures=failures: crowded.printed.count("was not saved") >= failures
        )
    ballast.unlink()
    (process,) = crowded.processes
    assert process.wait(kill_and_resume.PATIENCE) == 0, crowded.printed[-4000:]
    warnings = [line for line in crowded.printed.splitlines() if line.startswith("warning")]
    print("\n".join(warnings))
    assert all("Free some space" in line for line in warnings)
    # Where the disk fills in the midst of a save, TensorStore's threads complain to asyncio's loop,
    # which Orbax has closed, and print that past Python's hooks: frames of asyncio alone.
    frames = set(re.findall(r'^ *File "(.*?)"', crowded.printed, re.MULTILINE))
    assert all(frame.endswith("asyncio/base_events.py") for frame in frames), frames
    assert kill_and_resume.compare(undisturbed, crowded)


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    assert os.statvfs(path).f_bavail == 0
