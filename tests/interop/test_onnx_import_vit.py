"""Vision transformers come back from ONNX files, in whatever order these move their tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call, refused
from imported_run import DIM
from test_onnx_import import (
    PIXELS,
    assert_alike,
    faces,
    helper,
    onnx,
    run_file,
    scaled,
    torch_file,
    with_nodes,
)

from sphereface_jax.training.run_folder import read_config

WIDTH, SIZE = 16, (27, 36)
LEAST_OPSET = {True: 12, False: 14}  # of attention that is written out, and of one call


def build(written_out: bool = True) -> Any:
    networks = pytest.importorskip("torch_networks", reason="PyTorch is in the extra `parity`")
    made = networks.VisionTransformer(12, WIDTH, DIM, SIZE, written_out=written_out)
    return networks.randomized(made)


def weights(run: Path) -> dict[str, np.ndarray]:
    """Of a run, by their names in PyTorch."""
    torch = pytest.importorskip("torch", reason="PyTorch is in the extra `parity`")
    state = run.with_suffix(".pt")
    assert call("export", run, "--torch", state) == 0
    return {name: tensor.numpy() for name, tensor in torch.load(state).items()}


def assert_same_weights(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        if name not in (
            "mask_token",
            "feature.1.num_batches_tracked",
            "feature.3.num_batches_tracked",
        ):
            np.testing.assert_allclose(ours[name], array, rtol=1e-6, atol=1e-7, err_msg=name)


def imported(path: Path, run: Path, *, folded: bool = False) -> Path:
    assert call("import", path, "--out", run, *PIXELS) == 0
    model = read_config(run).model
    found = model.name, model.channels[-1], model.folded
    assert found == ("vit_t", 2 * WIDTH, folded)
    return run


@pytest.mark.parametrize(
    ("written_out", "folded", "batch_free", "opset"),
    [
        (True, False, True, 12),  # without a node of layer normalisation
        (False, True, True, 17),
        pytest.param(True, True, False, 17, marks=pytest.mark.slow),
        pytest.param(True, True, True, None, marks=pytest.mark.slow),
        pytest.param(False, False, True, 14, marks=pytest.mark.slow),
        pytest.param(False, False, False, None, marks=pytest.mark.slow),
    ],
)
def test_what_torch_exports_comes_back(
    written_out: bool, folded: bool, batch_free: bool, opset: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    options = {"folded": folded, "batch_free": batch_free, "opset": opset, "size": SIZE}
    network = build(written_out)
    theirs = torch_file(path, network, **options)
    run = imported(path, tmp_path / "run")
    assert_same_weights(weights(run), {k: v.numpy() for k, v in network.state_dict().items()})
    if opset == 12:
        assert_alike(run, theirs, faces(size=SIZE))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("written_out", [False, True])
def test_so_does_what_its_newer_exporter_writes(written_out: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="torch's newer exporter needs onnxscript")
    import torch

    path, network = tmp_path / "net.onnx", build(written_out)
    example = (torch.zeros(2, 3, *SIZE),)
    shapes = ({0: torch.export.Dim("n")},)
    torch.onnx.export(
        network, example, path, dynamo=True, dynamic_shapes=shapes, external_data=False
    )
    run = imported(path, tmp_path / "run", folded=True)
    with torch.no_grad():
        theirs = network(torch.tensor(scaled(faces(size=SIZE)))).numpy()
    assert_alike(run, theirs, faces(size=SIZE))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and the file that it is exported to."""
    folder = tmp_path_factory.mktemp("vit")
    torch_file(folder / "torch.onnx", build(), folded=True, size=SIZE)
    run = imported(folder / "torch.onnx", folder / "run")
    assert call("export", run, "--onnx", folder / "net.onnx") == 0
    return folder


def test_what_is_exported_here_comes_back(exported: Path, tmp_path: Path) -> None:
    again = imported(exported / "net.onnx", tmp_path / "again")
    assert_same_weights(weights(again), weights(exported / "run"))


# Changes to an exported file. Nodes of a kind are numbered in order; the first block comes first.


def nth(model: Any, kind: str, place: int = 0) -> Any:
    return [node for node in model.graph.node if node.op_type == kind][place]


def array_of(model: Any, name: str) -> np.ndarray:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    return onnx.numpy_helper.to_array(tensor)


def give(node: Any, place: int, array: np.ndarray, model: Any) -> None:
    name = f"new_{len(model.graph.initializer)}"
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    if place == len(node.input):
        node.input.append(name)
    node.input[place] = name


def fold_head(model: Any) -> None:
    """The last two normalisations into the layers before them, as optimisers do."""
    nodes = model.graph.node
    for norm in [node for node in nodes if node.op_type == "BatchNormalization"]:
        (layer,) = (node for node in nodes if norm.input[0] in node.output)
        scale, bias, mean, var = (array_of(model, name) for name in norm.input[1:])
        scale = scale / np.sqrt(var + norm.attribute[0].f)
        give(layer, 1, array_of(model, layer.input[1]) * scale, model)
        give(layer, 2, bias - mean * scale, model)
        layer.op_type = "Gemm"
        layer.output[0] = norm.output[0]
        nodes.remove(norm)


