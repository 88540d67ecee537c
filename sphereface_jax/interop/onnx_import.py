"""Recognises a network in an ONNX graph and takes its weights.

`interop.onnx_graph.emit` adds a node for each layer of a network. `Reader` has the methods
of its graph, but finds each layer among the steps of a file and takes its weights; so what can be
exported can be recognised, and a file that departs from the network is named by the node.

A file whose normalisations were folded into the layers before them has none to find there. Then the
network is the one with biases in their place, and normalisations that a file still has after a
layer are folded too, so that all are alike.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from sphereface_jax.interop.onnx_chart import (
    OTHER_FORM,
    Builder,
    Chart,
    Step,
    chart_of,
    scale_layer,
)
from sphereface_jax.interop.onnx_file import OnnxFile
from sphereface_jax.interop.onnx_graph import emit
from sphereface_jax.interop.onnx_tokens import Axis, Part, TokenBuilder, View, joined, whole
from sphereface_jax.models import MODELS, abstract_model
from sphereface_jax.models.iresnet import UNITS as IRESNET_UNITS
from sphereface_jax.models.iresnet import IResNet
from sphereface_jax.models.layers import BatchNorm, Bias, PReLU
from sphereface_jax.models.mobilefacenet import MobileFaceNet
from sphereface_jax.models.sfnet import SFNet
from sphereface_jax.models.spherenet import SphereNet
from sphereface_jax.models.vit import VisionTransformer

_OWN_PRODUCER = "sphereface_jax"
_LAYERS = ("Conv", "Linear")
_USUAL_WIDTH = 512
_MOST_EPSILON = 1e-3  # of a division by a length

Channels = tuple[int, int, int, int]


class Departure(ValueError):  # noqa: N818
    """Where a graph is not the network that it was taken for.

    Attributes:
      taken: steps that were the network's before that.
    """

    def __init__(self, message: str, taken: int):
        super().__init__(message)
        self.taken = taken


@dataclass(frozen=True)
class Front:
    """What a graph does to its input before the network, x · scale + shift.

    Attributes:
      value: what the network gets.
      scale: a channel, in the network's order.
      shift: a channel.
      reversed_channels: whether the network's order is not the file's.
      taken: the steps.
    """

    value: str
    scale: np.ndarray
    shift: np.ndarray
    reversed_channels: bool
    taken: list[Step]

    @property
    def changes_pixels(self) -> bool:
        """Whether it does more than to order channels."""
        return bool(np.any(self.scale != 1) or np.any(self.shift != 0))


@dataclass(frozen=True)
class Recognised:
    """A network and the weights of a file.

    Attributes:
      arch: of `MODELS`.
      model: the network, with the file's weights.
      channels: of its stages.
      embedding_dim: length of an embedding.
      image_size: height and width.
      folded: how many normalisations were folded; 0 where the file has them all.
      kept: how many of these the file had, which were folded here.
      normalized: whether the file scales its embeddings to unit length, which the network does not.
      front: what the file does to its input.
      takes_pixels: whether that is uint8.
      own: whether this project wrote the file.
    """

    arch: str
    model: nnx.Module
    channels: Channels
    embedding_dim: int
    image_size: tuple[int, int]
    folded: int
    kept: int
    normalized: bool
    front: Front
    takes_pixels: bool
    own: bool


@dataclass
class Reader:
    """Finds the layers of a network in a chart: the twin of `onnx_graph.Graph`.

    Args:
      chart: the file; normalisations that are folded change its layers.
      feature_shape: height, width and channels of what the first linear layer flattens.
      taken: steps that are accounted for.
    """

    chart: Chart
    feature_shape: tuple[int, int, int]
    taken: list[Step]
    weights: list[tuple[Any, Callable[[], Any]]] = field(default_factory=list)
    folded: int = 0
    kept: int = 0
    # What a linear layer reads, where that is not the channels of tokens.
    _reads: dict[str, Axis] = field(default_factory=dict)
    # What a layer without a bias made, until a normalisation accounts for the file's bias.
    _made: dict[str, Step] = field(default_factory=dict)

    def depart(self, x: str, expected: str, found: Sequence[Step]) -> Departure:
        """Says what does not fit after a value.

        Args:
          x: the value.
          expected: what the network has there.
          found: what the file has there.

        Returns:
          The error, to be raised.
        """
        makers = [step for step in self.chart.steps if step.output == x]
        where = f"after {makers[0]}" if makers else f"at the input {x}"
        said = " and ".join(map(str, found[:3])) or "the end of the graph"
        return Departure(f"{where}: expected {expected}, found {said}", len(self.taken))

    def _find(self, kind: str, x: str, fits: Callable[[Step], bool], expected: str) -> Step:
        """Takes the step of a kind that reads a value and fits."""
        consumers = self.chart.consumers(x)
        for step in consumers:
            is_new = not any(step is other for other in self.taken)
            if step.kind == kind and is_new and fits(step):
                self.settle(x)
                self.taken.append(step)
                return step
        raise self.depart(x, expected, consumers)

    def settle(self, x: str) -> None:
        """Refuses a bias that the network's layer lacks, when what has it is read as it is."""
        step = self._made.get(x)
        if step is not None and step.data["bias"] is not None and np.any(step.data["bias"]):
            raise Departure(
                f"{step}: expected no bias, or a normalisation that it may be folded from, found "
                "one",
                len(self.taken),
            )

    def conv(self, layer: nnx.Conv, x: str) -> str:
        """A convolution of these sizes.

        Args:
          layer: the convolution; it is given its weights once all of them are found.
          x: the value that it reads.

        Returns:
          The value that it makes.

        Raises:
          Departure: the file has none there.
        """
        height, width, inputs, outputs = layer.kernel.shape
        groups, stride, padding = layer.feature_group_count, layer.strides, layer.padding
        expected = (
            f"Conv {height}×{width} of {inputs * groups} to {outputs} channels, stride {stride}, "
            f"padding {padding}, {groups} groups"
        )

        def fits(step: Step) -> bool:
            data = step.data
            sizes = data["stride"], data["padding"], data["groups"], data["kernel"].shape
            return sizes == (stride, padding, groups, (outputs, inputs, height, width))

        step = self._find("Conv", x, fits, expected)
        return self._layer(layer, step, lambda kernel: kernel.transpose(2, 3, 1, 0))

    def linear(self, layer: nnx.Linear, x: str) -> str:
        """A linear layer of a whole image, which some files have as a convolution.

        Args:
          layer: the linear layer.
          x: the value that it reads.

        Returns:
          The value that it makes.

        Raises:
          Departure: the file has none there.
        """
        inputs, outputs = layer.kernel.shape
        height, width, channels = self.feature_shape
        expected = f"Linear of {inputs} to {outputs}"
        if any(step.kind == "Conv" for step in self.chart.consumers(x)):
            shape = (outputs, channels, height, width)

            def covers(step: Step) -> bool:
                data, seen = step.data, self.chart.shapes[step.output]
                sizes = data["kernel"].shape, data["padding"], data["groups"], seen[2:]
                return sizes == (shape, 0, 1, (1, 1))

            step = self._find("Conv", x, covers, expected)
            return self._layer(
                layer, step, lambda kernel: kernel.transpose(2, 3, 1, 0).reshape(inputs, outputs)
            )
        step = self._find(
            "Linear", x, lambda step: step.data["kernel"].shape == (inputs, outputs), expected
        )

        def from_file(kernel: np.ndarray) -> np.ndarray:
            if step.data["order"] == "chw":
                kernel = kernel.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
            return kernel.reshape(inputs, outputs)

        return self._layer(layer, step, from_file)

    def _layer(
        self, layer: nnx.Conv | nnx.Linear, step: Step, layout: Callable[[np.ndarray], np.ndarray]
    ) -> str:
        self.weights.append((layer.kernel, lambda: layout(step.data["kernel"])))
        if layer.bias is None:
            self._made[step.output] = step
        else:
            self.weights.append((layer.bias, lambda: _bias(step)))
        return step.output

    def norm(self, layer: BatchNorm | Bias | None, x: str) -> str:
        """A normalisation; after a layer of the file it may have been folded into that.

        Args:
          layer: the normalisation, or what folding leaves of it, or None.
          x: the value that it reads.

        Returns:
          The value that it makes, x where it was folded or there is none.

        Raises:
          Departure: the file has none there.
        """
        if layer is None:
            return x
        maker = next((step for step in self.chart.steps if step.output == x), None)
        consumers = self.chart.consumers(x)
        follows = [step for step in consumers if step.kind in ("Norm", "Affine")]
        if maker is None or maker.kind not in _LAYERS:
            maker = None
        elif not follows:
            self.folded += 1
            self._made.pop(x, None)
        if isinstance(layer, Bias):
            assert maker is not None
            return self._rest_of_norm(layer, x, maker, follows)
        return x if maker is not None and not follows else self._norm(layer, x, follows)

    def _norm(self, layer: BatchNorm, x: str, follows: Sequence[Step]) -> str:
        made = self._made.pop(x, None)
        assert layer.scale is not None
        assert layer.bias is not None
        count = layer.scale.shape[0]
        expected = f"normalisation of {count} channels"
        kind = follows[0].kind if follows else "Norm"
        step = self._find(kind, x, lambda step: step.data["scale"].shape == (count,), expected)
        data = step.data
        if kind == "Norm":
            scale, bias, mean = data["scale"], data["bias"], data["mean"]
            variance = data["var"].astype(np.float64) + data["epsilon"]
        else:  # written as a product and a sum
            scale, bias, mean = data["scale"], data["shift"], np.zeros(count)
            variance = np.ones(count)
        if made is not None:
            mean = mean - _bias(made)
        variance = variance - layer.epsilon
        if np.any(variance < 0):
            raise self.depart(x, f"{expected}, of a variance of {layer.epsilon:g} at least", [step])
        found = (layer.scale, scale), (layer.bias, bias), (layer.mean, mean), (layer.var, variance)
        self.weights += [
            (variable, functools.partial(np.asarray, value)) for variable, value in found
        ]
        return step.output

    def _rest_of_norm(self, layer: Bias, x: str, maker: Step, follows: Sequence[Step]) -> str:
        """What is left of a normalisation, after folding what the file still has of it."""
        self._made.pop(x, None)
        if follows:
            step, data = follows[0], follows[0].data
            scale = data["scale"].astype(np.float64)
            if step.kind == "Norm":
                scale = scale / np.sqrt(data["var"].astype(np.float64) + data["epsilon"])
                scale_layer(maker, scale, data["bias"] - data["mean"] * scale)
            else:
                scale_layer(maker, scale, data["shift"])
            self.taken.append(step)
            self.kept += 1
            x = step.output
        if layer.bias is not None:
            self.weights.append((layer.bias, lambda: _bias(maker)))
        return x

    def prelu(self, layer: PReLU | None, x: str) -> str:
        """PReLU; nothing where the network has none.

        Args:
          layer: the activation, or None.
          x: the value that it reads.

        Returns:
          The value that it makes.

        Raises:
          Departure: the file has none there.
        """
        if layer is None:
            return x
        shape = layer.slope.shape
        expected = f"PRelu of {shape[0]} channels"
        step = self._find("PRelu", x, lambda step: step.data["slope"].shape == shape, expected)
        self.weights.append((layer.slope, lambda: step.data["slope"]))
        return step.output

    def subsample(self, x: str) -> str:
        """Every second pixel of every second row."""
        expected = "MaxPool of 1×1 and stride 2"
        return self._find("Subsample", x, lambda step: True, expected).output

    def relu(self, x: str) -> str:
        """max(x, 0)."""
        return self._find("Relu", x, lambda step: True, "Relu").output

    def relu6(self, x: str) -> str:
        """min(max(x, 0), 6)."""
        return self._find("Relu6", x, lambda step: True, "Clip to 0 and 6").output

    def add(self, x: str, y: str) -> str:
        """The sum of two values.

        Args:
          x: a value.
          y: another.

        Returns:
          Their sum.

        Raises:
          Departure: the file has none there.
        """
        self.settle(y)
        step = self._find("Add", x, lambda step: sorted(step.inputs) == sorted((x, y)), "their Add")
        return step.output

    # Of a vision transformer.

    def tokens(self, x: str) -> str:
        """From an image to tokens, which are the same value in a chart."""
        return x

    def shift(self, variable: nnx.Variable, x: str) -> str:
        """The sum of tokens and positions.

        Args:
          variable: the positions, [1, T, C].
          x: the value that it is added to.

        Returns:
          The value that it makes.

        Raises:
          Departure: the file has none there.
        """
        _, tokens, channels = variable.shape
        expected = f"the sum with {tokens} positions of {channels} channels"
        shape = (tokens, channels)
        step = self._find("Shift", x, lambda step: step.data["array"].shape == shape, expected)
        self.weights.append((variable, lambda: step.data["array"][None]))
        return step.output

    def dense(self, layer: nnx.Linear, x: str) -> str:
        """A linear layer of tokens, or of what `flatten` and `attention` made.

        Args:
          layer: the linear layer.
          x: the value that it reads.

        Returns:
          The value that it makes.

        Raises:
          Departure: the file has none there.
        """
        shape = layer.kernel.shape
        reads = self._reads.get(x, whole("c", shape[0]))
        step = self._find(
            "Linear",
            x,
            lambda step: step.data["kernel"].shape == shape and step.data["reads"] == reads,
            "Linear of {} to {}".format(*shape),
        )
        return self._layer(layer, step, np.asarray)

    def layer_norm(self, layer: nnx.LayerNorm, x: str) -> str:
        """Normalisation of each token.

        Args:
          layer: the normalisation.
          x: the value that it reads.

        Returns:
          The value that it makes.

        Raises:
          Departure: the file has none there.
        """
        step = self._find(
            "LayerNorm",
            x,
            lambda step: np.isclose(step.data["epsilon"], layer.epsilon, rtol=1e-3, atol=0),
            f"normalisation of each token, with {layer.epsilon:g} beside the variance",
        )
        self.weights.append((layer.scale, lambda: step.data["scale"]))
        self.weights.append((layer.bias, lambda: step.data["shift"]))
        return step.output

    def attention(self, qkv: str, *, heads: int, width: int) -> str:
        """softmax(q kᵀ / √d) v of tokens, heads side by side in each third.

        Args:
          qkv: the tokens, [N, T, 3 width].
          heads: how many.
          width: of a token.

        Returns:
          The value that it makes, one part per head.

        Raises:
          Departure: the file has none there.
        """
        (batch, count, _), depth = self.chart.shapes[qkv], width // heads
        tokens, inner = whole("t", count), whole("c", depth)
        images, of_heads = Part("n", 1, batch), Part("c", depth, heads)
        apart = joined(images, of_heads)
        scale = depth**-0.5
        scores = self._find(
            "MatMul",
            qkv,
            lambda step: (
                list(map(_matrix, step.data["views"]))
                == [(qkv, apart, tokens, inner, 0), (qkv, apart, inner, tokens, width)]
            ),
            f"queries by keys, in {heads} heads of {depth} channels",
        )
        factors = [view.scale for view in scores.data["views"]]
        softmax = self._find(
            "Softmax",
            scores.output,
            lambda step: np.isclose(
                np.prod(factors) * step.data["views"][0].scale, scale, rtol=1e-4, atol=0
            ),
            f"Softmax of them times {scale:g}",
        )
        weights = (softmax.output, joined(images, Part("c", 1, heads)), tokens, whole("t'", count))
        mixed = self._find(
            "MatMul",
            softmax.output,
            lambda step: (
                list(map(_matrix, step.data["views"]))
                == [(*weights, 0), (qkv, apart, tokens, inner, 2 * width)]
                and all(view.scale == 1 for view in step.data["views"])
            ),
            "the product with the values",
        )
        self._reads[mixed.output] = joined(Part("c", 1, heads), Part("c'", 1, depth))
        return mixed.output

    def flatten(self, x: str) -> str:
        """All tokens as one."""
        _, tokens, channels = self.chart.shapes[x]
        self._reads[x] = (*whole("t", tokens), *whole("c", channels))
        return x


