"""A mean and a deviation a channel go everywhere that the divisor goes."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from command import call, refused
from faces_on_disk import make_face
from flax import nnx
from imported_run import CHANNELS, DIM, make_run
from on_paper import unit

from sphereface_jax.data.transforms import normalize_pixels
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.references import run_fingerprint
from sphereface_jax.training.config import DataConfig, ModelConfig, TrainConfig, from_dict
from sphereface_jax.training.run_folder import read_config

SIZE = (48, 40)
MEAN, DIVISOR = (123.5, 116.25, 90.0), (58.5, 57.0, 40.25)
PIXELS = ["--pixel-mean", *MEAN, "--pixel-divisor", *DIVISOR]


def test_pixels_are_normalised_channel_by_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    found = jax.jit(lambda x: normalize_pixels(x, mean=MEAN, divisor=DIVISOR))(images)
    expected = (images - np.array(MEAN)) / np.array(DIVISOR)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    one = normalize_pixels(images, mean=127.0, divisor=128.0)
    np.testing.assert_array_equal(one, (images.astype(np.float32) - 127) / 128)


@pytest.fixture(scope="module", params=["rgb", "bgr"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return make_run(folder, "sfnet4", SIZE, *PIXELS, "--color-order", request.param)


def faces() -> np.ndarray:
    return np.stack([make_face(index, 48, 48) for index in range(3)])


def test_the_run_embeds_with_them(run: Path) -> None:
    embedder = FaceEmbedder.from_run(run)
    saved = embedder.run
    network = nnx.merge(saved.graph, saved.params, saved.model_state)
    x = faces()[:, :, 4:44]
    x = x[..., ::-1] if saved.config.data.color_order == "bgr" else x
    x = ((x - np.array(MEAN)) / np.array(DIVISOR)).astype(np.float32)
    np.testing.assert_allclose(embedder.embed(faces()), unit(np.asarray(network(x))), atol=1e-5)


@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_onnx_has_them_inside(run: Path, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is in the extra `onnx`")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra `onnx`")
    out = tmp_path / "net.onnx"
    assert call("export", run, "--onnx", out, "--onnx-input", kind, "--normalize") == 0
    images = faces()
    if kind == "float":
        images = ((images.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    theirs = session.run(None, {session.get_inputs()[0].name: images})[0]
    np.testing.assert_allclose(theirs, FaceEmbedder.from_run(run).embed(faces()), atol=1e-5)


def test_stablehlo_and_hugging_face_have_them_inside(run: Path, tmp_path: Path) -> None:
    out, folder, again = tmp_path / "net.stablehlo", tmp_path / "hub", tmp_path / "again"
    assert call("export", run, "--stablehlo", out, "--hf", folder, "--normalize") == 0
    ours = FaceEmbedder.from_run(run).embed(faces())
    theirs = jax.export.deserialize(out.read_bytes()).call(faces()[:, :, 4:44])
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    np.testing.assert_array_equal(FaceEmbedder.from_pretrained(folder).embed(faces()), ours)
    assert call("import", folder, "--out", again) == 0
    np.testing.assert_array_equal(FaceEmbedder.from_run(again).embed(faces()), ours)
    card = (run / "MODEL_CARD.md").read_text()
    assert "(x − (123.5, 116.25, 90)) / (58.5, 57, 40.25)" in card


def test_training_goes_on_with_them_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = read_config(run).data.color_order
    options = ["train", "--out", tmp_path / "tuned", "--init-from", run, "--steps", 1]
    options += ["--batch-size", 4, "--model.name", "sfnet4", "--model.channels", *CHANNELS]
    options += ["--model.embedding-dim", DIM, "--data.image-size", *SIZE]
    options += ["--data.synthetic-views", 4, "--data.synthetic-identities", 5]
    options += ["--data.color-order", order]
    said = refused(capsys, *options)
    assert "--data.pixel-mean 123.5 116.25 90 --data.pixel-divisor 58.5 57 40.25" in said
    options += ["--data.pixel-mean", *MEAN, "--data.pixel-divisor", *DIVISOR]
    assert call(*options) == 0
    assert read_config(tmp_path / "tuned").data.pixel_mean == MEAN


def test_a_run_that_says_no_mean_still_opens(tmp_path: Path) -> None:
    run = make_run(tmp_path, "sfnet4", SIZE)
    ours, path = FaceEmbedder.from_run(run).embed(faces()), run / "config.json"
    config = json.loads(path.read_text())
    del config["data"]["pixel_mean"]
    path.write_text(json.dumps(config))
    np.testing.assert_array_equal(FaceEmbedder.from_run(run).embed(faces()), ours)


def test_fingerprints_of_earlier_runs_stay_and_other_means_change_them() -> None:
    def fingerprint(model: ModelConfig | None = None, **data: object) -> str:
        config = TrainConfig(data=DataConfig(**data), model=model or ModelConfig())
        weights = SimpleNamespace(config=config, params={"w": np.ones(3)}, model_state={})
        return run_fingerprint(weights)

    assert fingerprint() == "8731bad48e4b45902df153bab180f102"
    assert fingerprint(ModelConfig(remat=True)) == fingerprint()
    assert fingerprint(ModelConfig(folded=True)) != fingerprint()
    assert len({fingerprint(), fingerprint(pixel_mean=127.0), fingerprint(pixel_mean=MEAN)}) == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pixel_divisor": [58.5, 57.0]}, "pixel_divisor: expected 3 values"),
        ({"pixel_divisor": [58.5, 57.0, 0.0]}, "pixel_divisor: expected a number above 0"),
        ({"pixel_mean": 300}, r"pixel_mean: expected a number in \[0, 255\], got 300"),
        ({"pixel_mean": None}, "pixel_mean: expected a number"),
        ({"pixel_mean": "grey"}, "pixel_mean: expected a number"),
    ],
)
def test_numbers_that_are_none_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(TrainConfig, {"data": values})


def test_the_command_refuses_a_mean_that_is_no_pixel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["train", "--out", tmp_path / "run", "--data.pixel-mean", 127.5, 300, 1]
    assert "data.pixel_mean: expected a number in [0, 255]" in refused(capsys, *options)
