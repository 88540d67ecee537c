"""The options of `sphereface import` and `sphereface export`.

A light module, for the command line is read before anything heavy is imported.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class ImportOptions:
    """Which weights to read, and what is known about them."""

    weights: Positional[Path]
    """FILE, or FILE/KEY for a part of it, an ONNX file, or a folder of `sphereface export --hf`."""
    out: Path
    """Folder of the run; it must not exist yet."""
    arch: str = ""
    """The network, such as sphere20a, sfnet20_bn, iresnet50, mobilefacenet; a folder says its
    own, its sizes and its preprocessing, and an ONNX file is recognised."""
    class_weights: Path | None = None
    """FILE or FILE/KEY of the class weights, [C, D] or [D, C], to go on training with."""
    embedding_dim: int | None = None
    """Length of an embedding; by default that of the network's source, 512 for most."""
    channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Of the network's stages."""
    folded: bool = False
    """Biases in place of the normalisations after a layer, for weights that were exported from
    such a run; a folder and an ONNX file say it themselves."""
    color_order: Literal["bgr", "rgb"] | None = None
    """Of the pixels; by default that of the network's source."""
    image_size: tuple[int, int] | None = None
    """Height and width; by default those of the network's source."""
    pixel_mean: float | tuple[float, float, float] | None = None
    """Pixels become (x - mean) / divisor: one number, or one a channel in the network's colour
    order; by default that of the network's source. Of an ONNX file, what it takes."""
    pixel_divisor: float | tuple[float, float, float] | None = None
    """One number, or one a channel; by default that of the network's source."""
    license: str = ""
    """Of the faces that it was trained on, for the model card."""


@dataclass(frozen=True)
class ExportOptions:
    """Which files to write of a run; each must not exist yet."""

    run: Positional[Path]
    """Folder of the run."""
    safetensors: Path | None = None
    """The weights under their PyTorch names."""
    torch: Path | None = None
    """The same as a state dict for torch.load."""
    onnx: Path | None = None
    """An ONNX file, which takes RGB faces of any number at a time."""
    stablehlo: Path | None = None
    """An artifact for jax.export.deserialize."""
    hf: Path | None = None
    """A folder in Hugging Face's layout: config.json, model.safetensors, README.md."""
    onnx_input: Literal["float", "uint8"] = "float"
    """float [N, 3, H, H] as InsightFace's tools feed it, (x - 127.5) / 127.5 whatever the run's own
    preprocessing, or uint8 [N, H, H, 3]."""
    normalize: bool = False
    """Make the embeddings of ONNX and StableHLO unit length."""
    int8: bool = False
    """Quantise the ONNX file to int8, by onnxruntime, with the ranges of --calibrate-on."""
    calibrate_on: Path | None = None
    """A folder of aligned faces like those that the network will see, for --int8."""
    pairs: Path | None = None
    """A list in LFW's format, on which --int8 is scored before and after; needs --images."""
    images: Path | None = None
    """The folder of the images of --pairs."""
    most_loss: float = 0.5
    """Points of accuracy on --pairs that --int8 may cost; more, and nothing is written."""
