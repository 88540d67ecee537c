"""ONNX files of other programs become networks that give the same embeddings, or are refused."""

import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call, refused
from imported_run import CHANNELS, DIM, make_run
from on_paper import unit

from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.training.run_folder import read_config

onnx = pytest.importorskip("onnx", reason="onnx is in the extra `onnx`")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra `onnx`")
helper = onnx.helper

SIZE = (48, 48)
PIXELS = ["--pixel-mean", 127.5, "--pixel-divisor", 127.5, "--color-order", "rgb"]


def faces(count: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


def run_file(path: Path, x: np.ndarray) -> np.ndarray:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def scaled(images: np.ndarray) -> np.ndarray:
    return ((images.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)


def assert_alike(run: Path, theirs: np.ndarray, images: np.ndarray | None = None) -> None:
    images = faces() if images is None else images
    ours, lengths = FaceEmbedder.from_run(run).embed(images, lengths=True)
    expected = np.linalg.norm(theirs, axis=1)
    np.testing.assert_allclose(ours, unit(theirs), atol=1e-4)
    if not np.allclose(expected, 1):
        np.testing.assert_allclose(lengths, expected, rtol=1e-4)
    assert np.abs(theirs - theirs[:1]).max() > 1e-3 * np.abs(theirs).max()  # the images matter


# Networks of PyTorch, by its exporter


def torch_file(
    path: Path,
    network: Any,
    *,
    folded: bool,
    size: tuple[int, int] = SIZE,
    batch_free: bool = True,
    opset: int | None = None,
) -> np.ndarray:
    """Writes a network by torch.onnx and returns its embeddings of `faces`."""
    import torch

    network.eval()
    mode = torch.onnx.TrainingMode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = io.BytesIO()
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, *size),),
            content,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}} if batch_free else None,
            training=mode.EVAL if folded else mode.PRESERVE,
            do_constant_folding=folded,
            opset_version=opset,
        )
    path.write_bytes(content.getvalue())
    with torch.no_grad():
        return network(torch.tensor(scaled(faces(size=size)))).numpy()


def build(arch: str, channels: tuple[int, ...] = CHANNELS, dim: int = DIM, side: int = 3) -> Any:
    networks = pytest.importorskip("torch_networks", reason="PyTorch is in the extra `parity`")
    plan = (channels, dim, (side, side))
    kind, _, variant = arch.partition("_")
    if kind == "mobilefacenet":
        options: dict[str, dict] = {
            "": {},
            "classic": {"scale": 1},
            "large": {"scale": 4, "blocks": (2, 8, 12, 4)},
        }
        made = (
            networks.FoamliuMobileFaceNet(*plan)
            if variant == "foamliu"
            else networks.MobileFaceNet(*plan, **options[variant])
        )
    elif kind.startswith("iresnet"):
        made = networks.IResNet(int(kind[7:]), *plan)
    elif kind == "ir50":
        made = networks.AdaFaceIr(50, *plan)
    elif kind == "vit":
        width = channels[-1] // 2 if variant == "t" else channels[-1]
        made = networks.VisionTransformer(12, width, dim, (16 * side, 16 * side), written_out=True)
    elif kind == "sphere20a":
        made = networks.Sphere20a(*plan)
    else:
        made = networks.SFNet(
            int(kind[5:]), *plan, norm=variant == "bn", deprecated=variant == "deprecated"
        )
    return networks.randomized(made)


ARCHITECTURES = [
    *("iresnet18", "iresnet50", "iresnet100", "iresnet200", "ir50", "vit_t", "mobilefacenet"),
    *("mobilefacenet_classic", "mobilefacenet_large", "mobilefacenet_foamliu"),
    *("sphere20a", "sfnet20", "sfnet20_bn", "sfnet20_deprecated"),
]
QUICK = {("iresnet18", False), ("mobilefacenet_classic", True)}


