"""What `sphereface export` does: a run's network as a file that other programs read."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flax import nnx
from rich.console import Console

from sphereface_jax._console import say
from sphereface_jax.commands.quantize import int8_bytes
from sphereface_jax.commands.weight_options import ExportOptions
from sphereface_jax.compilation import run_arithmetic
from sphereface_jax.data.files import atomic_file, require_writable_folder
from sphereface_jax.data.transforms import PerChannel
from sphereface_jax.interop.onnx_export import onnx_bytes
from sphereface_jax.interop.safetensors_file import safetensors_bytes
from sphereface_jax.interop.stablehlo import stablehlo_bytes
from sphereface_jax.interop.torch_file import torch_file_bytes
from sphereface_jax.interop.weights import state_dict
from sphereface_jax.pretrained import preprocessing, save_pretrained
from sphereface_jax.training.run_folder import SavedRun, load_run

Maker = Callable[[SavedRun], bytes]


@run_arithmetic()
def export_run(options: ExportOptions, *, console: Console) -> None:
    """Writes the files that the options name; nothing is written unless all could be made.

    Args:
      options: the run, and which files to write where.
      console: where to print.

    Raises:
      FileNotFoundError: there is no run, or no folder to write into.
      ValueError: a file is there already, or none is named.
    """
    if options.int8 and options.onnx is None:
        raise ValueError("--int8: expected --onnx FILE, which it quantises, got none")
    outputs = _outputs(options, console)
    run = load_run(options.run)
    contents = {path: make(run) for path, make in outputs.items()}
    if options.hf is not None:
        save_pretrained(run, options.hf)
        say(console, f"{options.hf}: {run.config.model.name} of step {run.step}")
    for path, content in contents.items():
        with atomic_file(path) as file:
            file.write(content)
        say(
            console,
            f"{path}: {run.config.model.name} of step {run.step}, {len(content) / 1e6:.1f} MB",
        )


def _outputs(options: ExportOptions, console: Console) -> dict[Path, Maker]:
    """Returns what makes each file.

    Raises:
      ValueError: no file is named, or one is there already.
      FileNotFoundError: the folder of one is not there.
    """
    chosen: tuple[tuple[Path | None, Maker], ...] = (
        (options.safetensors, _safetensors),
        (options.torch, _torch),
        (options.onnx, functools.partial(_onnx, options, console)),
        (options.stablehlo, functools.partial(_stablehlo, options)),
    )
    outputs = {path: make for path, make in chosen if path is not None}
    if not outputs and options.hf is None:
        raise ValueError(
            "expected a file to write: --safetensors, --torch, --onnx, --stablehlo or --hf, got "
            "none"
        )
    for path in (*outputs, *([] if options.hf is None else [options.hf])):
        if path.exists():
            raise ValueError(
                f"{path}: expected a file that does not exist yet; delete it or name another"
            )
        require_writable_folder(path)
    return outputs


def _model(run: SavedRun) -> nnx.Module:
    return nnx.merge(run.graph, run.params, run.model_state)


def _safetensors(run: SavedRun) -> bytes:
    data = run.config.data
    metadata = {
        "architecture": run.config.model.name,
        "image_size": f"{data.image_size[0]}x{data.image_size[1]}",
        "color_order": data.color_order,
        "pixel_mean": _numbers(data.pixel_mean),
        "pixel_divisor": _numbers(data.pixel_divisor),
    }
    return safetensors_bytes(state_dict(_model(run), batches_tracked=run.step), metadata)


def _numbers(value: PerChannel) -> str:
    return " ".join(f"{number:g}" for number in np.ravel(value))


def _torch(run: SavedRun) -> bytes:
    return torch_file_bytes(state_dict(_model(run), batches_tracked=run.step))


def _onnx(options: ExportOptions, console: Console, run: SavedRun) -> bytes:
    content = onnx_bytes(
        _model(run),
        **preprocessing(run.config),
        input_kind=options.onnx_input,
        normalize=options.normalize,
        metadata={"architecture": run.config.model.name, "step": str(run.step)},
    )
    return int8_bytes(content, options, console=console) if options.int8 else content


def _stablehlo(options: ExportOptions, run: SavedRun) -> bytes:
    return stablehlo_bytes(_model(run), **preprocessing(run.config), normalize=options.normalize)
