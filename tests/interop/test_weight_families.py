"""Files of weights with the names of other hands' networks, MXNet's among them."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call, refused
from marks import marked
from test_interop import CHANNELS, DIM, FLAGS, REMAINING, assert_alike, embed_there, pixels

from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.interop.mxnet_file import read_mxnet_file
from sphereface_jax.training.run_folder import load_run

torch = pytest.importorskip("torch", reason="PyTorch is in the extra `parity`")
networks = pytest.importorskip("torch_networks", reason="PyTorch is in the extra `parity`")

MOBILE = {
    "xiaoccer": (networks.XiaoccerMobileFaceNet, "Xiaoccer/MobileFaceNet_Pytorch"),
    "treb1en": (networks.TrebienMobileFaceNet, "TreB1eN/InsightFace_Pytorch"),
}


def embed_here(run: Path, images: np.ndarray) -> np.ndarray:
    found, lengths = FaceEmbedder.from_run(run).embed(images, lengths=True)
    return found * lengths[:, None]


def check(run: Path, network: Any, order: str, divisor: float) -> None:
    """The run is for such pixels and embeds RGB faces as the network does."""
    data = load_run(run).config.data
    assert (data.color_order, data.pixel_mean, data.pixel_divisor) == (order, 127.5, divisor)
    images = pixels()
    seen = images[..., ::-1] if order == "bgr" else images
    theirs = embed_there(network, seen, divisor, 127.5)
    assert_alike(embed_here(run, images), theirs)
    assert theirs.std(axis=0).max() > 1e-3 * np.abs(theirs).max()  # the images matter


@pytest.mark.parametrize("family", marked(MOBILE, slow=["treb1en"]))
def test_names_of_a_mobilefacenet(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build, repository = MOBILE[family]
    network, path = networks.randomized(build(CHANNELS, DIM, REMAINING)), tmp_path / "net.pth"
    torch.save(network.state_dict(), path)
    run = tmp_path / "run"
    assert call("import", path, "--arch", "mobilefacenet_classic", "--out", run, *FLAGS) == 0
    assert f"The names of the tensors are those of {repository}" in capsys.readouterr().out
    assert json.loads((run / "import.json").read_text())["defined_in"] == repository
    order, divisor = ("rgb", 128) if family == "xiaoccer" else ("bgr", 127.5)
    check(run, network, order, divisor)


def test_sizes_go_with_the_names(tmp_path: Path) -> None:
    network, path = networks.XiaoccerMobileFaceNet((4, 8, 8, 16), 128, (7, 6)), tmp_path / "n.pt"
    torch.save(network.state_dict(), path)
    flags = ["--arch", "mobilefacenet_classic", "--channels", *CHANNELS]
    assert call("import", path, "--out", tmp_path / "run", *flags) == 0
    config = load_run(tmp_path / "run").config
    assert (config.data.image_size, config.model.embedding_dim) == ((112, 96), 128)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("linear1.bn.bias"), "1 missing (linear1.bn.bias)"),
        (lambda w: w.update(more=torch.zeros(2)), "1 left over (more)"),
        (lambda w: w.update({"linear1.bn.bias": torch.zeros(9)}), "linear1.bn.bias (9,) for (6,)"),
    ],
)
def test_every_tensor_counts(
    change: Callable, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = networks.XiaoccerMobileFaceNet(CHANNELS, DIM, REMAINING).state_dict()
    change(weights)
    torch.save(weights, tmp_path / "net.pth")
    flags = ["--arch", "mobilefacenet_classic", "--out", tmp_path / "run", *FLAGS]
    assert message in refused(capsys, "import", tmp_path / "net.pth", *flags)
    assert not (tmp_path / "run").exists()


# MXNet

UNIT = {"bn1": "bn1", "conv1": "conv1", "bn2": "bn2", "prelu": "relu1", "conv2": "conv2"}
UNIT |= {"bn3": "bn3", "downsample.0": "conv1sc", "downsample.1": "sc"}
WHOLE = {"conv1": "conv0", "bn1": "bn0", "prelu": "relu0", "bn2": "bn1"}
WHOLE |= {"fc": "pre_fc1", "features": "fc1"}


def mxnet_name(name: str, *, vector: bool) -> str:
    """What InsightFace's fresnet.py calls a tensor of its IResNet in PyTorch."""
    layer, leaf = name.rsplit(".", 1)
    if layer.startswith("layer"):
        stage, unit, inner = layer.removeprefix("layer").split(".", 2)
        called = f"stage{stage}_unit{int(unit) + 1}_{UNIT[inner]}"
    else:
        called = WHOLE[layer]
    is_linear = layer == "fc"
    leaves = {"running_mean": "moving_mean", "running_var": "moving_var"}
    if vector and not is_linear:
        leaves |= {"weight": "gamma", "bias": "beta"}
    kind = "aux" if leaf.startswith("running") else "arg"
    return f"{kind}:{called}_{leaves.get(leaf, leaf)}"