def check_torch(arch: str, folded: bool, tmp_path: Path, network: Any, size: int) -> None:
    path, run = tmp_path / "net.onnx", tmp_path / "run"
    theirs = torch_file(path, network, folded=folded, size=(size, size))
    assert call("import", path, "--out", run, *PIXELS) == 0
    config = read_config(run)
    folds = not arch.startswith(("sphere", "vit")) and arch not in ("sfnet20", "sfnet20_deprecated")
    assert (config.model.name, config.model.folded) == (arch, folded and folds)
    assert_alike(run, theirs, faces(size=(size, size)))


@pytest.mark.parametrize(
    ("arch", "folded"),
    [
        pytest.param(arch, folded, marks=() if (arch, folded) in QUICK else pytest.mark.slow)
        for arch in ARCHITECTURES
        for folded in (False, True)
    ],
)
def test_what_torch_exports_comes_back(arch: str, folded: bool, tmp_path: Path) -> None:
    check_torch(arch, folded, tmp_path, build(arch), SIZE[0])


@pytest.mark.parity_full
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("arch", [*ARCHITECTURES[:10], "vit_s"])
def test_so_it_does_at_full_width(arch: str, folded: bool, tmp_path: Path) -> None:
    network = build(arch, (64, 128, 256, 512), 512, 7)
    check_torch(arch, folded, tmp_path, network, 112)


def test_what_the_graph_does_before_and_after_the_network_is_recognised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = build("sfnet4")
    import torch

    class Whole(torch.nn.Module):
        """Takes BGR from 0 to 1, in NHWC."""

        def __init__(self):
            super().__init__()
            self.inner = inner
            self.mean = torch.tensor([0.5, 0.4, 0.3]).reshape(1, 3, 1, 1)
            self.deviation = torch.tensor([0.2, 0.25, 0.3]).reshape(1, 3, 1, 1)

        def forward(self, x):
            x = x.permute(0, 3, 1, 2)[:, [2, 1, 0]]
            return torch.nn.functional.normalize(self.inner((x - self.mean) / self.deviation))

    path, run = tmp_path / "net.onnx", tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.zeros(1, *SIZE, 3)
        names = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
        torch.onnx.export(Whole().eval(), (example,), str(path), dynamo=False, **names)
    assert call("import", path, "--out", run, "--color-order", "bgr") == 0
    said = capsys.readouterr().out
    assert "The file prepares its pixels itself, from 0 to 1\n" in said
    assert "The file makes embeddings of unit length" in said
    data = read_config(run).data
    assert data.color_order == "rgb"
    np.testing.assert_allclose(data.pixel_mean, (127.5, 102, 76.5), rtol=1e-6)
    theirs = run_file(path, faces()[..., ::-1].astype(np.float32) / 255)
    assert_alike(run, theirs)


# Graphs written by hand, in the ways of other programs


def make_file(path: Path, nodes: list, arrays: dict[str, np.ndarray], shape: list, **more) -> None:
    types = onnx.TensorProto
    kept = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", types.FLOAT, shape)],
        [helper.make_tensor_value_info("y", types.FLOAT, ["n", DIM])],
        kept,
    )
    opsets = more.get("opsets", [helper.make_opsetid("", 13)])
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )


