"""An ONNX graph in the few terms that a network here is made of.

Exporters write one network in many ways. What makes no difference is taken away here: constants
are folded, casts, dropout and changes of layout are followed, and what acts on each channel alone
becomes one step. What is left is a list of `Step` over values in NCHW, whatever the file's own
layout is:

    Conv, Linear, Norm, Affine (x · scale + shift a channel), PRelu, Relu, Relu6, Add,
    Crop (columns), Reverse (channels), Subsample (every second pixel both ways).

Other operators keep their own names and have their node among their data.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sphereface_jax.interop.onnx_file import Node, OnnxFile

_FREE_BATCH = 7919  # stands for a batch size that the file leaves open; no size of a network
_MOST_FOLDED = 2**27  # numbers of a constant that is computed
_NCHW = (0, 1, 2, 3)
# What attributes that mean nothing lead to.
_MISFITS = (LookupError, TypeError, AttributeError, ArithmeticError, StopIteration, AssertionError)
_TERMS = ("Conv", "PRelu", "Relu", "Add", "MatMul", "Softmax")  # that are operators of ONNX too
OTHER_FORM = " in another form"
"""What is said of an operator that is known, with sizes or attributes that no network here has."""


@dataclass
class Step:
    """One operation on images or vectors.

    Attributes:
      kind: its term.
      name: of the file's node, for messages.
      inputs: values that it reads.
      output: the value that it makes.
      data: arrays and numbers by name.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    output: str
    data: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        said = self.kind
        if self.kind == "Conv":
            outputs, inputs, height, width = self.data["kernel"].shape
            said = (
                f"Conv {height}×{width} of {inputs * self.data['groups']} to {outputs} channels, "
                f"stride {self.data['stride']}, {self.data['groups']} groups"
            )
        elif self.kind == "Linear":
            said = "Linear of {} to {}".format(*self.data["kernel"].shape)
        return f"{said} ({self.name})"


@dataclass(frozen=True)
class _View:
    """How the file sees a value: its axes in another order, flattened, or with a border.

    Attributes:
      value: the value.
      shape: that the file sees.
      axes: for each axis of the file the axis of the value; None where it is flattened.
      flat: order of a flattened image, "chw" or "hwc".
      border: zeros around the image, above and left of it and as many below and right.
    """

    value: str
    shape: tuple[int, ...] | None
    axes: tuple[int, ...] | None
    flat: str = ""
    border: tuple[int, int] = (0, 0)

    @property
    def plain_axes(self) -> tuple[int, ...] | None:
        """The axes where there is no border."""
        return self.axes if self.border == (0, 0) else None


@dataclass(frozen=True)
class Chart:
    """A graph in these terms.

    Attributes:
      steps: in an order in which they could be computed.
      shapes: of values, as (batch, channels, height, width) or (batch, channels).
      input: the value that the file takes.
      output: the value that it gives.
    """

    steps: list[Step]
    shapes: dict[str, tuple[int, ...]]
    input: str
    output: str

    def consumers(self, value: str) -> list[Step]:
        """The steps that read a value."""
        return [step for step in self.steps if value in step.inputs]


def chart_of(file: OnnxFile, image_size: tuple[int, int], builder: type["Builder"]) -> Chart:
    """Rewrites a graph.

    Args:
      file: the graph.
      image_size: height and width where the file leaves them open.
      builder: what knows the nodes of such a graph.

    Returns:
      The steps in their order, with the shapes of their values.

    Raises:
      ValueError: the graph is not whole.
    """
    made = builder(file, image_size)
    for node in file.nodes:
        try:
            made.add(node)
        except _MISFITS as error:
            raise ValueError(
                f"node {node.name}: expected attributes and shapes that {node.kind} takes, found "
                f"{' '.join(str(error).split()) or type(error).__name__}"
            ) from None
    output = made.view(file.output, "the graph's output").value
    return _merged(_used(Chart(made.steps, made.shapes, file.input, output)))


