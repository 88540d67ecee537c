"""An exported network gives in onnxruntime, or through jax.export, the embeddings it gives here."""

import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from command import call, refused
from faces_on_disk import make_face, write_image
from imported_run import DIM, make_run
from marks import marked
from on_paper import unit

from sphereface_jax.data.images import read_image
from sphereface_jax.embedder import FaceEmbedder

VARIANTS = ("sphere20a", "sfnet10_deprecated", "ir18", "mobilefacenet_foamliu")
LARGE = "mobilefacenet_large"
ARCHITECTURES = marked(
    (
        "spherenet10",
        "sfnet10",
        "sfnet10_bn",
        "iresnet18",
        "mobilefacenet",
        "vit_t",
        *VARIANTS,
        LARGE,
    ),
    slow=VARIANTS,
    parity_full=[LARGE],
)


def faces(folder: Path, side: int = 48) -> list[Path]:
    paths = [folder / "faces" / f"{index}.png" for index in range(5)]
    for index, path in enumerate(paths):
        write_image(path, make_face(index, side, side))
    return paths


def session(path: Path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra `onnx`")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    """Feeds uint8 RGB faces [N, H, W, 3] in the way that the file asks for."""
    loaded = session(path)
    (wanted,) = loaded.get_inputs()
    if wanted.type == "tensor(float)":
        images = ((images.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)
    return loaded.run(None, {wanted.name: images})[0]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_onnx_gives_the_same_embeddings(arch: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is in the extra `onnx`")
    size = (48, 40) if arch.startswith("sphere") else (48, 48)
    run, paths = make_run(tmp_path, arch, size), faces(tmp_path)
    ours = FaceEmbedder.from_run(run).embed_paths(paths).embeddings
    assert ours.std(axis=0).max() > 1e-3 * np.abs(ours).max()
    images, atol = np.stack([read_image(path) for path in paths]), 2e-5 * np.abs(ours).max()
    for kind in ("float", "uint8"):
        out = tmp_path / f"{kind}.onnx"
        assert call("export", run, "--onnx", out, "--onnx-input", kind) == 0
        np.testing.assert_allclose(run_onnx(out, images), ours, atol=atol)
        np.testing.assert_allclose(run_onnx(out, images[:1]), ours[:1], atol=atol)


def test_insightface_tools_take_the_file_for_a_recognition_model(tmp_path: Path) -> None:
    """What `insightface.model_zoo` looks at: a square input in NCHW, and no Sub or Mul at first."""
    onnx = pytest.importorskip("onnx", reason="onnx is in the extra `onnx`")
    run, out = make_run(tmp_path, "sphere20a", (112, 96)), tmp_path / "net.onnx"
    assert call("export", run, "--onnx", out, "--normalize") == 0
    loaded = session(out)
    assert loaded.get_inputs()[0].shape == ["batch", 3, 112, 112]
    assert loaded.get_outputs()[0].shape == ["batch", DIM]
    names = [node.name for node in onnx.load(out).graph.node[:8]]
    assert not any(name.startswith(("Sub", "Mul", "_minus", "_mul")) for name in names)
    paths = faces(tmp_path, side=112)
    theirs = run_onnx(out, np.stack([read_image(path) for path in paths]))
    ours = unit(FaceEmbedder.from_run(run).embed_paths(paths).embeddings)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_onnx_agrees_on_real_faces(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is in the extra `onnx`")
    run, out = make_run(tmp_path, "iresnet18", (112, 112)), tmp_path / "net.onnx"
    assert call("export", run, "--onnx", out) == 0
    paths = sorted((shared_data / "lfw" / "aligned_112").glob("A*/*.jpg"))[:32]
    ours = unit(FaceEmbedder.from_run(run).embed_paths(paths).embeddings)
    theirs = unit(run_onnx(out, np.stack([read_image(path) for path in paths])))
    assert np.abs(theirs @ theirs.T - ours @ ours.T).max() < 1e-4
    assert (ours * theirs).sum(axis=1).min() > 1 - 1e-4


@pytest.mark.parametrize("arch", ["spherenet10", "sfnet10_bn"])
def test_stablehlo_gives_the_same_embeddings(arch: str, tmp_path: Path) -> None:
    run, out = make_run(tmp_path, arch, (48, 48)), tmp_path / "net.stablehlo"
    assert call("export", run, "--stablehlo", out, "--normalize") == 0
    paths = faces(tmp_path)
    function = jax.export.deserialize(out.read_bytes())
    assert set(function.platforms) == {"cpu", "cuda", "tpu"}
    theirs = function.call(np.stack([read_image(path) for path in paths]))
    ours = unit(FaceEmbedder.from_run(run).embed_paths(paths).embeddings)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_int8_stays_near_and_is_refused_where_it_costs_too_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx", reason="onnx is in the extra `onnx`")
    run, out = make_run(tmp_path, "sfnet4_bn", (48, 48)), tmp_path / "int8.onnx"
    for person in range(4):
        for view in range(2):
            name = f"P{person}/P{person}_{view + 1:04d}.png"
            write_image(tmp_path / "lfw" / name, make_face(2 * person + view, 48, 48))
    lines = ["2\t2", *(f"P{i}\t1\t2" for i in (0, 1)), "P0\t1\tP1\t2", "P1\t1\tP0\t2"]
    lines += [*(f"P{i}\t1\t2" for i in (2, 3)), "P2\t1\tP3\t2", "P3\t1\tP2\t2"]
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("\n".join(lines) + "\n")
    flags = ["export", run, "--onnx", out, "--int8"]
    assert "--calibrate-on DIR" in refused(capsys, *flags)
    flags += ["--calibrate-on", tmp_path / "lfw", "--pairs", pairs, "--images", tmp_path / "lfw"]
    assert "expected a loss of at most -101 points" in refused(capsys, *flags, "--most-loss", -101)
    assert not out.exists()
    assert call(*flags, "--most-loss", 100) == 0
    said = capsys.readouterr().out
    assert "pairs.txt by lfw_authors: float" in said
    paths = sorted((tmp_path / "lfw").rglob("*.png"))
    ours = unit(FaceEmbedder.from_run(run).embed_paths(paths).embeddings)
    theirs = unit(run_onnx(out, np.stack([read_image(path) for path in paths])))
    cosines = np.sum(ours * theirs, axis=1)
    assert 0.97 < cosines.min() < 1 - 1e-6


def test_export_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, "sfnet4", (48, 48))
    there = tmp_path / "there.pt"
    there.touch()
    assert "got none" in refused(capsys, "export", run)
    assert "does not exist yet" in refused(capsys, "export", run, "--torch", there)
    missing = tmp_path / "no" / "x.pt"
    assert "expected a folder" in refused(capsys, "export", run, "--torch", missing)
    assert "config.json" in refused(capsys, "export", tmp_path, "--torch", tmp_path / "x.pt")


def test_without_onnx_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = make_run(tmp_path, "sfnet4", (48, 48)), tmp_path / "net.onnx"
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert 'pip install ".[onnx]"' in refused(capsys, "export", run, "--onnx", out)
    assert not out.exists()


def test_without_flatbuffers_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = make_run(tmp_path, "sfnet4", (48, 48)), tmp_path / "net.stablehlo"
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "flatbuffers" else find_spec(name, *rest),
    )
    said = refused(capsys, "export", run, "--stablehlo", out, "--torch", tmp_path / "net.pt")
    assert 'need the package flatbuffers; `pip install ".[onnx]"`' in said
    assert not (tmp_path / "net.pt").exists()
