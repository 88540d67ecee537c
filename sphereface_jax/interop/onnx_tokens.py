"""An ONNX graph of a vision transformer in few terms: `interop.onnx_chart`, with tokens.

After the convolution that makes tokens, files reshape, transpose, split and slice, each in its own
order, to bring queries, keys and values together. All of that is a matter of strides: an axis of
the file is a row of `Part`, each a strided piece of one axis of a value. So these nodes leave no
step; a step's views say which parts of values it reads and in which order. The further terms:

    Shift (a constant a token and channel), LayerNorm, MatMul (of two values), Softmax.

Axes of a value are n (images), t (tokens) and c (channels); what MatMul makes has those of what it
multiplies, with a prime where the name is taken.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from sphereface_jax.interop.onnx_chart import Builder, Step
from sphereface_jax.interop.onnx_file import Node

_ARITHMETIC = ("Add", "Sub", "Mul", "Div")


class Part(NamedTuple):
    """`size` places along an axis of a value, `stride` apart."""

    axis: str
    stride: int
    size: int


Axis = tuple[Part, ...]


@dataclass(frozen=True)
class View:
    """How the file sees a value.

    Attributes:
      value: the value.
      axes: of the file, each by its parts, the slowest first.
      starts: first places along axes of the value, where that is not 0.
      scale: what the value is multiplied with.
    """

    value: str
    axes: tuple[Axis, ...]
    starts: dict[str, int] = field(default_factory=dict)
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes that the file sees."""
        return tuple(math.prod(part.size for part in axis) for axis in self.axes)


def joined(*parts: Part) -> Axis:
    """An axis of these parts, with those made one that lie as one does."""
    axis: list[Part] = []
    for part in parts:
        last = axis[-1] if axis else None
        if last and last.axis == part.axis and last.stride == part.stride * part.size:
            axis[-1] = Part(part.axis, part.stride, last.size * part.size)
        elif part.size > 1:
            axis.append(part)
    return tuple(axis)


def whole(axis: str, size: int) -> Axis:
    """All of an axis of a value.

    Args:
      axis: its name.
      size: how many places it has.

    Returns:
      The axis, of one part.
    """
    return joined(Part(axis, 1, size))


def _reshaped(axes: Sequence[Axis], sizes: Sequence[int]) -> tuple[Axis, ...] | None:
    """Axes of other sizes over the same parts; None where a part would have to be cut unevenly."""
    rest = [part for axis in axes for part in axis][::-1]
    made = []
    for size in sizes:
        axis = []
        while size > 1:
            if not rest:
                return None
            part = rest.pop()
            if size % part.size == 0:
                axis.append(part)
                size //= part.size
            elif part.size % size == 0:
                inner = part.size // size
                axis.append(Part(part.axis, part.stride * inner, size))
                rest.append(Part(part.axis, part.stride, inner))
                size = 1
            else:
                return None
        made.append(joined(*axis))
    return tuple(made)


def _cut(view: View, place: int, first: int, count: int) -> View | None:
    """Some places of an axis of the file, one after another; None where parts do not allow it."""
    axis, size = view.axes[place], view.shape[place]
    if not 0 <= first < first + count <= size:
        return None
    if count == size:
        return view
    if len(axis) != 1:
        return None
    (part,) = axis
    start = view.starts.get(part.axis, 0) + first * part.stride
    axes = (*view.axes[:place], joined(part._replace(size=count)), *view.axes[place + 1 :])
    return replace(view, axes=axes, starts=view.starts | {part.axis: start})


def _makes_patches(step: Step) -> bool:
    if step.kind != "Conv":
        return False
    _, _, *sizes = step.data["kernel"].shape
    return sizes[0] > 1 and set(sizes) == {step.data["stride"]} and step.data["padding"] == 0