def _matrix(view: View) -> tuple[str, Axis, Axis, Axis, int]:
    """What MatMul reads of a value: its batch, rows and columns, and where its channels start."""
    batch = joined(*(part for axis in view.axes[:-2] for part in axis))
    start = sum(view.starts.values())  # of channels, as all other axes are read whole
    return view.value, batch, view.axes[-2], view.axes[-1], start


def _bias(layer: Step) -> np.ndarray:
    """That of a layer, zeros where it has none."""
    data = layer.data
    count = data["kernel"].shape[0 if layer.kind == "Conv" else 1]
    return np.zeros(count) if data["bias"] is None else np.asarray(data["bias"])


def recognise(
    file: OnnxFile, *, arch: str = "", image_size: tuple[int, int] | None = None
) -> Recognised:
    """Finds the network of `MODELS` that a file is, and takes its weights.

    Where several are the same function, it is the first of them, or the first of the usual width.

    Args:
      file: the graph.
      arch: the only network to try.
      image_size: height and width, where the file leaves them open; 112×112 by default.

    Returns:
      The network with the file's weights, and what the file does besides.

    Raises:
      ValueError: it is none; the message names where it departs from the network that it follows
        longest.
    """
    has_tokens = any(node.kind in ("Softmax", "Attention") for node in file.nodes)
    builder = TokenBuilder if has_tokens else Builder
    chart = chart_of(file, image_size or (112, 112), builder)
    front = _front(chart)
    convolutions = [step for step in chart.steps if step.kind == "Conv"]
    layers = [step for step in chart.steps if step.kind in _LAYERS]
    # A file without a linear layer has it as a convolution of what is left of the image.
    count = len(layers) - 1
    candidates = {}
    for name in _candidates(count, arch, of_tokens=has_tokens):
        build = MODELS[name]
        candidates[name] = _FAMILIES[build.func].channels(convolutions, **build.keywords)
    departures: list[tuple[str, Departure]] = []
    for name in sorted(candidates, key=lambda name: (candidates[name] or (0,))[-1] != _USUAL_WIDTH):
        channels = candidates[name]
        try:
            if channels is None:
                raise _without_stages(chart, convolutions, MODELS[name].func)
            kernel = layers[-1].data["kernel"]
            dim = kernel.shape[0 if layers[-1].kind == "Conv" else 1]
            return _match(file, chart, front, name, channels, dim)
        except Departure as departure:
            departures.append((name, departure))
    name, furthest = max(departures, key=lambda found: found[1].taken)
    raise ValueError(f"as {name}, {furthest.taken} of its {len(chart.steps)} steps fit; {furthest}")


