"""The package `insightface` takes an exported file for one of its own recognition models."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from command import call
from imported_run import DIM, make_run
from on_paper import unit

from sphereface_jax.data.aligner import face_aligner
from sphereface_jax.data.landmarks import landmarks_of, read_landmarks
from sphereface_jax.embedder import FaceEmbedder

pytestmark = pytest.mark.filterwarnings("ignore")  # of providers that this machine lacks


@pytest.fixture(scope="module")
def model_zoo():
    return pytest.importorskip("insightface.model_zoo", reason="insightface is not installed")


@pytest.mark.parametrize("flags", [[], ["--normalize"]], ids=["raw", "normalized"])
@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("sphere20a", (112, 96)),
        ("spherenet4", (112, 112)),
        ("sfnet10_bn", (112, 112)),
        ("iresnet18", (112, 112)),
        ("mobilefacenet", (112, 112)),
    ],
)
def test_get_feat_gives_the_same_cosines(
    arch: str, size: tuple[int, int], flags: list[str], model_zoo, shared_data: Path, tmp_path: Path
) -> None:
    run, out = make_run(tmp_path, arch, size), tmp_path / "net.onnx"
    assert call("export", run, "--onnx", out, *flags) == 0
    model = model_zoo.get_model(str(out))
    assert type(model).__name__ == "ArcFaceONNX"
    assert (model.taskname, model.input_size) == ("recognition", (112, 112))
    assert (model.input_mean, model.input_std, model.output_shape[1]) == (127.5, 127.5, DIM)
    paths = sorted((shared_data / "lfw" / "aligned_112").glob("A*/*.jpg"))[:32]
    theirs = model.get_feat([cv2.imread(str(path)) for path in paths])
    ours = FaceEmbedder.from_run(run).embed(paths)
    assert np.abs(unit(theirs) @ unit(theirs).T - ours @ ours.T).max() < 1e-4
    assert (unit(theirs) * ours).sum(axis=1).min() > 1 - 1e-4
    if flags:
        np.testing.assert_allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["foamliu_mobilefacenet", "faceplugin_fr_feature"])
def test_a_public_network_goes_on_from_its_onnx_file(
    name: str, model_zoo, shared_data: Path, tmp_path: Path
) -> None:
    network, run, out = (
        shared_data / "networks" / f"{name}.onnx",
        tmp_path / "run",
        tmp_path / "n.onnx",
    )
    if not network.exists():
        pytest.skip("the shared data have no public networks")
    assert call("import", network, "--out", run) == 0
    assert call("export", run, "--onnx", out) == 0
    model = model_zoo.get_model(str(out))
    assert (type(model).__name__, model.input_size) == ("ArcFaceONNX", (112, 112))
    assert (model.input_mean, model.input_std) == (127.5, 127.5)
    paths = sorted((shared_data / "lfw" / "aligned_112").glob("A*/*.jpg"))[:16]
    theirs = model.get_feat([cv2.imread(str(path)) for path in paths])
    ours = FaceEmbedder.from_run(run).embed(paths)
    assert (unit(theirs) * ours).sum(axis=1).min() > 0.9999


def test_get_cuts_the_same_face_out_of_a_photograph(
    model_zoo, shared_data: Path, tmp_path: Path
) -> None:
    run, out = make_run(tmp_path, "iresnet18", (112, 112)), tmp_path / "net.onnx"
    assert call("export", run, "--onnx", out) == 0
    model, photographs = model_zoo.get_model(str(out)), shared_data / "lfw_raw" / "images"
    points = read_landmarks(shared_data / "lfw_raw" / "landmarks.txt")
    paths = sorted(photographs.rglob("*.jpg"))[:16]
    theirs = np.stack(
        [
            model.get(cv2.imread(str(path)), SimpleNamespace(kps=landmarks_of(points, str(path))))
            for path in paths
        ]
    )
    aligner = face_aligner((112, 112), shared_data / "lfw_raw" / "landmarks.txt")
    ours = FaceEmbedder.from_run(run, aligner=aligner).embed(paths)
    cosine = unit(theirs) @ ours.T
    assert np.diag(cosine).min() > 1 - 1e-3
    np.testing.assert_array_equal(cosine.argmax(axis=1), np.arange(len(paths)))
