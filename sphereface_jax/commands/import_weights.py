"""What `sphereface import` does: a file of weights from elsewhere becomes a run.

RUN/import.json says which file it was. The run has one checkpoint, of step 0; every command that
takes a run takes this one, and `sphereface train --init-from RUN` goes on from it.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from rich.console import Console

from sphereface_jax._console import say
from sphereface_jax.commands.import_onnx import FoundNetwork, read_network
from sphereface_jax.commands.weight_options import ImportOptions
from sphereface_jax.compilation import run_arithmetic
from sphereface_jax.data.files import atomic_folder, write_json
from sphereface_jax.interop.sources import OF_FAMILIES, Source, source_of
from sphereface_jax.interop.tensor_files import read_tensors, split_key, without_wrappers
from sphereface_jax.interop.weights import family_of, load_state_dict
from sphereface_jax.models import MODELS
from sphereface_jax.pretrained import WEIGHTS, pretrained_config
from sphereface_jax.training.checkpoint import Checkpoints
from sphereface_jax.training.config import (
    DataConfig,
    ModelConfig,
    TrainConfig,
    pixel_formula,
    to_dict,
)
from sphereface_jax.training.model_card import write_model_card
from sphereface_jax.training.objective import Objective
from sphereface_jax.training.state import make_model, padded_classes
from sphereface_jax.training.trainer import state_shapes

_PIXELS = ("image_size", "color_order", "pixel_mean", "pixel_divisor")
_MODEL = ("embedding_dim", "channels", "folded")


@run_arithmetic()
def import_weights(options: ImportOptions, *, console: Console) -> None:
    """Makes a run of a file of weights.

    Args:
      options: which, and as what.
      console: where to say what was read.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, asks for code, or does not fit the network; or there is
        something at `out` already.
    """
    if options.weights.is_dir():
        options = _of_folder(options)
    is_onnx = options.weights.suffix.lower() == ".onnx"
    if options.arch not in MODELS and (options.arch or not is_onnx):
        raise ValueError(f"--arch: expected one of {', '.join(MODELS)}, got {options.arch!r}")
    if options.out.exists():
        raise ValueError(
            f"{options.out}: expected a folder that does not exist yet for --out; delete it or "
            "name another"
        )
    found = read_network(options) if is_onnx else _read_network(options)
    options, model = found.options, found.model
    config = _config(options)
    class_weights = _class_weights(options, {}) if is_onnx else found.class_weights
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    described = _describe(options, found.tensors, class_weights) | found.facts
    _write_run(config, model, class_weights, described)
    classes = "no class weights" if class_weights is None else f"{len(class_weights):,} classes"
    height, width = config.data.image_size
    say(
        console,
        f"{options.out}: {options.arch}, {count / 1e6:.1f} M weights and {classes}, for faces of "
        f"{height}×{width} {config.data.color_order.upper()}, "
        f"{pixel_formula(config.data)}",
    )
    for remark in found.remarks:
        say(console, remark)


def _read_network(options: ImportOptions) -> FoundNetwork:
    """Reads a file of tensors as the network that the options name."""
    tensors, dropped = _read(options.weights)
    config = _config(_filled(options, source_of(options.arch)))
    model = make_model(config.model, config.data.image_size, rngs=None)
    family = family_of(model, tensors)
    options = _filled(options, source_of(options.arch, family))
    config = _config(options)
    class_weights = _class_weights(options, tensors)
    model = make_model(config.model, config.data.image_size, rngs=None)
    try:
        load_state_dict(model, tensors)
    except ValueError as error:
        raise ValueError(f"{options.weights}: as {options.arch}, {error}") from None
    repository = source_of(options.arch, family).repository
    remarks = [f"The names of the tensors were read without {', '.join(dropped)}"] * bool(dropped)
    if family in OF_FAMILIES:
        remarks.append(f"The names of the tensors are those of {repository}")
    return FoundNetwork(
        options=options,
        model=model,
        tensors=len(tensors),
        facts={"dropped_prefixes": dropped, "defined_in": repository},
        remarks=remarks,
        class_weights=class_weights,
    )


def _read(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the tensors of a file without what wraps their names, and what that was."""
    tensors = read_tensors(path)
    try:
        return without_wrappers(tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _filled(options: ImportOptions, source: Source) -> ImportOptions:
    """Takes what the options leave open from where the network comes from."""
    names = (*_PIXELS, "embedding_dim")
    open_ = {name: getattr(source, name) for name in names if getattr(options, name) is None}
    return dataclasses.replace(options, **open_)


def _of_folder(options: ImportOptions) -> ImportOptions:
    """Takes what a folder in Hugging Face's layout says of its network."""
    config, _ = pretrained_config(options.weights)
    said = {name: getattr(config.data, name) for name in _PIXELS}
    said |= {name: getattr(config.model, name) for name in _MODEL}
    weights = options.weights / WEIGHTS
    return dataclasses.replace(options, weights=weights, arch=config.model.name, **said)


def _config(options: ImportOptions) -> TrainConfig:
    """Returns the config of the run: its network and its preprocessing."""
    pixels, model = (
        {name: getattr(options, name) for name in names} for names in (_PIXELS, _MODEL)
    )
    return TrainConfig(
        out=options.out,
        data=DataConfig(train="unknown", license=options.license, **pixels),
        model=ModelConfig(name=options.arch, **model),
    )


def _describe(
    options: ImportOptions, tensors: int, class_weights: np.ndarray | None
) -> dict[str, Any]:
    file, keys = split_key(options.weights)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {
        "file": file.name,
        "key": "/".join(keys),
        "sha256": digest,
        "tensors": tensors,
        "architecture": options.arch,
        "defined_in": source_of(options.arch).repository,
        "class_weights": None if options.class_weights is None else options.class_weights.name,
        "num_classes": 0 if class_weights is None else len(class_weights),
    }


def _class_weights(options: ImportOptions, tensors: dict[str, np.ndarray]) -> np.ndarray | None:
    """Returns the class weights [C, D], and takes them out of the network's tensors."""
    own = source_of(options.arch).class_weights
    found = tensors.pop(own, None) if own is not None else None
    if options.class_weights is None:
        return None if found is None else _by_class(options, found, own or "", features_first=True)
    candidates, _ = _read(options.class_weights)
    matrices = {name: tensor for name, tensor in candidates.items() if tensor.ndim == 2}
    if len(matrices) != 1:
        raise ValueError(
            f"{options.class_weights}: expected one matrix of class weights, found "
            f"{', '.join(list(matrices)[:5]) or 'none'}; name it as FILE/KEY"
        )
    ((name, matrix),) = matrices.items()
    if split_key(options.class_weights)[0] == split_key(options.weights)[0]:
        tensors.pop(name, None)
    return _by_class(options, matrix, name, features_first=name == own)


def _by_class(
    options: ImportOptions, matrix: np.ndarray, name: str, *, features_first: bool
) -> np.ndarray:
    dim = options.embedding_dim
    if matrix.shape == (dim, dim) and not features_first:
        raise ValueError(
            f"--class-weights: {name} is {dim}×{dim}, and either side may be the classes; save it "
            "under the name of a larger or smaller matrix, or leave it out"
        )
    if dim not in matrix.shape or not np.issubdtype(matrix.dtype.type(0).dtype, np.floating):
        raise ValueError(
            f"--class-weights: expected {name} as floating [C, {dim}] or [{dim}, C], got "
            f"{matrix.dtype} {list(matrix.shape)}"
        )
    is_transposed = features_first or matrix.shape[1] != dim
    return (matrix.T if is_transposed else matrix).astype(np.float32)


def _write_run(
    config: TrainConfig,
    model: nnx.Module,
    class_weights: np.ndarray | None,
    imported: dict[str, Any],
) -> None:
    """Writes the run beside its place, then renames it."""
    num_classes = imported["num_classes"]
    objective = Objective(config.loss, max(num_classes, 1))
    _, shapes = state_shapes(config, objective, optax.identity())
    prototypes = np.zeros((padded_classes(max(num_classes, 1)), config.model.embedding_dim))
    if class_weights is not None:
        prototypes[:num_classes] = class_weights
    state = dataclasses.replace(
        shapes,
        step=jnp.zeros((), jnp.int32),
        params=nnx.state(model, nnx.Param),
        model_state=nnx.state(model, nnx.Not(nnx.Param)),
        prototypes=jnp.asarray(prototypes, jnp.float32),
        rng=jnp.zeros(shapes.rng.shape, shapes.rng.dtype),
    )
    progress = {"examples": 0, "num_classes": num_classes, "config": to_dict(config)}
    with atomic_folder(config.out) as folder:
        with Checkpoints(folder / "checkpoints", keep=1) as checkpoints:
            checkpoints.save(0, state, progress)
            checkpoints.wait()
        write_json(folder / "config.json", to_dict(config))
        write_json(folder / "import.json", imported)
    write_model_card(config.out)
