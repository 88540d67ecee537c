"""Weights from PyTorch give the embeddings that PyTorch gives, and go back unchanged."""

import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from command import call, refused
from faces_on_disk import make_face, write_image
from marks import marked

from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.data.transforms import PerChannel, normalize_pixels
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.embedding import embed
from sphereface_jax.interop.safetensors_file import safetensors_bytes
from sphereface_jax.training.run_folder import load_run

torch = pytest.importorskip("torch", reason="PyTorch is in the extra `parity`")
networks = pytest.importorskip("torch_networks", reason="PyTorch is in the extra `parity`")

CHANNELS, DIM, SIZE = (4, 8, 8, 16), 6, (40, 32)
REMAINING = (3, 2)
TRAINING = ["--data.image-size", *SIZE, "--model.channels", *CHANNELS]
TRAINING += ["--model.embedding-dim", DIM, "--steps", 1, "--batch-size", 4]
TRAINING += ["--data.synthetic-views", 4]
FLAGS = ["--channels", *CHANNELS, "--embedding-dim", DIM, "--image-size", *SIZE]
NETWORKS = {
    "sphere20a": lambda: networks.Sphere20a(CHANNELS, DIM, REMAINING),
    "sfnet20": lambda: networks.SFNet(20, CHANNELS, DIM, REMAINING),
    "sfnet20_bn": lambda: networks.SFNet(20, CHANNELS, DIM, REMAINING, norm=True),
    "sfnet20_deprecated": lambda: networks.SFNet(20, CHANNELS, DIM, REMAINING, deprecated=True),
    "iresnet18": lambda: networks.IResNet(18, CHANNELS, DIM, REMAINING),
    "ir18": lambda: networks.AdaFaceIr(18, CHANNELS, DIM, REMAINING),
    "ir50": lambda: networks.AdaFaceIr(50, CHANNELS, DIM, REMAINING),
    "mobilefacenet": lambda: networks.MobileFaceNet(CHANNELS, DIM, REMAINING),
    "vit_t": lambda: networks.VisionTransformer(12, CHANNELS[-1] // 2, DIM, SIZE),
    "vit_s": lambda: networks.VisionTransformer(12, CHANNELS[-1], DIM, SIZE),
    "mobilefacenet_large": lambda: networks.MobileFaceNet(
        CHANNELS, DIM, REMAINING, scale=4, blocks=(2, 8, 12, 4)
    ),
    "mobilefacenet_foamliu": lambda: networks.FoamliuMobileFaceNet(CHANNELS, DIM, REMAINING),
}

VARIANTS = ("sfnet20_deprecated", "vit_s", "ir18", "ir50", "mobilefacenet_foamliu")
"""Near another network: their turn comes with the slow tests."""

ARCHITECTURES = pytest.mark.parametrize(
    "arch", marked(NETWORKS, slow=VARIANTS, parity_full=["mobilefacenet_large"])
)


def build(arch: str, seed: int = 0):
    torch.manual_seed(seed)
    return networks.randomized(NETWORKS[arch](), seed)


def pixels(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), np.uint8)


def embed_there(
    network, images: np.ndarray, divisor: PerChannel, mean: PerChannel = 127.5
) -> np.ndarray:
    scaled = normalize_pixels(images, mean=mean, divisor=divisor)
    scaled = np.array(scaled).transpose(0, 3, 1, 2)
    with torch.no_grad():
        return network(torch.tensor(scaled)).numpy()


def embed_here(run: Path, images: np.ndarray) -> np.ndarray:
    saved = load_run(run)
    data = saved.config.data
    pixels = {"pixel_mean": data.pixel_mean, "pixel_divisor": data.pixel_divisor}
    weights = saved.graph, saved.params, saved.model_state
    return np.asarray(embed(*weights, images, **pixels))[:, 0]


def assert_alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=0)


@ARCHITECTURES
def test_imported_weights_embed_as_in_pytorch(arch: str, tmp_path: Path) -> None:
    network, run = build(arch), tmp_path / "run"
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    assert call("import", tmp_path / "weights.pth", "--arch", arch, "--out", run, *FLAGS) == 0
    divisor = 128.0 if arch == "sphere20a" else 127.5
    mean = 127.5
    if arch == "mobilefacenet_foamliu":
        mean, divisor = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    config = load_run(run).config
    assert (config.data.pixel_mean, config.data.pixel_divisor) == (mean, divisor)
    assert config.data.color_order == ("bgr" if arch in ("sphere20a", "ir18", "ir50") else "rgb")
    ours = embed_here(run, pixels())
    theirs = embed_there(network, pixels(), divisor, mean)
    assert_alike(ours, theirs)
    assert theirs.std(axis=0).max() > 1e-3 * np.abs(theirs).max()  # the images matter