def array_bytes(array: np.ndarray, version: int) -> bytes:
    """One array as MXNet writes it: before version 1, in version 1, in version 2."""
    kinds = {"float32": 0, "float64": 1, "float16": 2, "int32": 4}
    head = {0: b"", 1: struct.pack("<I", 0xF993FAC8), 2: struct.pack("<Ii", 0xF993FAC9, 0)}
    sizes = struct.pack(f"<I{array.ndim}{'q' if version else 'I'}", array.ndim, *array.shape)
    rest = struct.pack("<iii", 1, 0, kinds[str(array.dtype)])
    return head[version] + sizes + rest + array.tobytes()


def mxnet_bytes(arrays: dict[str, np.ndarray], version: int = 2) -> bytes:
    names = [name.encode() for name in arrays]
    return b"".join(
        [
            struct.pack("<QQQ", 0x112, 0, len(arrays)),
            *(array_bytes(array, version) for array in arrays.values()),
            struct.pack("<Q", len(names)),
            *(struct.pack("<Q", len(name)) + name for name in names),
        ]
    )


def fresnet() -> tuple[Any, dict[str, np.ndarray]]:
    """The twin of an IResNet as MXNet has it, and the arrays of its file."""
    network = networks.randomized(networks.IResNet(18, CHANNELS, DIM, REMAINING))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.eps = 2e-5
            if module is network.features:
                module.weight.data.fill_(1)
            else:  # so small that the constant matters
                module.running_var.mul_(1e-3)
                module.weight.data.mul_(1e-3**0.5)
    arrays = {
        mxnet_name(name, vector=tensor.ndim == 1): tensor.numpy().copy()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    arrays["arg:fc1_gamma"] += 3  # fix_gamma: not used
    return network, arrays


@pytest.mark.parametrize("version", [0, 1, 2])
def test_arrays_of_mxnet(version: int, tmp_path: Path) -> None:
    arrays = {
        "arg:conv0_weight": np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2),
        "aux:bn0_moving_var": np.ones(3, np.float16),
        "arg:other": np.array([1, 2], np.int32),
    }
    path = tmp_path / "net-0000.params"
    path.write_bytes(mxnet_bytes(arrays, version))
    found = read_mxnet_file(path)
    assert list(found) == ["conv0.weight", "bn0.running_var", "arg:other"]
    for read, written in zip(found.values(), arrays.values(), strict=True):
        assert read.dtype == written.dtype
        np.testing.assert_array_equal(read, written)


def test_an_mxnet_network_embeds_as_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, arrays = fresnet()
    path, run = tmp_path / "model-0000.params", tmp_path / "run"
    path.write_bytes(mxnet_bytes(arrays))
    assert call("import", path, "--arch", "iresnet18", "--out", run, *FLAGS) == 0
    assert "those of deepinsight/insightface, MXNet" in capsys.readouterr().out
    check(run, network, "rgb", 128)


def test_mxnet_class_weights_come_along(tmp_path: Path) -> None:
    _, arrays = fresnet()
    arrays["arg:fc7_weight"] = np.random.default_rng(0).normal(size=(9, DIM)).astype(np.float32)
    path, run = tmp_path / "model-0000.params", tmp_path / "run"
    path.write_bytes(mxnet_bytes(arrays))
    flags = ["--arch", "iresnet18", "--out", run, *FLAGS, "--class-weights", path / "fc7.weight"]
    assert call("import", path, *flags) == 0
    np.testing.assert_array_equal(load_run(run).prototypes[:9], arrays["arg:fc7_weight"])


def test_a_truncated_mxnet_file_is_one_error(tmp_path: Path) -> None:
    whole = mxnet_bytes({"arg:a_weight": np.ones((2, 3), np.float32), "aux:b": np.ones(2)})
    path = tmp_path / "net.params"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"net\.params: expected a \.params file") as caught:
            read_mxnet_file(path)
        assert "\n" not in str(caught.value)


def changed(at: int, format_: str, value: int) -> bytes:
    """A file of one array [2, 3] with one number replaced."""
    whole = bytearray(mxnet_bytes({"arg:a_weight": np.ones((2, 3), np.float32)}))
    struct.pack_into(format_, whole, at, value)
    return bytes(whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(0, "<Q", 0x113), "it begins otherwise"),
        (changed(16, "<Q", 1 << 60), "truncated"),
        (changed(28, "<i", 1), "storage is of kind 1"),
        (changed(32, "<I", 99), "99 dimensions"),
        (changed(32, "<I", 0), "never given numbers"),
        (changed(36, "<q", -2), r"shape \(-2, 3\)"),
        (changed(36, "<q", 1 << 62), "truncated"),
        (changed(60, "<i", 11), "unknown type 11"),
        (mxnet_bytes({"arg:a_weight": np.ones(2), "aux:a_weight": np.ones(2)}), "of one name"),
        (mxnet_bytes({"a": np.ones(2)}) + b"x", "1 bytes after"),
        (b"", "it begins otherwise"),
    ],
)
def test_a_damaged_mxnet_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.params"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_mxnet_file(path)
