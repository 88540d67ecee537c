"""An ONNX file in int8: quantised on real faces, and refused where it costs too much."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from sphereface_jax._console import counting, say
from sphereface_jax.commands.weight_options import ExportOptions
from sphereface_jax.data.finder import find_images_below
from sphereface_jax.data.images import read_image
from sphereface_jax.data.lfw_list import find_images, read_pairs
from sphereface_jax.evaluation.pairs import unit_rows
from sphereface_jax.evaluation.verification import lfw_authors
from sphereface_jax.tasks.pair_list import number_pairs

_CALIBRATION_IMAGES = 256
_BATCH = 32


class OnnxNetwork:
    """Embeds image files by an ONNX file of `onnx_bytes`, in onnxruntime.

    Args:
      content: the file.

    Raises:
      FileNotFoundError: onnxruntime is not installed.
    """

    def __init__(self, content: bytes):
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise FileNotFoundError(
                '--int8 needs the package onnxruntime; `pip install ".[onnx]"` in the folder of '
                "this project brings it"
            ) from None
        self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (wanted,) = self._session.get_inputs()
        self.input = wanted.name
        self._takes_pixels = wanted.type == "tensor(uint8)"
        self._side = wanted.shape[2]

    def batches(self, paths: Sequence[Path], *, mirror: bool = False) -> Iterator[np.ndarray]:
        """What the file takes, a few images at a time.

        Args:
          paths: of aligned faces.
          mirror: whether to take the mirror images.

        Yields:
          uint8 [B, H, W, 3] or float32 [B, 3, H, W], as the file asks.

        Raises:
          ValueError: an image cannot be read, or has another size.
        """
        for start in range(0, len(paths), _BATCH):
            yield self._prepared(
                [self._face(path) for path in paths[start : start + _BATCH]], mirror
            )

    def embed(
        self,
        paths: Sequence[Path],
        *,
        mirror: bool = False,
        advance: Callable[[int], None] = lambda count: None,
    ) -> np.ndarray:
        """Embeds images, or their mirror images.

        Args:
          paths: of N aligned faces.
          mirror: whether to take the mirror images.
          advance: called with the number of images done since the last call.

        Returns:
          Embeddings [N, D], as the file gives them.

        Raises:
          ValueError: as `batches`.
        """
        found = []
        for batch in self.batches(paths, mirror=mirror):
            found.append(self._session.run(None, {self.input: batch})[0])
            advance(len(batch))
        return np.concatenate(found)

    def _face(self, path: Path) -> np.ndarray:
        face = read_image(path)
        if face.shape[:2] != (self._side, self._side):
            raise ValueError(
                f"{path}: expected an aligned face of {self._side}×{self._side}, got "
                f"{face.shape[0]}×{face.shape[1]}; `sphereface align` cuts them"
            )
        return face

    def _prepared(self, faces: list[np.ndarray], mirror: bool) -> np.ndarray:
        pixels = np.stack(faces)[:, :, :: -1 if mirror else 1]
        if self._takes_pixels:
            return np.ascontiguousarray(pixels)
        scaled = (pixels.astype(np.float32) - 127.5) / 127.5
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def int8_bytes(content: bytes, options: ExportOptions, *, console: Console) -> bytes:
    """Returns an ONNX file with weights and activations in int8, and says what that costs.

    The ranges of the activations are those of at most 256 pictures, spread over the folder.

    Args:
      content: the float file.
      options: where the pictures are, and how much may be lost.
      console: where to print how the quantised network compares.

    Returns:
      The quantised file.

    Raises:
      FileNotFoundError: onnxruntime, the folder or a picture is missing.
      ValueError: no folder was named, a picture has another size, or the accuracy falls too far.
    """
    if options.calibrate_on is None:
        raise ValueError("--int8: expected --calibrate-on DIR, a folder of aligned faces, got none")
    if (options.pairs is None) != (options.images is None):
        raise ValueError("--pairs, --images: expected both or neither")
    paths = find_images_below(options.calibrate_on).paths
    chosen = np.unique(np.linspace(0, len(paths) - 1, _CALIBRATION_IMAGES).astype(int))
    calibration = [paths[place] for place in chosen.tolist()]
    quantised = _quantise(content, calibration)
    both = OnnxNetwork(content), OnnxNetwork(quantised)
    with counting(console, "embedding in float and int8", "images", 2 * len(calibration)) as count:
        before, after = (unit_rows(each.embed(calibration, advance=count)) for each in both)
    cosines = np.einsum("nd,nd->n", before, after)
    say(
        console,
        f"int8, calibrated on {len(calibration)} of {len(paths):,} pictures of "
        f"{options.calibrate_on}: cosine to float {cosines.mean():.4f} in the mean, "
        f"{cosines.min():.4f} at least",
    )
    if options.pairs is not None and options.images is not None:
        _check_loss(both, options, console)
    return quantised


def _check_loss(
    both: tuple[OnnxNetwork, OnnxNetwork], options: ExportOptions, console: Console
) -> None:
    assert options.pairs is not None
    assert options.images is not None
    named = read_pairs(options.pairs)
    found, missing = find_images(named.names, options.images)
    if missing:
        raise FileNotFoundError(
            f"{options.images}: expected the {len(named.names):,} images of {options.pairs}, "
            f"{len(missing):,} are missing ({missing[0]}, ...)"
        )
    pairs, paths, accuracies = number_pairs(named), list(found.values()), []
    with counting(console, options.pairs.name, "images", 4 * len(paths)) as count:
        for each in both:
            plain = each.embed(paths, advance=count)
            mirrored = each.embed(paths, mirror=True, advance=count)
            result = lfw_authors(plain, pairs, mirrored=mirrored)
            accuracies.append(result.accuracy_10_fold)
    before, after = accuracies
    say(console, f"{options.pairs.name} by lfw_authors: float {before:.2%}, int8 {after:.2%}")
    if not 100 * (before - after) <= options.most_loss:  # NaN bears no loss
        raise ValueError(
            f"--int8: expected a loss of at most {options.most_loss:g} points on "
            f"{options.pairs.name}, found {100 * (before - after):.2f}; calibrate on faces more "
            "like those, or allow more by --most-loss"
        )


def _quantise(content: bytes, calibration: list[Path]) -> bytes:
    network = OnnxNetwork(content)
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = network.batches(calibration)

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(batches, None)
            return None if batch is None else {network.input: batch}

    with tempfile.TemporaryDirectory() as folder:
        given, prepared, made = (
            str(Path(folder) / f"{stage}.onnx") for stage in ("float", "prepared", "int8")
        )
        Path(given).write_bytes(content)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            made,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return Path(made).read_bytes()
