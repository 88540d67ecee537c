"""The heads' benchmark runs at its smallest and writes what it promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent / "experiments" / "benchmarks"


def test_the_smoke_preset_writes_results(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    subprocess.run(
        [sys.executable, BENCHMARKS / "head.py", "--preset", "smoke", "--out", out],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS.parent.parent), "JAX_PLATFORMS": "cpu"},
    )
    results = json.loads(out.read_text())
    assert results["machine"]["cores"] >= 1
    (size,) = results["sizes"]
    assert size["class_block"] < size["classes"]
    for name in ("bare_products", "dense", "streaming"):
        assert size["contenders"][name]["seconds"] > 0
    assert size["ratios"]["streaming / bare_products"] > 0