def _used(chart: Chart) -> Chart:
    """Leaves out what the output does not depend on."""
    wanted, steps = {chart.output}, []
    for step in reversed(chart.steps):
        if step.output in wanted:
            steps.append(step)
            wanted.update(step.inputs)
    return Chart(steps[::-1], chart.shapes, chart.input, chart.output)


def _merged(chart: Chart) -> Chart:
    """Takes every Affine that follows a layer, or another Affine, into it."""
    steps: list[Step] = []
    makers: dict[str, Step] = {}
    readers: dict[str, int] = {}
    for step in chart.steps:
        for value in step.inputs:
            readers[value] = readers.get(value, 0) + 1
    for step in chart.steps:
        before = makers.get(step.inputs[0]) if step.inputs else None
        if (
            step.kind == "Affine"
            and before is not None
            and before.kind in ("Conv", "Linear", "Affine", "LayerNorm")
            and readers[step.inputs[0]] == 1
            and step.inputs[0] != chart.output
        ):
            scale_layer(before, step.data["scale"], step.data["shift"])
            before.output = step.output
        else:
            steps.append(step)
            before = step
        makers[before.output] = before
    return Chart(steps, chart.shapes, chart.input, chart.output)


def scale_layer(step: Step, scale: np.ndarray, shift: np.ndarray) -> None:
    """Multiplies what a step makes by a scale and adds a shift.

    Args:
      step: a layer; its weights are replaced.
      scale: [C], one number per channel.
      shift: [C].
    """
    data = step.data
    if step.kind in ("Affine", "LayerNorm"):
        data["scale"], data["shift"] = data["scale"] * scale, data["shift"] * scale + shift
        return
    kernel = np.asarray(data["kernel"], np.float64)
    data["kernel"] = kernel * (scale[:, None, None, None] if step.kind == "Conv" else scale)
    data["bias"] = (0 if data["bias"] is None else data["bias"]) * scale + shift