def _without_stages(chart: Chart, convolutions: Sequence[Step], family: Any) -> Departure:
    """Says why a graph is none of the networks here: what it has that they have not."""
    others = [str(step) for step in chart.steps if "node" in step.data]
    rest = f", and {others[0]}" if others else ""
    if family is VisionTransformer:
        expected, found = "one convolution, of patches", len(convolutions)
    else:
        expected = "four 3×3 convolutions of stride 2, as the networks here have"
        found = len(list(filter(_halves, convolutions)))
    return Departure(f"expected {expected}, found {found}{rest}", 0)


def _match(
    file: OnnxFile, chart: Chart, front: Front, name: str, channels: Channels, embedding_dim: int
) -> Recognised:
    _, _, height, width = chart.shapes[front.value]
    options = {
        "embedding_dim": embedding_dim,
        "image_size": (height, width),
        "channels": tuple(channels),
    }
    try:
        model = abstract_model(name, **options)
    except (ValueError, AssertionError, ArithmeticError):
        said = ", ".join(map(str, channels))
        raise Departure(f"expected channels that {name} can have, found {said}", 0) from None
    reader, normalized = _walk(model, chart, front)
    folded = reader.folded
    if folded:
        model = abstract_model(name, **options, folded=True)
        steps = [replace(step, data=dict(step.data)) for step in chart.steps]
        copy = replace(chart, steps=steps)
        reader, normalized = _walk(model, copy, _front(copy))
    if isinstance(model, VisionTransformer):  # training alone reads it, and no graph has it
        model.mask_token.set_value(jnp.zeros(model.mask_token.shape))
    for variable, value in reader.weights:
        variable.set_value(_checked(value(), variable))
    return Recognised(
        arch=name,
        model=model,
        channels=channels,
        embedding_dim=embedding_dim,
        image_size=(height, width),
        folded=folded,
        kept=reader.kept,
        normalized=normalized,
        front=front,
        takes_pixels=file.takes_pixels,
        own=file.producer == _OWN_PRODUCER,
    )


