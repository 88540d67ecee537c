"""The input benchmark runs at its smallest and writes what it promises."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent / "experiments" / "benchmarks"


def test_the_input_benchmark_writes_results(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    options = ["--rounds", "1", "--batch-size", "32", "--threads", "1", "--out", str(out)]
    subprocess.run(
        [sys.executable, BENCHMARKS / "input.py", *options],
        check=True,
        capture_output=True,
        cwd=BENCHMARKS.parent.parent,
        env={"PYTHONPATH": str(BENCHMARKS.parent.parent), "JAX_PLATFORMS": "cpu"},
    )
    results = json.loads(out.read_text())
    assert results["images"] == 128
    assert {"bare_decoding", "folder", "rec", "array_record"} <= set(results["images_per_second"])
    assert results["share_of_bare_decoding"]["bare_decoding"] == 1.0
    assert all(rate[0] > 0 for rate in results["images_per_second"].values())
