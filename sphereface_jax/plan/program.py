"""What a program does, read from the program: its floating-point operations, and what it sends.

Operations are counted in the jaxpr, before any compiler has touched it: two for each multiplication
of a matrix product or a convolution, and nothing for the rest. A scan's body counts as often as it
runs. Positions of a convolution that fall on padding, or on the zeros between the pixels of a
strided one's gradient, do not count.

What is sent is read from the compiled program, a collective in a loop as often as the loop runs.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


def count_flops(jaxpr: Any) -> dict[str, int]:
    """Counts a program's operations over all devices.

    Args:
      jaxpr: of `jax.make_jaxpr`, or of a traced function.

    Returns:
      Operations of matrix products, "dot", and of convolutions, "convolution".

    Example:
      >>> import jax, jax.numpy as jnp
      >>> count_flops(jax.make_jaxpr(jnp.dot)(jnp.ones((2, 3)), jnp.ones((3, 5))))
      {'dot': 60, 'convolution': 0}
    """
    total: Counter[str] = Counter(dot=0, convolution=0)
    _count(getattr(jaxpr, "jaxpr", jaxpr), 1, total)
    return dict(total)


def _count(jaxpr: Any, times: int, total: Counter[str]) -> None:
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            total["dot"] += times * _dot(eqn)
        elif name == "conv_general_dilated":
            total["convolution"] += times * _convolution(eqn)
        elif name == "cond":
            most: Counter[str] = Counter()
            for branch in eqn.params["branches"]:
                found: Counter[str] = Counter()
                _count(branch.jaxpr, times, found)
                most = max(most, found, key=lambda counter: counter.total())
            total.update(most)
        else:
            runs = times * _runs(eqn)
            for inner in _inner(eqn.params.values()):
                _count(inner, runs, total)


def _runs(eqn: Any) -> int:
    """How often, or on how many devices, what is inside an equation runs."""
    if eqn.primitive.name == "scan":
        return eqn.params["length"]
    if eqn.primitive.name == "shard_map":
        mesh = eqn.params["mesh"]
        return math.prod(mesh.shape[axis] for axis in eqn.params["newly_manual_axes"])
    return 1


def _inner(values: Any) -> Iterator[Any]:
    for value in values:
        if hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr") and hasattr(value.jaxpr, "eqns"):
            yield value.jaxpr
        elif isinstance(value, tuple | list):
            yield from _inner(value)


def _dot(eqn: Any) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution(eqn: Any) -> int:
    params = eqn.params
    numbers = params["dimension_numbers"]
    left, right = (invar.aval.shape for invar in eqn.invars)
    out = eqn.outvars[0].aval.shape
    products = out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * right[numbers.rhs_spec[1]]
    for i, (stride, pad, lhs, rhs) in enumerate(
        zip(
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            strict=True,
        )
    ):
        size, kernel, places = (
            shape[spec[2 + i]]
            for shape, spec in (
                (left, numbers.lhs_spec),
                (right, numbers.rhs_spec),
                (out, numbers.out_spec),
            )
        )
        at = np.arange(places)[:, None] * stride + np.arange(kernel)[None] * rhs - pad[0]
        products *= int(np.sum((at >= 0) & (at % lhs == 0) & (at // lhs < size)))
    return 2 * products


@dataclass(frozen=True)
class Collective:
    """A collective of a compiled program.

    Attributes:
      kind: such as "all-reduce".
      devices: how many take part.
      count: how often a step runs it.
      bytes: a device's part of the larger of what goes in and what comes out.
      sent: what each device of a ring sends for all of them.
    """

    kind: str
    devices: int
    count: int
    bytes: int
    sent: int


_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_GROUPS = re.compile(r"replica_groups=(mesh\[.*?\].*?\{.*?\}|\[[\d,]*\]|\{\{.*?\})")
_BITS = {"pred": 8, "token": 0}


def find_collectives(program: str) -> list[Collective]:
    """Returns the collectives of a compiled program, like ones together, by what they send.

    Args:
      program: the text of the compiled program, of one device.
    """
    found: Counter[tuple[str, int, int]] = Counter()
    pieces = set()
    for times, name, shape, operation, rest in instructions(program):
        kind = operation.removesuffix("-start")
        devices = _group_size(rest)
        if kind not in _KINDS or (devices < 2 and kind != "collective-permute"):
            continue
        size = _size(kind, shape, devices, starts=operation.endswith("-start"))
        if name.startswith(("fused_", "async_collective")):
            # A TPU cuts a collective into pieces, of one channel, and hides them in other fusions.
            channel = re.search(r"channel_id=\d+", rest)
            piece = kind, size, channel and channel[0]
            if piece in pieces:
                continue
            pieces.add(piece)
        if kind == "all-reduce" and "all-reduce-scatter" in name:  # a TPU's way to write it
            kind = "reduce-scatter"
        found[kind, devices, size] += times
    collectives = [
        Collective(kind, devices, count, size, count * _sent(kind, size, devices))
        for (kind, devices, size), count in found.items()
    ]
    return sorted(collectives, key=lambda collective: -collective.sent)


def _size(kind: str, shape: str, devices: int, *, starts: bool) -> int:
    """Bytes of the larger of what goes into a collective and what comes out."""
    sizes = [_bytes(part) for part in _arrays(shape)]
    if not starts or kind == "all-reduce":
        return sum(sizes) * (devices if kind == "reduce-scatter" else 1)
    if kind == "collective-permute":  # from, to, and two flags
        return sizes[1]
    half = len(sizes) // 2  # what goes in, then what comes out
    return max(sum(sizes[:half]), sum(sizes[half:]))


def _sent(kind: str, size: int, devices: int) -> int:
    if kind == "collective-permute":
        return size
    return int((2 if kind == "all-reduce" else 1) * size * (devices - 1) / devices)


def _group_size(rest: str) -> int:
    """How many devices take part, from one of the three ways in which XLA writes groups."""
    match = _GROUPS.search(rest)
    if match is None:
        return 0
    groups = match[1]
    if groups.startswith("mesh"):  # mesh['a'=4,'b'=2] {'a'}: of the axes, those along which
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", groups))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'(?!=)", groups))
    if groups.startswith("["):  # [4,2]: 4 groups of 2
        return int(groups[1:-1].split(",")[-1])
    return groups.count(",") + 1  # {{0,2,4,6}, of which this is the first


def _arrays(shape: str) -> list[tuple[str, str]]:
    return re.findall(r"([a-z]+\d*\w*)\[([\d,]*)\]", shape)


def array_bytes(shapes: str) -> int:
    """Returns the bytes of all arrays that a text names.

    Args:
      shapes: as a compiled program writes them.

    Returns:
      Their sum.

    Example:
      >>> array_bytes("(bf16[64,56]{1,0}, f32[10])")
      7208
    """
    return sum(_bytes(array) for array in _arrays(shapes))


def _bytes(array: tuple[str, str]) -> int:
    kind, sides = array
    bits = _BITS[kind] if kind in _BITS else int(re.sub(r"^[a-z]+(\d+).*", r"\1", kind))
    return bits * math.prod(int(side) for side in sides.split(",") if side) // 8


_CONSTANT = re.compile(r"%?([\w.\-]+) = s32\[\]\S* constant\((\d+)\)")
_LIMIT = re.compile(r"ROOT \S+ = pred\[\]\S* compare\(.*, (?:\S+ )?%?([\w.\-]+)\), direction=LT")


def instructions(program: str) -> Iterator[tuple[int, str, str, str, str]]:
    """Yields (times, computation, shape, operation, the rest of the line) of what a step runs.

    Computations that other instructions call are entered, a loop's body as often as it runs: as
    often as the compiler knows, or as its condition says (JAX counts from 0 by 1), else once.
    Reductions' own small functions are left out.
    """
    bodies: dict[str, list[tuple[str, str, str]]] = {}
    limits: dict[str, str] = {}
    constants = dict(_CONSTANT.findall(program))
    entry, current = "", ""
    for line in program.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            current = line.removeprefix("ENTRY ").split(" ")[0].lstrip("%")
            bodies[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif current and (match := _INSTRUCTION.match(line)):
            bodies[current].append((match[1], match[2], match[3]))
            if limit := _LIMIT.search(line):
                limits[current] = constants.get(limit[1], "1")

    def walk(name: str, times: int) -> Iterator[tuple[int, str, str, str, str]]:
        for shape, operation, rest in bodies.get(name, ()):
            yield times, name, shape, operation, rest
            runs = times
            if operation == "while":
                known = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
                condition = re.search(r"condition=%?([\w.\-]+)", rest)
                limit = limits.get(condition[1], "1") if condition else "1"
                runs *= int(known[1] if known else limit)
            for called in re.findall(r"(?:calls|body)=%?([\w.\-]+)", rest):
                yield from walk(called, runs)

    yield from walk(entry, 1)