def _walk(model: Any, chart: Chart, front: Front) -> tuple[Reader, bool]:
    """Reads a network off a chart, all of it; says whether it ends by making lengths one."""
    reader = Reader(chart, model.feature_shape, list(front.taken))
    # Its methods are those that the blocks call.
    x = emit(model, reader, front.value)  # type: ignore[arg-type]
    reader.settle(x)
    end = _unit_length(chart, x)
    reader.taken += end
    if (end[-1].output if end else x) != chart.output:
        raise reader.depart(x, "the end of the graph", chart.consumers(x))
    rest = [step for step in chart.steps if not any(step is taken for taken in reader.taken)]
    if rest:
        raise Departure(f"expected no other step, found {rest[0]}", len(reader.taken))
    return reader, bool(end)


def _checked(array: Any, variable: Any) -> jnp.ndarray:
    found = np.asarray(array, np.float32)
    if found.shape != variable.shape or not np.all(np.isfinite(found)):
        raise ValueError(
            f"expected finite weights of shape {list(variable.shape)}, found "
            f"{list(found.shape)}, of which {np.sum(~np.isfinite(found))} are NaN or infinite"
        )
    return jnp.asarray(found)


def _front(chart: Chart) -> Front:
    """Follows the input to the network's first layer."""
    value, taken = chart.input, []
    count = chart.shapes[value][1]
    scale, shift, backwards = np.ones(count), np.zeros(count), False
    while len(steps := chart.consumers(value)) == 1:
        (step,) = steps
        if step.kind == "Affine":
            scale = scale * step.data["scale"]
            shift = shift * step.data["scale"] + step.data["shift"]
        elif step.kind == "Reverse":
            scale, shift, backwards = scale[::-1], shift[::-1], not backwards
        elif step.kind == "Crop":
            _, _, _, before = chart.shapes[value]
            if step.data["left"] != (before - chart.shapes[step.output][3]) // 2:
                break
        else:
            break
        taken.append(step)
        value = step.output
    return Front(value, scale, shift, backwards, taken)