WIDE = (64, 128, 256, 512)
FULL_WIDTH = {
    "sphere20a": lambda: networks.Sphere20a(WIDE, 512, (7, 6)),
    "sfnet20": lambda: networks.SFNet(20, WIDE, 512, (7, 7)),
    "sfnet20_bn": lambda: networks.SFNet(20, WIDE, 512, (7, 7), norm=True),
    "iresnet18": lambda: networks.IResNet(18, WIDE, 512, (7, 7)),
    "mobilefacenet": lambda: networks.MobileFaceNet(WIDE, 512, (7, 7)),
    "vit_t": lambda: networks.VisionTransformer(12, 256, 512, (112, 112)),
    "vit_b": lambda: networks.VisionTransformer(24, 512, 512, (112, 112)),
}


@pytest.mark.parity_full
@pytest.mark.parametrize("arch", FULL_WIDTH)
def test_at_full_width_cosines_are_those_of_pytorch(arch: str, tmp_path: Path) -> None:
    network, run = networks.randomized(FULL_WIDTH[arch]()), tmp_path / "run"
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    assert call("import", tmp_path / "weights.pth", "--arch", arch, "--out", run) == 0
    data = load_run(run).config.data
    faces = SyntheticFaces(8, 1, image_size=data.image_size)
    images = np.stack([faces[index]["image"] for index in range(8)])
    both = [embed_here(run, images), embed_there(network, images, data.pixel_divisor)]
    ours, theirs = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in np.float64(both))
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-5, rtol=0)
    np.testing.assert_allclose((ours * theirs).sum(axis=1), 1, atol=1e-5, rtol=0)
    assert (theirs @ theirs.T).min() < 0.999  # the images matter


def legacy(content: dict) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def zipped(content: dict) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


