"""How an ONNX file becomes what `sphereface import` writes: its network and its preprocessing."""

import dataclasses
from typing import Any

import numpy as np
from flax import nnx

from sphereface_jax.commands.weight_options import ImportOptions
from sphereface_jax.data.transforms import PerChannel
from sphereface_jax.interop.onnx_file import read_onnx
from sphereface_jax.interop.onnx_import import Recognised, recognise
from sphereface_jax.interop.sources import source_of
from sphereface_jax.interop.tensor_files import split_key

_LARGEST_SHARE = 2.0  # a divisor of pixels from 0 to 1 is below, one of pixels from 0 to 255 above


@dataclasses.dataclass(frozen=True)
class FoundNetwork:
    """What a file of weights holds.

    Attributes:
      options: those given, and what the file says itself.
      model: the network with its weights.
      tensors: how many the file has.
      facts: for import.json.
      remarks: for whoever imports it.
      class_weights: [C, D], of a file of tensors; None where there are none.
    """

    options: ImportOptions
    model: nnx.Module
    tensors: int
    facts: dict[str, Any]
    remarks: list[str]
    class_weights: np.ndarray | None = None


def read_network(options: ImportOptions) -> FoundNetwork:
    """Reads an ONNX file as a network of `MODELS`.

    Raises:
      FileNotFoundError: there is no such file, or the package `onnx` is not installed.
      ValueError: the file is damaged, or no such network; or an option contradicts it.
    """
    path, keys = split_key(options.weights)
    if keys:
        raise ValueError(f"{options.weights}: expected an ONNX file without a key, got {keys[0]}")
    file = read_onnx(path)
    try:
        found = recognise(file, arch=options.arch, image_size=options.image_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for name in ("embedding_dim", "image_size"):
        given, there = getattr(options, name), getattr(found, name)
        if given not in (None, there):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option}: expected {there}, as {path} has it, got {given}")
    try:
        mean, divisor, said = _pixels(options, found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    order = options.color_order or ("rgb" if found.own else source_of(found.arch).color_order)
    if found.front.reversed_channels:
        order = "rgb" if order == "bgr" else "bgr"
    filled = dataclasses.replace(
        options,
        arch=found.arch,
        channels=found.channels,
        embedding_dim=found.embedding_dim,
        image_size=found.image_size,
        folded=found.folded > 0,
        color_order=order,
        pixel_mean=mean,
        pixel_divisor=divisor,
    )
    facts = {
        "producer": file.producer,
        "normalisations_folded": found.folded,
        "normalisations_folded_here": found.kept,
        "unit_length_left_out": found.normalized,
        "pixels_prepared_in_file": found.front.changes_pixels,
    }
    return FoundNetwork(filled, found.model, len(file.constants), facts, [*_remarks(found), said])


def _remarks(found: Recognised) -> list[str]:
    remarks = []
    if found.folded:
        rest = f"; the other {found.kept} were folded here" if found.kept else ""
        remarks.append(
            f"{found.folded} normalisations had been folded into the layers before them{rest}: the "
            "network has biases in their place, which train"
        )
    if found.normalized:
        remarks.append("The file makes embeddings of unit length; the network's keep their lengths")
    return remarks


def _pixels(options: ImportOptions, found: Recognised) -> tuple[PerChannel, PerChannel, str]:
    """The network's mean and divisor, of what the file takes and what it does with it."""
    front, source = found.front, source_of(found.arch)
    if np.any(front.scale <= 0):
        raise ValueError(
            "preprocessing: expected pixels times positive numbers, found "
            f"{front.scale.min():g}; invert the file's input"
        )
    of_file: tuple[PerChannel, PerChannel]
    if found.takes_pixels:
        of_file, said = (0.0, 1.0), "The file prepares its pixels itself, from 0 to 255"
    elif found.own:
        of_file, said = (127.5, 127.5), "The file takes RGB as (x − 127.5) / 127.5"
    elif front.changes_pixels:
        of_pixels = np.max(1 / front.scale) > _LARGEST_SHARE
        of_file = (0.0, 1.0) if of_pixels else (0.0, 255.0)
        said = f"The file prepares its pixels itself, from 0 to {255 if of_pixels else 1}"
    else:
        of_file = source.pixel_mean, source.pixel_divisor
        said = f"The file does not say how pixels are prepared: as {source.repository} has it"
    if options.pixel_mean is not None or options.pixel_divisor is not None:
        said = "The file takes what --pixel-mean and --pixel-divisor say"
    mean, divisor = (
        np.asarray(default if given is None else given, np.float64)
        for given, default in zip((options.pixel_mean, options.pixel_divisor), of_file, strict=True)
    )
    mean = mean - front.shift * divisor / front.scale
    return _plain(mean), _plain(divisor / front.scale), said


def _plain(numbers: np.ndarray) -> PerChannel:
    """One number where the channels agree; without the last digits, which float32 has not."""
    first, second, third = (round(float(number), 5) for number in np.broadcast_to(numbers, 3))
    return first if first == second == third else (first, second, third)