class Builder:
    """Steps under way.

    Args:
      file: the graph.
      image_size: height and width where the file leaves them open.
    """

    def __init__(self, file: OnnxFile, image_size: tuple[int, int]):
        self.steps: list[Step] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._constants = dict(file.constants)
        batch, *sizes = file.input_shape
        axes = (0, 2, 3, 1) if sizes[2] == 3 and sizes[0] != 3 else _NCHW
        sizes_by_axis = dict(zip(axes, file.input_shape, strict=True))
        height, width = (
            given if (size := sizes_by_axis[axis]) is None else size
            for axis, given in zip((2, 3), image_size, strict=True)
        )
        shape = (batch or _FREE_BATCH, sizes_by_axis[1] or 3, height, width)
        self.shapes[file.input] = shape
        self._views = {file.input: _View(file.input, _seen(shape, axes), axes)}

    def view(self, name: str, where: str) -> _View:
        """How the file sees a value.

        Args:
          name: of the value.
          where: the place that reads it, for an error.

        Returns:
          The view.

        Raises:
          ValueError: no node before it makes the value, or it is a constant.
        """
        if name not in self._views:
            what = "a constant" if name in self._constants else "none"
            raise ValueError(f"{where}: expected {name} from a node before it, found {what}")
        return self._views[name]

    def add(self, node: Node) -> None:
        """Turns a node into constants, a view of a value, or a step."""
        given = [name for name in node.inputs if name]
        if node.kind == "Constant":
            self._constants[node.outputs[0]] = _constant(node)
            return
        if all(name in self._constants for name in given) and node.kind in _FOLDED:
            self._fold(node)
            return
        variable = [name for name in given if name not in self._constants]
        views = [self.view(name, f"node {node.name}") for name in variable]
        if not views:
            self._opaque(node, [])
            return
        if node.kind == "Shape" and views[0].shape is not None:
            sizes = np.array(views[0].shape, np.int64)
            start, end = node.attributes.get("start", 0), node.attributes.get("end")
            self._constants[node.outputs[0]] = sizes[start:end]
            return
        done = len(views) == 1 and self._one(node, views[0], given[0] == variable[0])
        if not done and node.kind == "Add" and len(views) == 2 and self._sum(node, views):
            return
        if not done:
            self._opaque(node, views)

    # What a node of one variable input may be; each returns whether it was that.

    def _one(self, node: Node, view: _View, is_first: bool) -> bool:
        if node.kind in ("Identity", "Dropout", "Cast"):
            self._views[node.outputs[0]] = view
            return True
        known: dict[str, Callable[[Node, _View], bool]] = {
            "Transpose": self._transpose,
            "Reshape": self._reshape,
            "Flatten": self._reshape,
            "Squeeze": self._reshape,
            "Unsqueeze": self._reshape,
            "Pad": self._pad,
            "Conv": self._conv,
            "Gemm": self._linear,
            "MatMul": self._linear,
            "BatchNormalization": self._norm,
            "PRelu": self._prelu,
            "LeakyRelu": self._prelu,
            "Relu": self._clip,
            "Clip": self._clip,
            "MaxPool": self._subsample,
            "Slice": self._slice,
            "Gather": self._gather,
        }
        if node.kind in ("Add", "Sub", "Mul", "Div"):
            return self._affine(node, view, is_first)
        return node.kind in known and is_first and known[node.kind](node, view)

    def _argument(self, node: Node, place: int, attribute: str = "") -> Any:
        """A constant input, or the attribute that it was in earlier versions; None if left out."""
        if place < len(node.inputs) and node.inputs[place]:
            return self._constants.get(node.inputs[place])
        return node.attributes.get(attribute)

    def _step(
        self,
        kind: str,
        node: Node,
        views: Sequence[_View],
        shape: tuple[int, ...] | None = None,
        axes: tuple[int, ...] | None = None,
        **data: Any,
    ) -> bool:
        """Adds a step whose result the file sees as it sees its input, unless told otherwise."""
        view, out = views[0], node.outputs[0]
        shape = self.shapes[view.value] if shape is None else shape
        axes = view.axes if axes is None else axes
        self.steps.append(Step(kind, node.name, tuple(v.value for v in views), out, data))
        self.shapes[out] = shape
        self._views[out] = _View(out, _seen(shape, axes), axes)
        return True

    def _opaque(self, node: Node, views: Sequence[Any]) -> None:
        data = {"node": node, "constants": self._constants}
        kind = node.kind + OTHER_FORM if node.kind in _TERMS else node.kind
        for out in node.outputs:
            self.steps.append(Step(kind, node.name, tuple(v.value for v in views), out, data))
            self._hide(out, out)

    def _hide(self, name: str, value: str) -> None:
        """Says that what the file calls by a name is a value, and not how it sees it."""
        self._views[name] = _View(value, None, None)

    def _channels(self, view: _View, array: np.ndarray, *, loose: bool = False) -> Any:
        """A constant as one number per channel of the value that it meets; None if it is not."""
        if (axes := view.plain_axes) is None or view.shape is None:
            return None
        count, rank = self.shapes[view.value][1], len(view.shape)
        if array.size == 1:
            return np.full(count, array.reshape(()), np.float64)
        place = axes.index(1)
        if loose and array.shape == (count,):  # as in ONNX before version 7
            return np.float64(array)
        if array.ndim > rank:
            return None
        whole = (1,) * (rank - array.ndim) + array.shape
        is_channels = all(
            size == (count if axis == place else 1) for axis, size in enumerate(whole)
        )
        return np.float64(array.reshape(-1)) if is_channels else None

    def _affine(self, node: Node, view: _View, is_first: bool) -> bool:
        (name,) = [n for n in node.inputs if n in self._constants]
        numbers = self._channels(view, self._constants[name])
        if numbers is None or (node.kind == "Div" and not is_first):
            return False
        one, zero = np.ones_like(numbers), np.zeros_like(numbers)
        if node.kind == "Sub":
            sign = one if is_first else -one
            return self._step("Affine", node, [view], scale=sign, shift=-sign * numbers)
        if node.kind == "Add":
            return self._step("Affine", node, [view], scale=one, shift=numbers)
        if node.kind == "Div" and np.any(numbers == 0):
            return False
        scale = numbers if node.kind == "Mul" else 1 / numbers
        return self._step("Affine", node, [view], scale=scale, shift=zero)

    def _sum(self, node: Node, views: Sequence[_View]) -> bool:
        same = views[0].axes == views[1].axes and all(view.plain_axes is not None for view in views)
        shapes = {self.shapes.get(view.value) for view in views}
        return same and len(shapes) == 1 and None not in shapes and self._step("Add", node, views)

    def _norm(self, node: Node, view: _View) -> bool:
        if (axes := view.plain_axes) is None:
            return False
        numbers = self._statistics(node, self.shapes[view.value][1])
        return axes[1] == 1 and bool(numbers) and self._step("Norm", node, [view], **numbers)

    def _statistics(self, node: Node, count: int) -> dict[str, Any]:
        """What a normalisation of this many channels holds; nothing where it is another."""
        arrays = [self._argument(node, place) for place in range(1, 5)]
        fits = all(array is not None and array.shape == (count,) for array in arrays)
        if not fits or node.attributes.get("training_mode", 0):
            return {}
        names = ("scale", "bias", "mean", "var")
        epsilon = node.attributes.get("epsilon", 1e-5)
        return {**dict(zip(names, arrays, strict=True)), "epsilon": epsilon}

    def _prelu(self, node: Node, view: _View) -> bool:
        if node.kind == "LeakyRelu":
            slope = np.array(node.attributes.get("alpha", 0.01))
        else:
            slope = self._argument(node, 1)
        numbers = None if slope is None else self._channels(view, slope, loose=True)
        return numbers is not None and self._step("PRelu", node, [view], slope=numbers)

    def _clip(self, node: Node, view: _View) -> bool:
        kind = self._clip_kind(node)
        return bool(kind) and view.plain_axes is not None and self._step(kind, node, [view])

    def _clip_kind(self, node: Node) -> str:
        low, high = 0.0, math.inf
        if node.kind == "Clip":
            low, high = (
                default if (bound := self._argument(node, place, name)) is None else float(bound)
                for place, name, default in ((1, "min", -math.inf), (2, "max", math.inf))
            )
        # The largest float stands for no bound in some files.
        kind = {6.0: "Relu6"}.get(high, "Relu" if high > 1e38 else "")
        return kind if low == 0 else ""

    def _subsample(self, node: Node, view: _View) -> bool:
        """The maximum over one pixel, which leaves pixels out or is nothing."""
        attributes = node.attributes
        strides = tuple(attributes.get("strides", (1, 1)))
        sizes = set(attributes.get("kernel_shape", ()))
        if view.plain_axes != _NCHW or sizes != {1}:
            return False
        if any(attributes.get("pads", ())) or strides not in ((1, 1), (2, 2)):
            return False
        if strides == (1, 1):
            self._views[node.outputs[0]] = view
            return True
        batch, channels, height, width = self.shapes[view.value]
        shape = (batch, channels, (height + 1) // 2, (width + 1) // 2)
        return self._step("Subsample", node, [view], shape=shape)

    def _transpose(self, node: Node, view: _View) -> bool:
        if (plain := view.plain_axes) is None:
            return False
        order = node.attributes.get("perm", range(len(plain))[::-1])
        axes = tuple(plain[axis] for axis in order)
        shape = _seen(self.shapes[view.value], axes)
        self._views[node.outputs[0]] = _View(view.value, shape, axes)
        return True

    def _pad(self, node: Node, view: _View) -> bool:
        pads = self._argument(node, 1, "pads")
        value = self._argument(node, 2, "value")
        is_zero = value is None or not np.any(value)
        zeros = node.attributes.get("mode", b"constant") == b"constant" and is_zero
        axes = view.plain_axes
        if pads is None or not zeros or axes is None or len(pads) != 8:
            return False
        before, after = (
            {axis: int(pad) for axis, pad in zip(axes, part, strict=True)}
            for part in (pads[:4], pads[4:])
        )
        if before != after or before[0] or before[1]:
            return False
        border = (before[2], before[3])
        self._views[node.outputs[0]] = _View(view.value, None, view.axes, border=border)
        return True

    def _reshape(self, node: Node, view: _View) -> bool:
        shape = view.shape
        if shape is None or view.border != (0, 0):
            return False
        wanted = self._reshaped(node, shape)
        if wanted is None:
            return False
        out, count = node.outputs[0], math.prod(shape[1:])
        sizes = self.shapes[view.value]
        if wanted == shape:
            self._views[out] = view
        elif wanted[0] != sizes[0]:
            return False
        elif view.axes is not None and count == sizes[1]:  # one number per channel
            if sorted(wanted[1:]) != [1] * (len(wanted) - 2) + [count]:
                return False
            place = 1 if count == 1 else wanted.index(count, 1)
            others = iter([2, 3, *range(4, len(wanted))])
            axes = tuple(
                0 if axis == 0 else 1 if axis == place else next(others)
                for axis in range(len(wanted))
            )
            self._views[out] = _View(view.value, wanted, axes)
        elif len(wanted) == 2 and view.axes in (_NCHW, (0, 2, 3, 1)):
            order = "chw" if view.axes == _NCHW else "hwc"
            self._views[out] = _View(view.value, wanted, None, flat=order)
        else:
            return False
        return True

    def _reshaped(self, node: Node, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape that a node makes of another; None where it is not known."""
        if node.kind == "Flatten":
            axis = node.attributes.get("axis", 1) % (len(shape) + 1)
            return (math.prod(shape[:axis]), math.prod(shape[axis:]))
        given = self._argument(node, 1, "shape" if node.kind == "Reshape" else "axes")
        if node.kind == "Reshape":
            if given is None:
                return None
            keep = not node.attributes.get("allowzero", 0)
            sizes = [
                shape[i] if size == 0 and keep and i < len(shape) else int(size)
                for i, size in enumerate(given)
            ]
            rest = math.prod(size for size in sizes if size != -1)
            if sizes.count(-1) > 1 or rest <= 0:
                return None
            sizes = [math.prod(shape) // rest if size == -1 else size for size in sizes]
            return tuple(sizes) if math.prod(sizes) == math.prod(shape) else None
        if node.kind == "Squeeze":
            axes = range(1, len(shape)) if given is None else given
            dropped = {int(a) % len(shape) for a in axes if shape[int(a) % len(shape)] == 1}
            return tuple(size for axis, size in enumerate(shape) if axis not in dropped)
        if given is None:
            return None
        rank = len(shape) + len(given)
        added = {int(axis) % rank for axis in given}
        kept = iter(shape)
        return tuple(1 if axis in added else next(kept) for axis in range(rank))

    def _conv(self, node: Node, view: _View) -> bool:
        kernel, bias = self._argument(node, 1), self._argument(node, 2)
        missing_bias = len(node.inputs) > 2 and bool(node.inputs[2]) and bias is None
        if kernel is None or kernel.ndim != 4 or view.axes != _NCHW or missing_bias:
            return False
        attributes = node.attributes
        size, sizes = kernel.shape[2:], self.shapes[view.value]
        strides = tuple(attributes.get("strides", (1, 1)))
        if set(attributes.get("dilations", (1, 1))) != {1} or strides[0] != strides[1]:
            return False
        pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
        auto = attributes.get("auto_pad", b"NOTSET")
        if auto in (b"SAME_UPPER", b"SAME_LOWER"):
            if strides[0] != 1 or size[0] % 2 == 0 or size[1] % 2 == 0:
                return False
            pads = ((size[0] - 1) // 2, (size[1] - 1) // 2) * 2
        if pads[:2] != pads[2:]:
            return False
        padding = (pads[0] + view.border[0], pads[1] + view.border[1])
        groups = attributes.get("group", 1)
        if kernel.shape[1] * groups != sizes[1] or padding[0] != padding[1]:
            return False
        spatial = [
            (sizes[axis + 2] + 2 * padding[axis] - size[axis]) // strides[axis] + 1
            for axis in range(2)
        ]
        return min(spatial) > 0 and self._step(
            "Conv",
            node,
            [view],
            shape=(sizes[0], kernel.shape[0], *spatial),
            kernel=kernel,
            bias=bias,
            stride=strides[0],
            padding=padding[0],
            groups=groups,
        )

    def _linear(self, node: Node, view: _View) -> bool:
        kernel, bias = self._product(node)
        if kernel is None or view.shape is None or len(view.shape) != 2:
            return False
        if kernel.shape[0] != view.shape[1]:
            return False
        shape = (view.shape[0], kernel.shape[1])
        order = view.flat or "chw"
        return self._step(
            "Linear", node, [view], shape=shape, axes=(0, 1), kernel=kernel, bias=bias, order=order
        )

    def _product(self, node: Node) -> tuple[Any, Any]:
        """The matrix that MatMul or Gemm multiplies with, and the bias; (None, None) if another."""
        kernel, bias = self._argument(node, 1), None
        attributes = node.attributes
        if kernel is None or kernel.ndim != 2 or attributes.get("transA", 0):
            return None, None
        if node.kind == "Gemm":
            kernel = kernel.T if attributes.get("transB", 0) else kernel
            kernel = kernel * np.float32(attributes.get("alpha", 1.0))
            if len(node.inputs) > 2 and node.inputs[2]:
                bias = self._argument(node, 2)
                if bias is None or bias.size not in (1, kernel.shape[1]):
                    return None, None
                bias = np.broadcast_to(bias.reshape(-1), kernel.shape[1])
                bias = bias * np.float32(attributes.get("beta", 1.0))
        return kernel, bias

    def _slice(self, node: Node, view: _View) -> bool:
        starts, ends = self._argument(node, 1, "starts"), self._argument(node, 2, "ends")
        axes, steps = self._argument(node, 3, "axes"), self._argument(node, 4, "steps")
        plain = view.plain_axes
        if starts is None or ends is None or plain is None or len(starts) != 1:
            return False
        axis = plain[int((axes if axes is not None else [0])[0])]
        start, end = int(starts[0]), int(ends[0])
        step = 1 if steps is None else int(steps[0])
        sizes = self.shapes[view.value]
        last = None if step < 0 and end < -sizes[axis] else end
        kept = range(sizes[axis])[start:last:step]
        if axis == 1 and list(kept) == list(range(sizes[1]))[::-1]:
            return self._step("Reverse", node, [view])
        if axis == 3 and step == 1 and len(kept):
            shape = (*sizes[:3], len(kept))
            return self._step("Crop", node, [view], shape=shape, left=kept[0])
        return False

    def _gather(self, node: Node, view: _View) -> bool:
        indices = self._argument(node, 1)
        if indices is None or (axes := view.plain_axes) is None:
            return False
        axis = axes[node.attributes.get("axis", 0)]
        count = self.shapes[view.value][1]
        backwards = list(range(count))[::-1]
        return axis == 1 and indices.tolist() == backwards and self._step("Reverse", node, [view])

    def _fold(self, node: Node) -> None:
        arrays = [self._constants[name] if name else None for name in node.inputs]
        try:
            _check_size(node, arrays)
            with np.errstate(all="ignore"):
                found = np.asarray(_FOLDED[node.kind](node.attributes, *arrays))
        except (ValueError, *_MISFITS) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"node {node.name}: expected constants that {node.kind} takes, found {reason}"
            ) from None
        self._constants[node.outputs[0]] = found


def _seen(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """A shape in a file's order of axes; those that the value lacks are 1."""
    if axes is None:
        return None
    return tuple(shape[axis] if axis < len(shape) else 1 for axis in axes)


def _constant(node: Node) -> np.ndarray:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if name in node.attributes:
            value = node.attributes[name]
            is_array = isinstance(value, np.ndarray)
            return (
                value if is_array else np.array(value, np.float32 if "float" in name else np.int64)
            )
    raise ValueError(f"node {node.name}: expected a constant of numbers, found another")


def _check_size(node: Node, arrays: Sequence[Any]) -> None:
    """A small file must not ask for all memory.

    Raises:
      ValueError: the result would be large.
    """
    shapes = [array.shape for array in arrays if array is not None]
    if node.kind in ("Add", "Sub", "Mul", "Div", "Pow", "Mod"):
        count = math.prod(np.broadcast_shapes(*shapes))
    elif node.kind == "Gather":
        count = math.prod(shapes[0]) // max(shapes[0][node.attributes.get("axis", 0)], 1)
        count *= math.prod(shapes[1])
    elif node.kind in ("Expand", "ConstantOfShape"):
        sizes = tuple(map(int, arrays[-1]))
        count = math.prod(np.broadcast_shapes(shapes[0], sizes) if node.kind == "Expand" else sizes)
    else:
        count = sum(map(math.prod, shapes))
    if count > _MOST_FOLDED:
        raise ValueError(f"{count:,} numbers")


def _unsqueeze(attributes: dict[str, Any], x: np.ndarray, axes: Any = None) -> np.ndarray:
    chosen = attributes["axes"] if axes is None else axes.tolist()
    return np.expand_dims(x, tuple(chosen))


def _squeeze(attributes: dict[str, Any], x: np.ndarray, axes: Any = None) -> np.ndarray:
    chosen = attributes.get("axes") if axes is None else axes.tolist()
    return np.squeeze(x, None if chosen is None else tuple(chosen))


def _fold_slice(
    attributes: dict[str, Any],
    x: np.ndarray,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
    steps: Any = None,
) -> np.ndarray:
    starts, ends, axes = (
        attributes.get(name) if value is None else value
        for name, value in (("starts", starts), ("ends", ends), ("axes", axes))
    )
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    cut = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cut[axis] = slice(int(start), int(end), int(step))
    return x[tuple(cut)]


def _cast(attributes: dict[str, Any], x: np.ndarray) -> np.ndarray:
    whole = attributes["to"] in (2, 3, 5, 6, 7, 9, 12, 13)  # of TensorProto's integers
    return x.astype(np.int64 if whole else np.float32)


_FOLDED: dict[str, Callable[..., Any]] = {
    "Identity": lambda attributes, x: x,
    "Cast": _cast,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": lambda attributes, x, shape: x.reshape([int(size) for size in shape]),
    "Flatten": lambda attributes, x: x.reshape(math.prod(x.shape[: attributes.get("axis", 1)]), -1),
    "Transpose": lambda attributes, x: np.transpose(x, attributes.get("perm")),
    "Slice": _fold_slice,
    "Gather": lambda attributes, x, i: np.take(x, i, attributes.get("axis", 0)),
    "Concat": lambda attributes, *xs: np.concatenate(xs, attributes["axis"]),
    "Shape": lambda attributes, x: np.array(x.shape, np.int64),
    "Expand": lambda attributes, x, shape: np.broadcast_to(
        x, np.broadcast_shapes(x.shape, tuple(map(int, shape)))
    ),
    "ConstantOfShape": lambda attributes, shape: np.full(
        tuple(map(int, shape)), attributes.get("value", np.zeros(1, np.float32))[0]
    ),
    "Add": lambda attributes, x, y: x + y,
    "Sub": lambda attributes, x, y: x - y,
    "Mul": lambda attributes, x, y: x * y,
    "Div": lambda attributes, x, y: x // y if x.dtype.kind == "i" else x / y,
    "Pow": lambda attributes, x, y: x**y,
    "Mod": lambda attributes, x, y: np.fmod(x, y) if attributes.get("fmod") else x % y,
    "Neg": lambda attributes, x: -x,
    "Sqrt": lambda attributes, x: np.sqrt(x),
    "Reciprocal": lambda attributes, x: 1 / x,
}
"""What is computed of constants alone, by operator."""
