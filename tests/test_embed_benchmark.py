"""The embedding benchmark runs at its smallest and writes what it promises."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent / "experiments" / "benchmarks"


def test_the_embedding_benchmark_writes_results(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    options = ["--images", "20", "--batch-size", "16", "--rounds", "1", "--arch", "sfnet4"]
    subprocess.run(
        [sys.executable, BENCHMARKS / "embed.py", *options, "--out", str(out)],
        check=True,
        capture_output=True,
        cwd=BENCHMARKS.parent.parent,
        env={"PYTHONPATH": str(BENCHMARKS.parent.parent), "JAX_PLATFORMS": "cpu"},
    )
    results = json.loads(out.read_text())
    assert results["images"] == 20
    shares = results["share_of_forward"]
    assert {"arrays", "folder", "folder_two_views", "pack_two_views"} <= set(shares)
    assert shares["forward"] == shares["forward_two_views"] == 1.0
    assert all(len(rates) == 1 and rates[0] > 0 for rates in results["images_per_second"].values())