class TokenBuilder(Builder):
    """Steps under way, of images and of the tokens that a convolution makes of them."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._tokens: dict[str, View] = {}
        self._sizes: dict[str, dict[str, int]] = {}  # of the axes of values
        self._makers: dict[str, Step] = {}

    def add(self, node: Node) -> None:
        """Turns a node into constants, a view of a value, or a step."""
        names = [name for name in node.inputs if name and name not in self._constants]
        views = [self._tokens[name] for name in names if name in self._tokens]
        if views and len(views) == len(names) and self._of_tokens(node, views):
            return
        super().add(node)
        last = self.steps[-1] if self.steps else None
        if node.kind == "Conv" and last is not None and _makes_patches(last):
            batch, channels, height, width = self.shapes[last.output]
            columns = whole("t", width)
            rows = joined(Part("t", width, height))
            self._make(last, (whole("n", batch), whole("c", channels), rows, columns))

    def _of_tokens(self, node: Node, views: Sequence[View]) -> bool:
        """Whether it was a node that reads tokens in a way that is known."""
        view, kind = views[0], node.kind
        if len(views) == 2:
            if kind == "MatMul":
                return self._multiplied(node, *views)
            return kind in _ARITHMETIC and self._elementwise(node, *views)
        if kind in ("Identity", "Dropout", "Cast"):
            return self._see(node, view)
        if kind == "Shape":
            start, end = node.attributes.get("start", 0), node.attributes.get("end")
            self._constants[node.outputs[0]] = np.array(view.shape, np.int64)[start:end]
            return True
        if kind in _ARITHMETIC:
            return self._with_constant(node, view)
        if node.inputs[0] in self._constants:
            return False
        if kind in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
            sizes = self._reshaped(node, view.shape)
            axes = None if sizes is None else _reshaped(view.axes, sizes)
            return axes is not None and self._see(node, replace(view, axes=axes))
        of_one: dict[str, Callable[[Node, View], bool]] = {
            "Transpose": self._permuted,
            "Slice": self._sliced,
            "Split": self._split,
            "Gather": self._gathered,
            "MatMul": self._dense,
            "Gemm": self._dense,
            "BatchNormalization": self._batch_norm,
            "LayerNormalization": self._layer_norm,
            "Softmax": self._softmax,
            "ReduceMean": self._mean,
            "Pow": self._tracked,
            "Sqrt": self._tracked,
            "Reciprocal": self._tracked,
            "Relu": self._clipped,
            "Clip": self._clipped,
        }
        return kind in of_one and of_one[kind](node, view)

    def _see(self, node: Node, view: View | None, place: int = 0) -> bool:
        if view is None:
            return False
        self._tokens[node.outputs[place]] = view
        self._hide(node.outputs[place], view.value)
        return True

    def _make(self, step: Step, axes: tuple[Axis, ...]) -> bool:
        """Gives a step's value the axes of the parts that the file sees it with."""
        sizes: dict[str, int] = {"n": 1, "t": 1, "c": 1}
        for part in (part for axis in axes for part in axis):
            sizes[part.axis] = sizes.get(part.axis, 1) * part.size
        out = step.output
        self._makers[out], self._sizes[out] = step, sizes
        self.shapes.setdefault(out, tuple(sizes[axis] for axis in "ntc"))
        self._tokens[out] = View(out, axes)
        self._hide(out, out)
        return True

    def _token_step(
        self,
        kind: str,
        node: Node,
        views: Sequence[View],
        axes: tuple[Axis, ...] | None = None,
        **data: Any,
    ) -> bool:
        inputs, data = tuple(view.value for view in views), {"views": views, **data}
        self.steps.append(Step(kind, node.name, inputs, node.outputs[0], data))
        return self._make(self.steps[-1], views[0].axes if axes is None else axes)

    def _is_whole(self, view: View, *, scaled: bool = False) -> bool:
        is_all = math.prod(view.shape) == math.prod(self._sizes[view.value].values())
        return is_all and not any(view.starts.values()) and (scaled or view.scale == 1)

    def _is_channels(self, view: View) -> bool:
        """Whether the file's last axis is all channels, and the others all the rest."""
        every = whole("c", self._sizes[view.value]["c"])
        return self._is_whole(view) and bool(view.axes) and view.axes[-1] == every

    # What only says how a value lies.

    def _permuted(self, node: Node, view: View) -> bool:
        order = node.attributes.get("perm", range(len(view.axes))[::-1])
        return self._see(node, replace(view, axes=tuple(view.axes[axis] for axis in order)))

    def _sliced(self, node: Node, view: View) -> bool:
        starts, ends, axes, steps = (
            self._argument(node, place, name)
            for place, name in enumerate(("starts", "ends", "axes", "steps"), 1)
        )
        if starts is None or ends is None or (steps is not None and set(steps) != {1}):
            return False
        found: View | None = view
        axes = range(len(starts)) if axes is None else axes
        for start, end, axis in zip(starts, ends, axes, strict=True):
            kept = range(view.shape[axis])[int(start) : int(end)]
            if found is None or not kept:
                return False
            found = _cut(found, int(axis) % len(view.axes), kept[0], len(kept))
        return self._see(node, found)

    def _split(self, node: Node, view: View) -> bool:
        axis, count = node.attributes.get("axis", 0) % len(view.axes), len(node.outputs)
        sizes = self._argument(node, 1, "split")
        if sizes is None:
            sizes = [view.shape[axis] // count] * count
        if sum(sizes) != view.shape[axis]:
            return False
        ends = np.cumsum(sizes)
        cuts = [_cut(view, axis, int(e - s), int(s)) for s, e in zip(sizes, ends, strict=True)]
        return all(self._see(node, cut, place) for place, cut in enumerate(cuts))

    def _gathered(self, node: Node, view: View) -> bool:
        indices = self._argument(node, 1)
        axis = node.attributes.get("axis", 0) % len(view.axes)
        if indices.size != 1 or indices.ndim > 1:
            return False
        found = _cut(view, axis, int(indices.reshape(())) % view.shape[axis], 1)
        if found is not None and indices.ndim == 0:
            found = replace(found, axes=(*found.axes[:axis], *found.axes[axis + 1 :]))
        return self._see(node, found)

    # What computes.

    def _dense(self, node: Node, view: View) -> bool:
        kernel, bias = self._product(node)
        if kernel is None or kernel.shape[0] != view.shape[-1] or not self._is_whole(view):
            return False
        kept = {part.axis for axis in view.axes[:-1] for part in axis}
        if kept & {"c", *(part.axis for part in view.axes[-1])}:
            return False
        axes = (*view.axes[:-1], whole("c", kernel.shape[1]))
        reads = view.axes[-1]
        return self._token_step("Linear", node, [view], axes, kernel=kernel, bias=bias, reads=reads)

    def _multiplied(self, node: Node, a: View, b: View) -> bool:
        def counts(view: View) -> list[list[int]]:
            return [[part.size for part in axis] for axis in view.axes[:-2]]

        rank = len(a.axes)
        if rank < 2 or rank != len(b.axes) or counts(a) != counts(b):
            return False
        if a.shape[-1] != b.shape[-2]:
            return False
        taken: set[str] = set()
        axes = []
        for axis in (*a.axes[:-1], b.axes[-1]):
            parts = []
            for part in axis:
                name = part.axis
                while name in taken:
                    name += "'"
                taken.add(name)
                parts.append(Part(name, 1, part.size))
            axes.append(joined(*parts))
        return self._token_step("MatMul", node, [a, b], tuple(axes))

    def _softmax(self, node: Node, view: View) -> bool:
        is_last = node.attributes.get("axis") in (-1, len(view.axes) - 1)
        return (
            is_last
            and self._is_whole(view, scaled=True)
            and self._token_step("Softmax", node, [view])
        )

    def _batch_norm(self, node: Node, view: View) -> bool:
        numbers = self._statistics(node, view.shape[-1])
        fits = bool(numbers) and len(view.axes) == 2 and self._is_channels(view)
        return fits and self._token_step("Norm", node, [view], **numbers)

    def _clipped(self, node: Node, view: View) -> bool:
        kind = self._clip_kind(node)
        return bool(kind) and self._is_whole(view) and self._token_step(kind, node, [view])

    def _with_constant(self, node: Node, view: View) -> bool:
        (name,) = (name for name in node.inputs if name in self._constants)
        array, is_first = self._constants[name], node.inputs[0] != name
        if array.ndim > len(view.axes):
            return False
        kind, one = node.kind, np.ones(view.shape[-1])
        if kind in ("Mul", "Div") and array.size == 1:
            number = float(array.reshape(()))
            if kind == "Div" and (number == 0 or not is_first):
                return False
            number = number if kind == "Mul" else 1 / number
            return self._see(node, replace(view, scale=view.scale * number))
        if kind == "Div" or (kind == "Sub" and not is_first) or not self._is_whole(view):
            return False
        array = np.asarray(array, np.float64)
        if array.size == 1 or (
            array.size == array.shape[-1] == len(one) and self._is_channels(view)
        ):
            numbers = one * array.reshape(-1)
            numbers = {
                "Mul": {"scale": numbers, "shift": 0 * one},
                "Add": {"scale": one, "shift": numbers},
                "Sub": {"scale": one, "shift": -numbers},
            }[kind]
            return self._token_step("Affine", node, [view], **numbers)
        sizes = self._sizes[view.value]
        tokens = (whole("t", sizes["t"]), whole("c", sizes["c"]))
        fits = kind == "Add" and view.axes[1:] == tokens and array.shape[-2:] == view.shape[1:]
        return (
            fits
            and array.size == math.prod(view.shape[1:])
            and self._token_step("Shift", node, [view], array=array.reshape(view.shape[1:]))
        )

    def _elementwise(self, node: Node, a: View, b: View) -> bool:
        axes = tuple(x or y for x, y in zip(a.axes, b.axes, strict=False))
        fits = all(x == y or not x or not y for x, y in zip(a.axes, b.axes, strict=False))
        if not fits or len(a.axes) != len(b.axes) or not (self._is_whole(a) and self._is_whole(b)):
            return False
        if node.kind == "Add" and a.axes == b.axes:
            return self._token_step("Add", node, [a, b])
        inverse = self._makers.get(b.value)
        if node.kind == "Div":
            found = self._normalised(a.value, b.value)
        elif node.kind == "Mul" and inverse is not None and inverse.kind == "Reciprocal":
            found = self._normalised(a.value, inverse.inputs[0])
        else:
            found = None
        if found is None:
            return self._followed(node, [a, b], axes)
        x, epsilon = found
        one = np.ones(a.shape[-1])
        numbers: dict[str, Any] = {"scale": one, "shift": 0 * one, "epsilon": epsilon}
        return self._token_step("LayerNorm", node, [View(x, axes)], **numbers)

    def _normalised(self, centred: str, root: str) -> tuple[str, float] | None:
        """The value and the epsilon of which `centred` by `root` is the normalisation, if so."""
        chain, value = [], root
        for kind in ("Sqrt", "Affine", "ReduceMean"):
            step = self._makers.get(value)
            if step is None or step.kind != kind:
                return None
            chain.append(step)
            value = step.inputs[0]
        square, difference = self._makers.get(value), self._makers.get(centred)
        if square is None or difference is None or difference.kind != "Sub":
            return None
        x, mean = difference.inputs
        of_x = self._makers.get(mean)
        if of_x is None or (of_x.kind, of_x.inputs) != ("ReduceMean", (x,)):
            return None
        node = square.data["node"]
        exponent = self._constants.get(node.inputs[1]) if square.kind == "Pow" else 2
        is_square = square.kind in ("Pow", "Mul") and set(square.inputs) == {centred}
        if not is_square or np.any(exponent != 2) or np.any(chain[1].data["scale"] != 1):
            return None
        return x, float(chain[1].data["shift"][0])

    def _layer_norm(self, node: Node, view: View) -> bool:
        scale, shift = self._argument(node, 1), self._argument(node, 2)
        is_last = node.attributes.get("axis", -1) in (-1, len(view.axes) - 1)
        if scale is None or not is_last or not self._is_channels(view):
            return False
        shift = np.zeros_like(scale) if shift is None else shift
        if not scale.shape == shift.shape == view.shape[-1:]:
            return False
        numbers = {"scale": scale, "shift": shift}
        epsilon = node.attributes.get("epsilon", 1e-5)
        return self._token_step("LayerNorm", node, [view], **numbers, epsilon=epsilon)

    def _mean(self, node: Node, view: View) -> bool:
        axes = self._argument(node, 1, "axes")
        is_last = axes is not None and list(axes) in ([-1], [len(view.axes) - 1])
        keeps = node.attributes.get("keepdims", 1) == 1
        if not (is_last and keeps and self._is_channels(view)):
            return False
        return self._followed(node, [view], (*view.axes[:-1], ()))

    def _tracked(self, node: Node, view: View) -> bool:
        return self._is_whole(view) and self._followed(node, [view], view.axes)

    def _followed(self, node: Node, views: Sequence[View], axes: tuple[Axis, ...]) -> bool:
        """Leaves a node as it is, but knows how its result lies."""
        self._opaque(node, views)
        return self._make(self.steps[-1], axes)