_LENGTHS = (("ReduceL2",), ("ReduceSumSquare", "Sqrt"), ("Pow", "ReduceSum", "Sqrt"))
_GUARDS = ("Clip", "Max", "Add" + OTHER_FORM, "Affine", "Expand")


def _unit_length(chart: Chart, x: str) -> list[Step]:
    """The steps that scale x to unit length, if that is what follows."""
    consumers = chart.consumers(x)
    if len(consumers) == 1 and consumers[0].kind == "LpNormalization":
        attributes = consumers[0].data["node"].attributes
        is_l2 = attributes.get("axis", -1) in (1, -1) and attributes.get("p", 2) == 2
        return consumers if is_l2 else []
    divisions = [step for step in consumers if step.kind == "Div" and step.inputs[0] == x]
    others = [step for step in consumers if step.kind != "Div"]
    if len(divisions) != 1 or len(others) != 1:
        return []
    (division,), (step,) = divisions, others
    chain = [step]
    while len(following := chart.consumers(step.output)) == 1 and following[0] is not division:
        step = following[0]
        chain.append(step)
    lengths = tuple(step.kind for step in chain if step.kind not in _GUARDS)
    is_fine = all(map(_keeps_length, chain)) and division.inputs == (x, chain[-1].output)
    return [*chain, division] if lengths in _LENGTHS and is_fine else []


