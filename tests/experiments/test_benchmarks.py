"""Every benchmark runs at its smallest, by its command, and writes what it promises."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
Results = dict[str, Any]


def check_embed(results: Results) -> None:
    assert results["images"] == 20
    shares = results["share_of_forward"]
    assert {"arrays", "folder", "folder_two_views", "pack_two_views"} <= set(shares)
    assert shares["forward"] == shares["forward_two_views"] == 1.0
    assert all(len(rates) == 1 and rates[0] > 0 for rates in results["images_per_second"].values())


def check_head(results: Results) -> None:
    (size,) = results["sizes"]
    assert size["class_block"] < size["classes"]
    for name in ("bare_products", "dense", "streaming"):
        assert size["contenders"][name]["seconds"] > 0
    assert size["ratios"]["streaming / bare_products"] > 0


def check_head_devices(results: Results) -> None:
    arguments = [found["arguments"] for found in results["bytes_of_a_device"]]
    assert arguments == sorted(arguments, reverse=True)
    assert arguments[-1] > 0


def check_identification(results: Results) -> None:
    assert results["ratio"] > 0
    assert len(results["search_seconds"]) == len(results["bare_product_seconds"]) == 1
    assert results["peak_gib_beyond_vectors"] >= 0


def check_input(results: Results) -> None:
    assert results["images"] == 128
    assert {"bare_decoding", "folder", "rec", "array_record"} <= set(results["images_per_second"])
    assert results["share_of_bare_decoding"]["bare_decoding"] == 1.0
    assert all(rate[0] > 0 for rate in results["images_per_second"].values())


def check_verification(results: Results) -> None:
    assert results["seconds_together"] == pytest.approx(sum(results["seconds"].values()), abs=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "check"),
    [
        ("embed", "--images 20 --batch-size 16 --rounds 1 --arch sfnet4", check_embed),
        ("head", "--preset smoke", check_head),
        ("head_devices", "--classes 64 --batch 8 --width 8 --class-block 8", check_head_devices),
        ("identification", "--preset smoke", check_identification),
        ("input", "--rounds 1 --batch-size 32 --threads 1", check_input),
        ("verification", "--preset smoke", check_verification),
    ],
)
def test_a_benchmark_writes_results(
    name: str, options: str, check: Callable[[Results], None], tmp_path: Path
) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, "-m", f"experiments.benchmarks.{name}", *options.split()]
    subprocess.run([*command, "--out", out], check=True, capture_output=True, cwd=ROOT)
    results = json.loads(out.read_text())
    assert results["benchmark"] == name
    assert results["machine"]["cores"] >= 1
    if "smoke" in options:
        assert results["preset"] == "smoke"
    check(results)


def test_a_search_beside_the_bare_product(tmp_path: Path) -> None:
    from experiments.benchmarks import search

    out = tmp_path / "search.json"
    search.main(search.Options(references=1000, probes=4, dim=8, repeats=1, out=out))
    assert json.loads(out.read_text())["ratio"] > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.onnx.export
def test_a_network_beside_pytorch_and_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is in the extra `parity`")
    from experiments.benchmarks import networks

    out = tmp_path / "networks.json"
    networks.main(("mobilefacenet_foamliu",), count=2, rounds=1, out=out)
    (found,) = json.loads(out.read_text())["networks"].values()
    assert found["greatest_difference"] < 1e-4
    assert all(rate > 0 for rate in found["images_per_second"].values())


def test_pieces_for_a_gpu_are_done_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.on_a_gpu", "--smoke", f"--out={tmp_path}"]
    command += ["--pieces", "head-100000"]
    first, second = (
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        for _ in range(2)
    )
    assert "head-100000: done" in first
    assert second == "head-100000: done\n"
    (path,) = tmp_path.glob("on_a_gpu_*.json")
    found = json.loads(path.read_text())["pieces"]["head-100000"]["seconds"]
    assert set(found) == {"bare products", "blocks", "dense"}
