"""The experiment on public networks runs at its smallest, and its table in the docs is fresh."""

import json
from pathlib import Path

import pytest
from command import call
from imported_run import make_run

from experiments.pages import DOCS


def test_the_table_of_the_docs_is_that_of_the_results() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra `onnx`")
    from experiments.public_networks import Options, check, report

    results = json.loads(Options.out.read_text())
    assert report(results) in (DOCS / "how-to" / "use-a-network.md").read_text()
    assert check(results["networks"]) == []


@pytest.mark.slow
def test_a_network_goes_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is in the extra `onnx`")
    from experiments import public_networks
    from experiments.benchmark_lists import draw_people, write_pairs

    networks, size = tmp_path / "networks", (48, 48)
    networks.mkdir()
    run = make_run(tmp_path, "sfnet4_bn", size)
    assert call("export", run, "--onnx", networks / "tiny.onnx") == 0
    draw_people(tmp_path / "faces", 20, 3, size, 1000)
    write_pairs(tmp_path / "pairs.txt", 1000)
    tiny = public_networks.Network((127.5,), (127.5,))
    monkeypatch.setattr(public_networks, "NETWORKS", {"tiny.onnx": tiny, "absent.onnx": tiny})
    options = public_networks.Options(
        networks, tmp_path / "pairs.txt", tmp_path / "faces", tmp_path / "out.json"
    )
    public_networks.main(options)
    results = json.loads((tmp_path / "out.json").read_text())
    found = results["networks"]["tiny.onnx"]
    assert (found["images"], found["compared"], found["folded"]) == (60, 60, False)
    assert found["least_cosine"] > 1 - 1e-5
    found["onnxruntime"]["lfw_authors"] += 0.001
    found["least_cosine"] = 0.99
    assert public_networks.check(results["networks"]) == [
        "tiny.onnx: lfw_authors differs from onnxruntime",
        "tiny.onnx: least_cosine is 0.99",
    ]
    with pytest.raises(FileNotFoundError, match=r"expected tiny\.onnx, absent\.onnx, found none"):
        public_networks.main(public_networks.Options(tmp_path, tmp_path, tmp_path))
