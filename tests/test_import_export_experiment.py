"""The import and export experiment runs at its smallest and finds both sides equal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_smoke(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is in the extra `onnx`")
    pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra `onnx`")
    out = tmp_path / "numbers.json"
    script = ROOT / "experiments" / "import_export_lfw.py"
    result = subprocess.run(
        [sys.executable, str(script), "--preset", "smoke", "--out", str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )
    assert result.returncode == 0, result.stderr
    numbers = json.loads(out.read_text())
    assert numbers["images"] == 60
    assert numbers["jax"] == numbers["onnxruntime"]