def spherenet4_nhwc(path: Path) -> None:
    """SphereNet-4 as converters of TensorFlow write it, on pixels from 0 to 255."""
    rng = np.random.default_rng(1)
    arrays = {
        "mean": np.float32([120, 110, 100]),
        "scale": np.float32([1 / 60, 1 / 50, 1 / 40]).reshape(1, 1, 1, 3),
        "kernel_shape": np.array([-1, 3 * 3 * CHANNELS[-1]]),
    }
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["x0"], "minus"),
        helper.make_node("Mul", ["x0", "scale"], ["h0"], "times"),
    ]
    before = 3
    for i, width in enumerate(CHANNELS):
        kernel = rng.normal(0, (9 * before) ** -0.5, (3, 3, before, width))
        arrays[f"k{i}"] = kernel.astype(np.float32)
        arrays[f"b{i}"] = rng.normal(0, 0.1, width).astype(np.float32)
        arrays[f"s{i}"] = rng.uniform(0.1, 0.4, (1, 1, width)).astype(np.float32)
        nodes += [
            helper.make_node("Transpose", [f"k{i}"], [f"kt{i}"], perm=[3, 2, 0, 1]),
            helper.make_node("Transpose", [f"h{i}"], [f"t{i}"], perm=[0, 3, 1, 2]),
            helper.make_node(
                "Conv", [f"t{i}", f"kt{i}"], [f"c{i}"], strides=[2, 2], pads=[1, 1, 1, 1]
            ),
            helper.make_node("Transpose", [f"c{i}"], [f"u{i}"], perm=[0, 2, 3, 1]),
            helper.make_node("Add", [f"u{i}", f"b{i}"], [f"a{i}"]),
            helper.make_node("PRelu", [f"a{i}", f"s{i}"], [f"h{i + 1}"]),
        ]
        before = width
    rows = 9 * CHANNELS[-1]
    arrays["w"] = rng.normal(0, rows**-0.5, (rows, DIM)).astype(np.float32)
    arrays["bias"] = rng.normal(0, 0.1, DIM).astype(np.float32)
    nodes += [
        helper.make_node("Reshape", ["h4", "kernel_shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["z0"]),
        helper.make_node("Add", ["z0", "bias"], ["z"]),
        helper.make_node("ReduceL2", ["z"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Div", ["z", "length"], ["y"]),
    ]
    make_file(path, nodes, arrays, ["n", *SIZE, 3])


def test_a_graph_in_nhwc_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, run = tmp_path / "net.onnx", tmp_path / "run"
    spherenet4_nhwc(path)
    assert call("import", path, "--out", run, "--color-order", "rgb") == 0
    assert "The file prepares its pixels itself, from 0 to 255\n" in capsys.readouterr().out
    config = read_config(run)
    assert config.model.name == "spherenet4"
    assert (config.data.pixel_mean, config.data.pixel_divisor) == ((120, 110, 100), (60, 50, 40))
    assert_alike(run, run_file(path, faces().astype(np.float32)))
    imported = json.loads((run / "import.json").read_text())
    assert imported["unit_length_left_out"]
    assert imported["pixels_prepared_in_file"]


@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_what_is_exported_here_comes_back(kind: str, tmp_path: Path) -> None:
    flags = ["--pixel-mean", 123.5, 116.25, 90, "--pixel-divisor", 58.5, 57, 40.25]
    run = make_run(tmp_path, "sfnet4_bn", (48, 40), *flags, "--color-order", "bgr")
    path, again = tmp_path / "net.onnx", tmp_path / "again"
    options = ["--onnx-input", kind, "--normalize"]
    assert call("export", run, "--onnx", path, *options) == 0
    assert call("import", path, "--out", again) == 0
    config = read_config(again)
    assert (config.model.name, config.model.folded) == ("sfnet4_bn", False)
    assert config.data.image_size == (48, 40)
    assert config.data.pixel_mean == (90, 116.25, 123.5)
    images = faces()
    ours, theirs = (FaceEmbedder.from_run(path).embed(images) for path in (run, again))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def with_nodes(path: Path, change) -> None:
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def test_what_is_folded_in_part_is_folded_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, path, again = make_run(tmp_path, "iresnet18", SIZE), tmp_path / "n.onnx", tmp_path / "a"
    assert call("export", run, "--onnx", path) == 0

    def fold_first(model) -> None:
        """Takes the first normalisation into the first convolution, as an optimiser would."""
        nodes = model.graph.node
        conv, norm = nodes[0], nodes[1]
        assert (conv.op_type, norm.op_type) == ("Conv", "BatchNormalization")
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        arrays = [onnx.numpy_helper.to_array(tensors[name]) for name in norm.input[1:]]
        scale, bias, mean, var = arrays
        scale = scale / np.sqrt(var + norm.attribute[0].f)
        kernel = onnx.numpy_helper.to_array(tensors[conv.input[1]]) * scale[:, None, None, None]
        tensors[conv.input[1]].CopyFrom(onnx.numpy_helper.from_array(kernel, conv.input[1]))
        shift = onnx.numpy_helper.from_array(bias - mean * scale, "shift")
        model.graph.initializer.append(shift)
        conv.input.append("shift")
        conv.output[0] = norm.output[0]
        nodes.remove(norm)

    with_nodes(path, fold_first)
    capsys.readouterr()
    assert call("import", path, "--out", again) == 0
    said = capsys.readouterr().out
    assert "1 normalisations had been folded" in said
    assert "; the other 21 were folded here" in said
    assert read_config(again).model.folded
    assert_alike(again, run_file(path, scaled(faces())))


# A network with folded normalisations is one like the others


@pytest.fixture(scope="module")
def folded_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("folded")
    network = build("mobilefacenet_classic")
    torch_file(folder / "net.onnx", network, folded=True)
    assert call("import", folder / "net.onnx", "--out", folder / "run", *PIXELS) == 0
    return folder / "run", network


def test_a_folded_network_goes_out_again(folded_run: tuple[Path, Any], tmp_path: Path) -> None:
    import torch

    run, network = folded_run
    state, path, folder = tmp_path / "net.pt", tmp_path / "net.onnx", tmp_path / "hub"
    assert call("export", run, "--torch", state, "--onnx", path, "--hf", folder) == 0
    network.load_state_dict(torch.load(state, weights_only=True), strict=True)
    with torch.no_grad():
        assert_alike(run, network(torch.tensor(scaled(faces()))).numpy())
    assert_alike(run, run_file(path, scaled(faces())))
    ours = FaceEmbedder.from_run(run).embed(faces())
    np.testing.assert_array_equal(FaceEmbedder.from_pretrained(folder).embed(faces()), ours)
    again = tmp_path / "again"
    assert call("import", folder, "--out", again) == 0
    np.testing.assert_array_equal(FaceEmbedder.from_run(again).embed(faces()), ours)
    sizes = ["--channels", *CHANNELS, "--embedding-dim", DIM, "--image-size", *SIZE]
    options = ["--arch", "mobilefacenet_classic", *sizes, "--folded", "--out"]
    assert call("import", state, *options, tmp_path / "third") == 0


def test_a_state_dict_that_is_not_folded_is_refused_as_folded(
    folded_run: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    path = tmp_path / "net.pt"
    torch.save(build("mobilefacenet_classic").state_dict(), path)
    sizes = ["--channels", *CHANNELS, "--embedding-dim", DIM, "--image-size", *SIZE]
    options = ["--arch", "mobilefacenet_classic", *sizes, "--folded", "--out", tmp_path / "run"]
    assert "of a normalisation that is not folded" in refused(capsys, "import", path, *options)


@pytest.mark.slow
def test_a_folded_network_trains_and_resumes(
    folded_run: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = folded_run[0], tmp_path / "tuned"
    options = ["train", "--out", out, "--init-from", run, "--batch-size", 4]
    options += ["--model.name", "mobilefacenet_classic", "--model.channels", *CHANNELS]
    options += ["--model.embedding-dim", DIM, "--data.image-size", *SIZE]
    options += ["--data.color-order", "rgb", "--data.pixel-divisor", 127.5]
    options += ["--data.synthetic-views", 4, "--data.synthetic-identities", 5]
    options += ["--optimizer.learning-rate", 1e-3]
    assert "with its normalisations folded" in refused(capsys, *options, "--steps", 1)
    options += ["--model.folded", "--checkpoint-every", 1]
    assert call(*options, "--steps", 2) == 0
    assert call(*options, "--steps", 2) == 0
    before, after = (FaceEmbedder.from_run(path).embed(faces()) for path in (run, out))
    assert 1e-7 < np.abs(before - after).max() < 0.5


def test_a_network_without_normalisation_has_none_to_fold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["train", "--out", tmp_path / "run", "--model.folded", "--model.name"]
    for name in ("spherenet4", "sfnet4"):
        assert "expected a network with normalisation" in refused(capsys, *options, name)


# What is refused


def changed(path: Path, change) -> Path:
    spherenet4_nhwc(path)
    with_nodes(path, change)
    return path


def set_stride(model) -> None:
    model.graph.node[10].attribute[1].ints[:] = [3, 3]


def set_padding(mode: str) -> Any:
    """The second convolution's padding, as a node of its own."""

    def change(model) -> None:
        convolution = model.graph.node[10]
        convolution.attribute[0].ints[:] = [0, 0, 0, 0]
        inputs = [convolution.input[0], "pads"]
        convolution.input[0] = "padded"
        pads = onnx.numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads")
        model.graph.initializer.append(pads)
        model.graph.node.insert(
            10, helper.make_node("Pad", inputs, ["padded"], "culprit", mode=mode)
        )

    return change


def set_kind(place: int, kind: str, domain: str = "") -> Any:
    def change(model) -> None:
        node = model.graph.node[place]
        node.op_type, node.domain, node.name = kind, domain, "culprit"
        del node.input[1:], node.attribute[:]

    return change


def outside(model) -> None:
    onnx.external_data_helper.set_external_data(model.graph.initializer[3], "weights.bin")
    model.graph.initializer[3].data_location = onnx.TensorProto.EXTERNAL
    model.graph.initializer[3].ClearField("raw_data")


def cut_tensor(model) -> None:
    model.graph.initializer[3].raw_data = model.graph.initializer[3].raw_data[:-4]


def huge(model) -> None:
    shape = onnx.numpy_helper.from_array(np.array([10**7, 10**7]), "huge")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge"], ["big"], "culprit"))


def nan_weight(model) -> None:
    tensor = model.graph.initializer[-1]
    array = np.full(DIM, np.nan, np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def inner_graph(model) -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "g", [], [])
    node = helper.make_node("If", ["x"], ["q"], "culprit", then_branch=branch, else_branch=branch)
    model.graph.node.append(node)


def second_input(model) -> None:
    other = helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1])
    model.graph.input.append(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_kind(7, "Sigmoid"), "and Sigmoid (culprit)"),
        (set_kind(7, "Fancy", "com.example"), "found Fancy of com.example, which is not run"),
        (outside, "tensor k0: expected its numbers in the file, found them in another"),
        (cut_tensor, "tensor k0: expected its numbers"),
        (huge, "node culprit: expected constants that ConstantOfShape takes, found 100,000,000"),
        (nan_weight, "6 are NaN or infinite"),
        (inner_graph, "node culprit: expected no graph within a node, found If"),
        (second_input, "expected one input, found 2: x, other"),
        (set_stride, "expected four 3×3 convolutions of stride 2"),
        (set_padding("reflect"), "Pad (culprit)"),
    ],
)
def test_a_graph_that_departs_is_refused_by_its_node(
    change, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(tmp_path / "net.onnx", change)
    said = refused(capsys, "import", path, "--out", tmp_path / "run")
    assert message in said
    assert str(path) in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_zeros_around_an_image_may_be_a_node(tmp_path: Path) -> None:
    path = changed(tmp_path / "net.onnx", set_padding("constant"))
    assert call("import", path, "--out", tmp_path / "run", "--color-order", "rgb") == 0
    pixels = faces().astype(np.float32)
    assert_alike(tmp_path / "run", run_file(path, pixels))


def test_another_network_is_refused_where_it_departs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.onnx"
    spherenet4_nhwc(path)
    options = ["import", path, "--out", tmp_path / "run"]
    said = refused(capsys, *options, "--arch", "sfnet4")
    assert "as sfnet4, 2 of its" in said
    assert "expected Relu, found PRelu" in said
    assert "expected 6, as" in refused(capsys, *options, "--embedding-dim", 7)
    assert "expected one of" in refused(capsys, *options, "--arch", "resnet")
    path_of_key = path / "fc"
    said = refused(capsys, "import", path_of_key, "--arch", "sfnet4", "--out", tmp_path / "run")
    assert str(path) in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_damaged_file_makes_no_run(
    kept: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.onnx"
    spherenet4_nhwc(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    assert str(path) in refused(capsys, "import", path, "--out", tmp_path / "run")
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_without_onnx_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    spherenet4_nhwc(path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    said = refused(capsys, "import", path, "--out", tmp_path / "run")
    assert 'pip install ".[onnx]"' in said
