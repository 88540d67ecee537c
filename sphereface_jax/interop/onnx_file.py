"""An ONNX file as plain nodes and arrays: parsed, never run.

What would reach outside the file (weights in other files) or needs code of its own (operators of
other domains, functions, graphs within nodes) is refused by name.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sphereface_jax.interop.onnx_export import onnx_package

_DOMAINS = ("", "ai.onnx")
_MOST_BYTES = 2**31 - 1  # of any protobuf
_PIXELS = 2  # TensorProto.UINT8


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
      kind: its operator.
      name: its own, or that of its first output.
      inputs: names of values; "" for one that is left out.
      outputs: names of values.
      attributes: by name.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class OnnxFile:
    """A graph of one input and one output.

    Attributes:
      nodes: in an order in which they could be computed.
      constants: arrays by name.
      input: its name.
      input_shape: its sizes, None where one is left open.
      takes_pixels: whether it is uint8.
      output: its name.
      producer: the program that wrote the file.
    """

    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray]
    input: str
    input_shape: tuple[int | None, ...]
    takes_pixels: bool
    output: str
    producer: str


def read_onnx(path: Path) -> OnnxFile:
    """Reads a file.

    Raises:
      FileNotFoundError: there is none, or the package `onnx` is not installed.
      ValueError: it is damaged, or has what is refused.
    """
    onnx = onnx_package()
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path}: expected an ONNX file below 2 GB, found a larger one")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's own kind, which differs between its implementations
        if type(error).__name__ not in ("DecodeError", "ValueError", "UnicodeDecodeError"):
            raise
        raise ValueError(f"{path}: expected an ONNX file, found another or a damaged one") from None
    if not model.graph.node or not model.opset_import:
        raise ValueError(f"{path}: expected an ONNX file, found another or a damaged one")
    try:
        return _decode(onnx, model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _decode(onnx: Any, model: Any) -> OnnxFile:
    graph = model.graph
    if model.functions or graph.sparse_initializer:
        what = "functions" if model.functions else "sparse tensors"
        raise ValueError(f"expected a graph of plain nodes and tensors, found {what}")
    constants = {tensor.name: _array(onnx, tensor) for tensor in graph.initializer}
    nodes = tuple(_node(onnx, node) for node in graph.node)
    inputs = [value for value in graph.input if value.name not in constants]
    for what, values in (("input", inputs), ("output", graph.output)):
        if len(values) != 1:
            names = ", ".join(value.name for value in values[:3]) or "none"
            raise ValueError(f"expected one {what}, found {len(values)}: {names}")
    (given,) = inputs
    kind = given.type.tensor_type
    shape = tuple(
        size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None
        for size in kind.shape.dim
    )
    if len(shape) != 4:
        raise ValueError(f"input {given.name}: expected images of 4 dimensions, found {len(shape)}")
    return OnnxFile(
        nodes=nodes,
        constants=constants,
        input=given.name,
        input_shape=shape,
        takes_pixels=kind.elem_type == _PIXELS,
        output=graph.output[0].name,
        producer=model.producer_name,
    )


def _node(onnx: Any, node: Any) -> Node:
    name = node.name or (node.output[0] if node.output else node.op_type)
    if node.domain not in _DOMAINS:
        raise ValueError(
            f"node {name}: expected an operator of ONNX, found {node.op_type} of {node.domain}, "
            "which is not run"
        )
    attributes = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.type in (attribute.GRAPH, attribute.GRAPHS):
            raise ValueError(f"node {name}: expected no graph within a node, found {node.op_type}")
        is_tensor = attribute.type == attribute.TENSOR
        attributes[attribute.name] = _array(onnx, value) if is_tensor else value
    return Node(node.op_type, name, tuple(node.input), tuple(node.output), attributes)


def _array(onnx: Any, tensor: Any) -> np.ndarray:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise ValueError(
            f"tensor {tensor.name}: expected its numbers in the file, found them in another; save "
            "the network as one file"
        )
    try:
        array = np.asarray(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"tensor {tensor.name}: expected its numbers, found {reason}") from None
    return array