def _keeps_length(step: Step) -> bool:
    """Whether a step between an embedding and the division is of its length, over all numbers."""
    if step.kind == "Affine":
        return bool(
            np.all(step.data["scale"] == 1) and np.all(abs(step.data["shift"]) <= _MOST_EPSILON)
        )
    node, constants = step.data["node"], step.data["constants"]
    numbers = [constants[name] for name in node.inputs if name in constants]
    if step.kind.startswith("Reduce"):
        axes = node.attributes.get("axes", numbers[0].tolist() if numbers else None)
        return axes in ([1], [-1]) and node.attributes.get("keepdims", 1) == 1
    if step.kind == "Pow":
        return len(numbers) == 1 and bool(np.all(numbers[0] == 2))
    if step.kind == "Expand":
        return True
    bounds = [*numbers[:1], *([node.attributes["min"]] if "min" in node.attributes else [])]
    return all(np.all(np.abs(bound) <= _MOST_EPSILON) for bound in bounds)


@dataclass(frozen=True)
class _Family:
    """What a class of networks shows of itself in a graph.

    Attributes:
      count: how many layers it has before the last, of the options of its entry in `MODELS`.
      channels: its option of that name, of the convolutions of a graph and the options of its
        entry; None where a graph has too many or too few.
    """

    count: Callable[..., int]
    channels: Callable[..., Channels | None]


