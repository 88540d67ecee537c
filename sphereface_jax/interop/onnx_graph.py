"""A network as an ONNX graph in NCHW: one function per block, each the twin of the block's call."""

import functools
from typing import Any

import numpy as np
from flax import nnx

from sphereface_jax.models.iresnet import IResNet, IResUnit, Subsample
from sphereface_jax.models.layers import BatchNorm, Bias, PReLU
from sphereface_jax.models.mobilefacenet import Bottleneck, ConvNorm, MobileFaceNet
from sphereface_jax.models.residual import ResidualNet, ResidualUnit, Stage
from sphereface_jax.models.vit import HEADS, Attention, Block, VisionTransformer


class Graph:
    """Nodes and initialisers under way, values by name.

    Args:
      onnx: the package, which is imported where an export is asked for.
      feature_shape: height, width and channels of what the first linear layer flattens; None where
        none does.
      input_scale: what the first convolution multiplies its input with; one number, or one a
        channel in the network's colour order.
      reverse_channels: whether the first convolution reads its input's channels backwards.
    """

    def __init__(
        self,
        onnx: Any,
        *,
        feature_shape: tuple[int, int, int] | None,
        input_scale: float | np.ndarray = 1.0,
        reverse_channels: bool = False,
    ):
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._feature_shape = feature_shape
        self._input_scale, self._reverse_channels = input_scale, reverse_channels
        self._is_first = True

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Adds a node.

        Args:
          kind: of ONNX's operators.
          inputs: names of values.
          **attributes: of the operator.

        Returns:
          The name of its output.
        """
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        """Adds an initialiser and returns its name."""
        name = f"constant_{len(self.initializers)}"
        stored = self._onnx.numpy_helper.from_array(np.asarray(array, order="C"), name)
        self.initializers.append(stored)
        return name

    def _variable(self, variable: Any) -> str:
        return self.constant(np.asarray(variable[...], np.float32))

    def conv(self, layer: nnx.Conv, x: str) -> str:
        """A convolution; the first one takes the preprocessing of its input upon itself.

        Args:
          layer: the convolution.
          x: name of an image.

        Returns:
          The name of the result.
        """
        kernel = np.asarray(layer.kernel[...], np.float32).transpose(3, 2, 0, 1)
        if self._is_first:
            scale = np.broadcast_to(np.float32(self._input_scale), 3)
            kernel = kernel * scale[:, None, None]
            kernel = kernel[:, ::-1] if self._reverse_channels else kernel
            self._is_first = False
        assert isinstance(layer.padding, int)
        inputs = [x, self.constant(kernel)]
        inputs += [] if layer.bias is None else [self._variable(layer.bias)]
        assert isinstance(layer.strides, int)
        return self.node(
            "Conv",
            inputs,
            kernel_shape=list(kernel.shape[2:]),
            strides=[layer.strides] * 2,
            pads=[layer.padding] * 4,
            group=layer.feature_group_count,
        )

    def norm(self, layer: BatchNorm | Bias | None, x: str) -> str:
        """Batch normalisation by the gathered statistics; nothing where there is none.

        Where it was folded, its bias goes to the layer before, which made x.

        Args:
          layer: the normalisation, or what is left of it.
          x: name of an image or vector.

        Returns:
          The name of the result.
        """
        if layer is None:
            return x
        if isinstance(layer, Bias):
            if layer.bias is not None:
                before = self.nodes[-1]
                if before.op_type == "MatMul":
                    return self.shift(layer.bias, x)
                assert before.output[0] == x
                assert len(before.input) == 2
                before.input.append(self._variable(layer.bias))
            return x
        leaves = (layer.scale, layer.bias, layer.mean, layer.var)
        inputs = [x, *(self._variable(leaf) for leaf in leaves)]
        return self.node("BatchNormalization", inputs, epsilon=layer.epsilon)

    def prelu(self, layer: PReLU | None, x: str) -> str:
        """PReLU with a slope per channel; nothing where there is none.

        Args:
          layer: the activation, or None.
          x: name of an image.

        Returns:
          The name of the result.
        """
        if layer is None:
            return x
        slope = np.asarray(layer.slope[...], np.float32)[:, None, None]
        return self.node("PRelu", [x, self.constant(slope)])

    def subsample(self, x: str) -> str:
        """Every second pixel of every second row."""
        return self.node("MaxPool", [x], kernel_shape=[1, 1], strides=[2, 2])

    def relu(self, x: str) -> str:
        """max(x, 0)."""
        return self.node("Relu", [x])

    def relu6(self, x: str) -> str:
        """min(max(x, 0), 6)."""
        bounds = [self.constant(np.array(bound, np.float32)) for bound in (0, 6)]
        return self.node("Clip", [x, *bounds])

    def add(self, x: str, y: str) -> str:
        """The sum of two values.

        Args:
          x: name of a value.
          y: name of another of its shape.

        Returns:
          The name of the sum.
        """
        return self.node("Add", [x, y])

    def linear(self, layer: nnx.Linear, x: str) -> str:
        """Flattens an image as (channel, height, width) and multiplies.

        Args:
          layer: whose rows are in the order (height, width, channel).
          x: name of an image.

        Returns:
          The name of the result, vectors.
        """
        kernel = np.asarray(layer.kernel[...], np.float32)
        assert self._feature_shape is not None
        image = kernel.reshape(*self._feature_shape, -1).transpose(2, 0, 1, 3)
        inputs = [self.node("Flatten", [x], axis=1), self.constant(image.reshape(kernel.shape))]
        inputs += [] if layer.bias is None else [self._variable(layer.bias)]
        return self.node("Gemm", inputs)

    def tokens(self, x: str) -> str:
        """From an image [N, C, H, W] to tokens [N, H W, C]."""
        shape = self.constant(np.array([0, 0, -1], np.int64))
        return self.node("Transpose", [self.node("Reshape", [x, shape])], perm=[0, 2, 1])

    def shift(self, variable: nnx.Variable, x: str) -> str:
        """The sum of a value and a weight.

        Args:
          variable: the weight.
          x: name of a value that it broadcasts against.

        Returns:
          The name of the sum.
        """
        return self.add(x, self._variable(variable))

    def dense(self, layer: nnx.Linear, x: str) -> str:
        """Multiplies the last dimension.

        Args:
          layer: the linear layer.
          x: name of a value.

        Returns:
          The name of the result.
        """
        x = self.node("MatMul", [x, self._variable(layer.kernel)])
        return x if layer.bias is None else self.shift(layer.bias, x)

    def layer_norm(self, layer: nnx.LayerNorm, x: str) -> str:
        """Normalisation over the last dimension.

        Args:
          layer: with scale and bias.
          x: name of a value.

        Returns:
          The name of the result.
        """
        inputs = [x, self._variable(layer.scale), self._variable(layer.bias)]
        return self.node("LayerNormalization", inputs, axis=-1, epsilon=layer.epsilon)

    def attention(self, qkv: str, *, heads: int, width: int) -> str:
        """softmax(q kᵀ / √d) v of tokens, heads side by side in each third.

        Args:
          qkv: name of the tokens [N, T, 3 width].
          heads: how many; a divisor of `width`.
          width: of a token.

        Returns:
          The name of the result, [N, T, width].
        """
        parts = self.constant(np.array([0, 0, 3, heads, width // heads], np.int64))
        x = self.node("Transpose", [self.node("Reshape", [qkv, parts])], perm=[2, 0, 3, 1, 4])
        q, k, v = (
            self.node("Gather", [x, self.constant(np.array(part, np.int64))], axis=0)
            for part in range(3)
        )
        x = self.node("MatMul", [q, self.node("Transpose", [k], perm=[0, 1, 3, 2])])
        scale = self.constant(np.array((width // heads) ** -0.5, np.float32))
        x = self.node("Softmax", [self.node("Mul", [x, scale])], axis=-1)
        x = self.node("Transpose", [self.node("MatMul", [x, v])], perm=[0, 2, 1, 3])
        return self.node("Reshape", [x, self.constant(np.array([0, 0, width], np.int64))])

    def flatten(self, x: str) -> str:
        """All dimensions but the first as one."""
        return self.node("Flatten", [x], axis=1)


@functools.singledispatch
def emit(block: nnx.Module, graph: Graph, x: str) -> str:
    """Adds a block to a graph.

    Args:
      block: a network or a part of one.
      graph: takes the nodes.
      x: name of what the block is given.

    Returns:
      The name of its output.

    Raises:
      TypeError: no graph is known for a block of this class.
    """
    raise TypeError(f"no ONNX graph is known for {type(block).__name__}")


def _activated(prelu: PReLU | None, graph: Graph, x: str) -> str:
    return graph.relu(x) if prelu is None else graph.prelu(prelu, x)


@emit.register
def _(block: ResidualNet, graph: Graph, x: str) -> str:
    for stage in block.stages:
        x = emit(stage, graph, x)
    return graph.norm(block.norm, graph.linear(block.embedding, x))


@emit.register
def _(block: Stage, graph: Graph, x: str) -> str:
    x = _activated(block.prelu, graph, graph.norm(block.norm, graph.conv(block.conv, x)))
    for unit in block.units:
        x = emit(unit, graph, x)
    return x


@emit.register
def _(block: ResidualUnit, graph: Graph, x: str) -> str:
    inner = graph.norm(block.norm1, graph.conv(block.conv1, x))
    inner = graph.conv(block.conv2, _activated(block.prelu1, graph, inner))
    inner = graph.norm(block.norm2, inner)
    if block.activate_before_sum:
        return graph.add(x, _activated(block.prelu2, graph, inner))
    return _activated(block.prelu2, graph, graph.add(x, inner))


@emit.register
def _(block: IResNet, graph: Graph, x: str) -> str:
    x = graph.prelu(block.prelu, graph.norm(block.norm1, graph.conv(block.conv, x)))
    for stage in block.stages:
        for unit in stage:
            x = emit(unit, graph, x)
    x = graph.norm(block.norm2, x)
    return graph.norm(block.norm3, graph.linear(block.embedding, x))


@emit.register
def _(block: IResUnit, graph: Graph, x: str) -> str:
    inner = graph.conv(block.conv1, graph.norm(block.norm1, x))
    inner = graph.prelu(block.prelu, graph.norm(block.norm2, inner))
    inner = graph.norm(block.norm3, graph.conv(block.conv2, inner))
    shortcut = block.shortcut
    if isinstance(shortcut, Subsample):
        x = graph.subsample(x)
    elif shortcut is not None:
        x = graph.norm(shortcut.norm, graph.conv(shortcut.conv, x))
    return graph.add(inner, x)


@emit.register
def _(block: MobileFaceNet, graph: Graph, x: str) -> str:
    x = emit(block.stem, graph, x)
    if block.grouped is not None:
        x = emit(block.grouped, graph, x)
    if block.pointwise is not None:
        x = emit(block.pointwise, graph, x)
    for stage in (block.first, *block.stages):
        for bottleneck in stage:
            x = emit(bottleneck, graph, x)
    x = emit(block.pool, graph, emit(block.separate, graph, x))
    return graph.norm(block.norm, graph.linear(block.embedding, x))


@emit.register
def _(block: Bottleneck, graph: Graph, x: str) -> str:
    inner = emit(block.depthwise, graph, emit(block.expand, graph, x))
    inner = emit(block.project, graph, inner)
    return graph.add(x, inner) if block.residual else inner


@emit.register
def _(block: ConvNorm, graph: Graph, x: str) -> str:
    x = graph.norm(block.norm, graph.conv(block.conv, x))
    if block.activation == "relu":
        return graph.relu(x)
    return graph.relu6(x) if block.activation == "relu6" else graph.prelu(block.prelu, x)


@emit.register
def _(block: VisionTransformer, graph: Graph, x: str) -> str:
    x = graph.shift(block.positions, graph.tokens(graph.conv(block.patches, x)))
    for unit in block.blocks:
        x = emit(unit, graph, x)
    x = graph.flatten(graph.layer_norm(block.norm, x))
    x = graph.norm(block.reduce_norm, graph.dense(block.reduce, x))
    return graph.norm(block.embedding_norm, graph.dense(block.embedding, x))


@emit.register
def _(block: Block, graph: Graph, x: str) -> str:
    x = graph.add(x, emit(block.attention, graph, graph.layer_norm(block.norm1, x)))
    inner = graph.relu6(graph.dense(block.expand, graph.layer_norm(block.norm2, x)))
    return graph.add(x, graph.dense(block.project, inner))


@emit.register
def _(block: Attention, graph: Graph, x: str) -> str:
    width = block.project.in_features
    x = graph.attention(graph.dense(block.qkv, x), heads=HEADS, width=width)
    return graph.dense(block.project, x)
