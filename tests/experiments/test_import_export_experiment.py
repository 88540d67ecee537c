"""The import and export experiment runs at its smallest and finds both sides equal."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_weights_leave_and_come_back(tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is in the extra `onnx`")
    from experiments.import_export_lfw import Options, main

    main(Options(out=tmp_path / "numbers.json"))
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["images"] == 60
    assert numbers["jax"] == numbers["onnxruntime"]
    with pytest.raises(ValueError, match="--run, --pairs and --images together"):
        main(Options(run=tmp_path))