def _halves(step: Step) -> bool:
    return step.data["stride"] == 2 and step.data["kernel"].shape[2:] == (3, 3)


def _stages(convolutions: Sequence[Step], **others: Any) -> Channels | None:
    strided = [step.data["kernel"].shape[0] for step in convolutions if _halves(step)]
    if len(strided) != 4:
        return None
    first, second, third, fourth = strided
    return first, second, third, fourth


def _mobile_channels(convolutions: Sequence[Step], **others: Any) -> Channels | None:
    """Groups of the second layer, then the inner channels at each halving."""
    channels = _stages(convolutions)
    if channels is None:
        return None
    groups = convolutions[1].data["groups"]
    return 64 if groups == 1 else groups, *channels[1:]


def _token_channels(
    convolutions: Sequence[Step], width: float = 1.0, **others: Any
) -> Channels | None:
    """The last alone counts."""
    if len(convolutions) != 1:
        return None
    return 64, 128, 256, round(convolutions[0].data["kernel"].shape[0] / width)


def _mobile_count(
    residual: Sequence[int] = (0, 4, 6, 2), separable: bool = False, **others: Any
) -> int:
    second = 2 if separable else 0 if residual[0] else 1
    return 1 + second + 3 * (sum(residual) + 3) + 2


_FAMILIES: dict[Any, _Family] = {
    SphereNet: _Family(lambda depth, **others: depth, _stages),
    SFNet: _Family(lambda depth, **others: depth, _stages),
    IResNet: _Family(
        lambda depth, ir=False: (4 if ir else 5) + 2 * sum(IRESNET_UNITS[depth]), _stages
    ),
    MobileFaceNet: _Family(_mobile_count, _mobile_channels),
    VisionTransformer: _Family(lambda depth, **others: 4 * depth + 2, _token_channels),
}


def _candidates(count: int, arch: str, *, of_tokens: bool) -> list[str]:
    """The networks with this many layers; else that with the nearest number of each class."""
    if arch:
        return [arch]

    def distance(name: str) -> int:
        build = MODELS[name]
        return abs(_FAMILIES[build.func].count(*build.args, **build.keywords) - count)

    known = [name for name in MODELS if (MODELS[name].func is VisionTransformer) == of_tokens]
    exact = [name for name in known if distance(name) == 0]
    if exact:
        return exact
    kinds = {MODELS[name].func for name in known}
    return [
        min((name for name in known if MODELS[name].func is kind), key=distance)
        for kind in _FAMILIES
        if kind in kinds
    ]