def test_a_folded_head_is_a_network_with_biases(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, again = tmp_path / "net.onnx", tmp_path / "again.onnx"
    path.write_bytes((exported / "net.onnx").read_bytes())
    with_nodes(path, fold_head)
    run = imported(path, tmp_path / "run", folded=True)
    assert "2 normalisations had been folded" in capsys.readouterr().out
    assert json.loads((run / "import.json").read_text())["normalisations_folded"] == 2
    images = faces(size=SIZE)
    theirs = run_file(exported / "net.onnx", scaled(images))
    assert_alike(run, theirs, images)
    assert call("export", run, "--onnx", again) == 0
    np.testing.assert_allclose(run_file(again, scaled(images)), theirs, rtol=1e-4, atol=1e-4)
    kept = weights(run)
    assert_same_weights(weights(imported(again, tmp_path / "third", folded=True)), kept)
    torch = pytest.importorskip("torch", reason="PyTorch is in the extra `parity`")
    network = build()
    network.load_state_dict({k: torch.tensor(v) for k, v in kept.items()}, strict=True)
    with torch.no_grad():
        back = network(torch.tensor(scaled(images))).numpy()
    np.testing.assert_allclose(back, theirs, rtol=1e-4, atol=1e-4)


def rename(kind: str, to: str, place: int = 0) -> Any:
    def change(model: Any) -> None:
        node = nth(model, kind, place)
        node.op_type = to
        del node.input[1:], node.attribute[:]

    return change


def replace(kind: str, argument: int, value: Any, place: int = 0) -> Any:
    def change(model: Any) -> None:
        node = nth(model, kind, place)
        kept = array_of(model, node.input[argument])
        give(node, argument, np.asarray(value, kept.dtype), model)

    return change


def attribute(kind: str, name: str, value: Any) -> Any:
    def change(model: Any) -> None:
        node = nth(model, kind)
        kept = [item for item in node.attribute if item.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def without_residual(model: Any) -> None:
    node = nth(model, "Add", 2)  # after those of the positions and of the projection's bias
    node.input[0] = node.input[1]


def with_bias(model: Any) -> None:
    """Of the queries, keys and values, which the network has not."""
    node = nth(model, "MatMul")
    bias = np.full(3 * WIDTH, 0.1, np.float32)
    made = helper.make_node("Add", [node.output[0], ""], ["biased"], "culprit")
    give(made, 1, bias, model)
    nth(model, "Reshape", 1).input[0] = "biased"
    model.graph.node.insert(list(model.graph.node).index(node) + 1, made)


def values_before_keys(model: Any) -> None:
    keys, values = (nth(model, "Gather", place) for place in (1, 2))
    keys.input[1], values.input[1] = values.input[1], keys.input[1]


def without_positions(model: Any) -> None:
    node = nth(model, "Add")
    model.graph.node.remove(node)
    for other in model.graph.node:
        for place, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[place] = node.input[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename("Clip", "Erf"), "expected Clip to 0 and 6, found Erf (Clip_"),
        (rename("Clip", "Relu"), "expected Clip to 0 and 6, found Relu (Clip_"),
        (replace("Clip", 2, 5), "expected Clip to 0 and 6, found Clip (Clip_"),
        (replace("Mul", 1, 0.5), "expected Softmax of them times 0.707107, found Softmax"),
        (replace("Reshape", 1, [0, 0, 3, 4, 4], 1), "expected queries by keys, in 8 heads"),
        (attribute("Softmax", "axis", 2), "found Softmax in another form (Softmax_"),
        (attribute("Transpose", "perm", [0, 1, 2]), "expected the sum with 12 positions"),
        (attribute("LayerNormalization", "epsilon", 1e-3), "with 1e-05 beside the variance"),
        (rename("LayerNormalization", "Identity"), "expected normalisation of each token"),
        (rename("Softmax", "Sigmoid"), "expected Softmax of them times 0.707107, found Sigmoid"),
        (without_residual, "expected their Add"),
        (with_bias, "expected no bias"),
        (values_before_keys, "expected queries by keys"),
        (without_positions, "expected the sum with 12 positions"),
        (rename("BatchNormalization", "Tanh"), "expected Linear of 16 to 16, found Tanh"),
    ],
)
def test_what_departs_is_refused_by_its_node(
    change: Any, message: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes((exported / "net.onnx").read_bytes())
    with_nodes(path, change)
    said = refused(capsys, "import", path, "--out", tmp_path / "run")
    assert f"{path}: as vit_t, " in said
    assert message in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]