FORMATS = {
    "old.pth": legacy,
    "parallel.pt": lambda state: zipped({f"module.{key}": value for key, value in state.items()}),
    "checkpoint.pt": lambda state: zipped({"epoch": 3, "state_dict": state, "lr": [0.1]}),
    "weights.safetensors": lambda state: safetensors_bytes(
        {key: value.numpy() for key, value in state.items()}
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_run(name: str, tmp_path: Path) -> None:
    network = build("sfnet20_bn")
    (tmp_path / name).write_bytes(FORMATS[name](network.state_dict()))
    flags = ["--arch", "sfnet20_bn", "--out", tmp_path / "run", *FLAGS]
    assert call("import", tmp_path / name, *flags) == 0
    theirs = embed_there(network, pixels(), 127.5)
    np.testing.assert_allclose(
        embed_here(tmp_path / "run", pixels()), theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype, tmp_path: Path) -> None:
    network = build("sfnet20").to(dtype).float()
    state = {key: value.to(dtype) for key, value in network.state_dict().items()}
    torch.save(state, tmp_path / "weights.pt")
    flags = ["--arch", "sfnet20", "--out", tmp_path / "run", *FLAGS]
    assert call("import", tmp_path / "weights.pt", *flags) == 0
    theirs = embed_there(network, pixels(), 127.5)
    np.testing.assert_allclose(
        embed_here(tmp_path / "run", pixels()), theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max()
    )


def test_class_weights_come_along_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = networks.randomized(networks.Sphere20a(CHANNELS, DIM, REMAINING, classes=5))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    flags = ["--arch", "sphere20a", "--out", run, *FLAGS]
    assert call("import", tmp_path / "weights.pth", *flags) == 0
    saved = load_run(run)
    theirs = network.fc6.weight.detach().numpy().T
    np.testing.assert_array_equal(saved.prototypes[:5], theirs)
    assert (saved.num_classes, saved.step, saved.prototypes.shape) == (5, 0, (256, DIM))
    options = ["--data.synthetic-identities", 5, "--optimizer.learning-rate", 1e-9, *TRAINING]
    options += ["--model.name", "sphere20a", "--init-from", run]
    assert call("train", "--out", tuned, *options) == 0
    said = capsys.readouterr().out
    assert "Starting from the weights of" in said
    assert "new prototypes" not in said
    after = load_run(tuned)
    assert after.step == 1
    np.testing.assert_allclose(after.prototypes[:5], theirs, atol=1e-6)
    np.testing.assert_allclose(embed_here(tuned, pixels()), embed_here(run, pixels()), rtol=1e-4)


def test_training_takes_imported_statistics_and_refuses_another_preprocessing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = networks.randomized(networks.SFNet(4, CHANNELS, DIM, REMAINING, norm=True))
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    flags = ["--arch", "sfnet4_bn", "--out", run, *FLAGS]
    assert call("import", tmp_path / "weights.pth", *flags) == 0
    options = ["--out", tuned, "--data.synthetic-identities", 5, *TRAINING, "--init-from", run]
    options += ["--model.name", "sfnet4_bn"]
    said = refused(capsys, "train", *options)
    assert "give this run the latter" in said
    assert "got weights learnt with --data.color-order rgb --data.pixel-divisor 127.5" in said
    assert not tuned.exists()
    preprocessing = ["--data.color-order", "rgb", "--data.pixel-divisor", 127.5]
    assert call("train", *options, *preprocessing) == 0
    assert "new prototypes for 5 classes in place of 0" in capsys.readouterr().out
    before, after = load_run(run).model_state, load_run(tuned).model_state
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.abs(new - old).max() < 0.5 * np.abs(old).max()  # moved on from there, not anew


@pytest.mark.parametrize("transposed", [False, True])
def test_class_weights_of_another_file(transposed: bool, tmp_path: Path) -> None:
    torch.save(build("iresnet18").state_dict(), tmp_path / "weights.pth")
    matrix = torch.randn(9, DIM)
    head = {"iteration": 3, "head": {"w": matrix.T.clone() if transposed else matrix}}
    torch.save(head, tmp_path / "head.pth")
    flags = ["--arch", "iresnet18", "--out", tmp_path / "run", *FLAGS]
    flags += ["--class-weights", tmp_path / "head.pth" / "head" / "w"]
    assert call("import", tmp_path / "weights.pth", *flags) == 0
    np.testing.assert_array_equal(load_run(tmp_path / "run").prototypes[:9], matrix.numpy())
    imported = json.loads((tmp_path / "run" / "import.json").read_text())
    assert (imported["num_classes"], imported["file"]) == (9, "weights.pth")


def test_every_command_takes_an_imported_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        write_image(tmp_path / "faces" / f"{index}.png", make_face(index, *SIZE))
    network, run = build("sfnet20"), tmp_path / "run"
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    assert call("import", tmp_path / "weights.pth", "--arch", "sfnet20", "--out", run, *FLAGS) == 0
    vectors = tmp_path / "vectors.npz"
    assert call("embed", run, tmp_path / "faces", "--out", vectors) == 0
    images = np.stack([make_face(index, *SIZE) for index in range(3)])
    theirs = embed_there(network, images, 127.5)
    np.testing.assert_allclose(
        np.load(vectors)["embeddings"], theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max()
    )
    first = tmp_path / "faces" / "0.png"
    assert call("compare", run, first, first) == 0
    assert "cosine 1.0000" in capsys.readouterr().out
    assert FaceEmbedder.from_run(run).run.num_classes == 0


@ARCHITECTURES
def test_weights_go_back_to_pytorch_to_the_bit(arch: str, tmp_path: Path) -> None:
    network, run = build(arch), tmp_path / "run"
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    assert call("import", tmp_path / "weights.pth", "--arch", arch, "--out", run, *FLAGS) == 0
    out, safe = tmp_path / "back.pt", tmp_path / "back.safetensors"
    assert call("export", run, "--torch", out, "--safetensors", safe) == 0
    back = torch.load(out, weights_only=True)
    other = build(arch, seed=1)
    other.load_state_dict(back, strict=True)
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(other.state_dict()[name], tensor), name
    again = tmp_path / "again"
    assert call("import", safe, "--arch", arch, "--out", again, *FLAGS) == 0
    np.testing.assert_array_equal(embed_here(run, pixels()), embed_here(again, pixels()))
