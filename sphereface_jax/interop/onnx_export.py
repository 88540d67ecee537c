"""A trained network as an ONNX file that InsightFace's tools, or any runtime, can feed.

Whatever a network was trained on, the file takes RGB faces as those tools cut them: square, of
the network's height (112×112). Three things adapt them, without another operation a pixel: the
middle columns are cut out where the network is narrower (112×96), and the colour order and the
divisor of the run are folded into the first convolution, which is linear and has no padding but
zero, the grey of 127.5.

    float: "input.1" float32 [N, 3, H, H], (x − 127.5) / 127.5
    uint8: "input.1" uint8 [N, H, H, 3]

The output "embeddings" is float32 [N, D], of unit length if asked for.
"""

from typing import Any, Literal

import numpy as np

from sphereface_jax.interop.onnx_graph import Graph, emit

InputKind = Literal["float", "uint8"]
_OPSET, _IR_VERSION = 17, 8
_INPUT = "input.1"


def onnx_bytes(
    model: Any,
    *,
    image_size: tuple[int, int],
    color_order: str,
    pixel_divisor: float,
    input_kind: InputKind = "float",
    normalize: bool = False,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """Returns the ONNX file of a network.

    Args:
      model: the network, of `MODELS`.
      image_size: height and width that it takes.
      color_order: that it takes.
      pixel_divisor: of its preprocessing.
      input_kind: what the file takes.
      normalize: scale the embeddings to unit length.
      metadata: texts to store in the file.

    Raises:
      FileNotFoundError: the package `onnx` is not installed.
    """
    onnx = _package()
    helper, types = onnx.helper, onnx.TensorProto
    graph = Graph(
        onnx,
        feature_shape=model.feature_shape,
        input_scale=127.5 / pixel_divisor,
        reverse_channels=color_order == "bgr",
    )
    height, width = image_size
    side = max(height, width)
    shape: list[int | str] = ["batch", 3, height, side]
    x = _INPUT
    if input_kind == "uint8":
        shape = ["batch", height, side, 3]
        x = _pixels(graph, x, types.FLOAT)
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


def _pixels(graph: Graph, x: str, float_type: int) -> str:
    """From uint8 [N, H, W, 3] to float32 [N, 3, H, W], (x − 127.5) / 127.5."""
    x = graph.node("Transpose", [x], perm=[0, 3, 1, 2])
    x = graph.node("Cast", [x], to=float_type)
    middle = graph.constant(np.array(127.5, np.float32))
    return graph.node("Div", [graph.node("Sub", [x, middle]), middle])


def _package() -> Any:
    try:
        import onnx
    except ModuleNotFoundError:
        raise FileNotFoundError(
            'ONNX files need the package onnx; `pip install ".[onnx]"` in the folder of this '
            "project brings it"
        ) from None
    return onnx
