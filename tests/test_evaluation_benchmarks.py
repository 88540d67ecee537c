"""The evaluation benchmarks run at their smallest and write what they promise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "experiments" / "benchmarks"


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("identification", {"ratio", "search_seconds", "peak_gib_beyond_vectors", "machine"}),
        ("verification", {"seconds", "seconds_together", "machine"}),
    ],
)
def test_the_smoke_preset_writes_results(name: str, keys: set[str], tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", "--preset", "smoke", "--out", out],
        check=True,
        capture_output=True,
        cwd=BENCHMARKS.parent.parent,
        env={"PYTHONPATH": str(BENCHMARKS.parent.parent), "JAX_PLATFORMS": "cpu"},
    )
    results = json.loads(out.read_text())
    assert keys <= set(results)
    assert results["preset"] == "smoke"
    assert results["machine"]["cores"] >= 1
