"""A trained network as an ONNX file that InsightFace's tools, or any runtime, can feed.

Whatever a network was trained on, the file takes RGB faces as those tools cut them: square, of
the network's height (112×112). Three things adapt them, with hardly another operation a pixel: the
middle columns are cut out where the network is narrower (112×96), and the colour order and the
divisor of the run are folded into the first convolution, which is linear. Its padding is zero, the
grey of 127.5; where a run has another mean, padding is that, and one node moves the input to it.

    float: "input.1" float32 [N, 3, H, H], (x − 127.5) / 127.5
    uint8: "input.1" uint8 [N, H, H, 3]

The output "embeddings" is float32 [N, D], of unit length if asked for.
"""

from typing import Any, Literal

import numpy as np

from sphereface_jax.data.transforms import PerChannel
from sphereface_jax.interop.onnx_graph import Graph, emit

InputKind = Literal["float", "uint8"]
_OPSET, _IR_VERSION = 17, 8
_INPUT = "input.1"


def onnx_bytes(
    model: Any,
    *,
    image_size: tuple[int, int],
    color_order: str,
    pixel_mean: PerChannel,
    pixel_divisor: PerChannel,
    input_kind: InputKind = "float",
    normalize: bool = False,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """Exports a network as an ONNX file.

    Args:
      model: the network, of `MODELS`.
      image_size: height and width that it takes.
      color_order: that it takes.
      pixel_mean: of its preprocessing.
      pixel_divisor: of it too.
      input_kind: what the file takes.
      normalize: scale the embeddings to unit length.
      metadata: texts to store in the file.

    Returns:
      The file, which takes any number of images and gives embeddings float32 [N, D].

    Raises:
      FileNotFoundError: the package `onnx` is not installed.
    """
    onnx = onnx_package()
    helper, types = onnx.helper, onnx.TensorProto
    graph = Graph(
        onnx,
        feature_shape=model.feature_shape,
        input_scale=127.5 / np.asarray(pixel_divisor, np.float64),
        reverse_channels=color_order == "bgr",
    )
    # Of the file's channels, which are RGB.
    mean = np.broadcast_to(np.asarray(pixel_mean, np.float64), 3)[
        :: -1 if color_order == "bgr" else 1
    ]
    height, width = image_size
    side = max(height, width)
    shape: list[int | str] = ["batch", 3, height, side]
    x = _INPUT
    if input_kind == "uint8":
        shape = ["batch", height, side, 3]
        x = _pixels(graph, x, mean, types.FLOAT)
    elif np.any(mean != 127.5):
        x = graph.node("Add", [x, _per_channel(graph, (127.5 - mean) / 127.5)])
    if width < side:
        left = (side - width) // 2
        bounds = [np.array([value], np.int64) for value in (left, left + width, 3)]
        x = graph.node("Slice", [x, *(graph.constant(bound) for bound in bounds)])
    x = emit(model, graph, x)
    if normalize:
        x = graph.node("LpNormalization", [x], axis=1, p=2)
    graph.nodes.append(helper.make_node("Identity", [x], ["embeddings"], "embeddings"))
    kind = types.UINT8 if input_kind == "uint8" else types.FLOAT
    length = model.embedding.out_features
    made = onnx.helper.make_model(
        helper.make_graph(
            graph.nodes,
            "sphereface_jax",
            [helper.make_tensor_value_info(_INPUT, kind, shape)],
            [helper.make_tensor_value_info("embeddings", types.FLOAT, ["batch", length])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="sphereface_jax",
    )
    helper.set_model_props(made, metadata or {})
    onnx.checker.check_model(made)
    return made.SerializeToString()


def _pixels(graph: Graph, x: str, mean: np.ndarray, float_type: int) -> str:
    """From uint8 [N, H, W, 3] to float32 [N, 3, H, W], (x − mean) / 127.5."""
    x = graph.node("Transpose", [x], perm=[0, 3, 1, 2])
    x = graph.node("Cast", [x], to=float_type)
    middle = graph.constant(np.array(127.5, np.float32))
    mean_name = middle if np.all(mean == 127.5) else _per_channel(graph, mean)
    return graph.node("Div", [graph.node("Sub", [x, mean_name]), middle])


def _per_channel(graph: Graph, values: np.ndarray) -> str:
    return graph.constant(values.astype(np.float32)[:, None, None])


def onnx_package() -> Any:
    """Imports the package `onnx`.

    Raises:
      FileNotFoundError: it is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise FileNotFoundError(
            'ONNX files need the package onnx; `pip install ".[onnx]"` in the folder of this '
            "project brings it"
        ) from None
    return onnx
