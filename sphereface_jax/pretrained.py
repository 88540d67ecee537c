"""A trained network as a folder in Hugging Face's layout, and back; no code in it is run.

- `config.json`: the network and its preprocessing;
- `model.safetensors`: its weights, under the names of its PyTorch original;
- `README.md`: the run's model card, with front matter.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from sphereface_jax._checks import require
from sphereface_jax.data.files import atomic_folder, read_json, write_json
from sphereface_jax.data.text import existing_file
from sphereface_jax.interop.safetensors_file import read_safetensors, safetensors_bytes
from sphereface_jax.interop.weights import load_state_dict, state_dict
from sphereface_jax.training.config import DataConfig, ModelConfig, TrainConfig, from_dict, to_dict
from sphereface_jax.training.model_card import model_card
from sphereface_jax.training.run_folder import SavedRun
from sphereface_jax.training.state import make_model, padded_classes

MODEL_TYPE = "sphereface_jax"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_PREPROCESSING = ("image_size", "color_order", "pixel_mean", "pixel_divisor")
_LATER = ("pixel_mean",)  # a folder of an earlier version does not say it, and has the default
# Those that Hugging Face knows by these names; another is "other", with its text.
_LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-nc-4.0")
_USAGE = """
## How to use it

    from sphereface_jax.embedder import FaceEmbedder

    embedder = FaceEmbedder.from_pretrained("this folder")
    a, b = embedder.embed(["a.jpg", "b.jpg"])    # aligned faces
    cosine = a @ b
"""


def preprocessing(config: TrainConfig) -> dict[str, Any]:
    """Returns what a network wants of its pixels, by name: size, colour order, mean, divisor."""
    return {name: getattr(config.data, name) for name in _PREPROCESSING}


def save_pretrained(run: SavedRun, folder: Path) -> None:
    """Writes a run's network as a folder, whole or not at all.

    Args:
      run: the network.
      folder: to write; it must not exist yet.

    Raises:
      ValueError: it does.
    """
    require(not folder.exists(), str(folder), "a folder that does not exist yet", "one that does")
    license_ = run.config.data.license
    network = dataclasses.asdict(run.config.model) | preprocessing(run.config)
    front = {
        "library_name": MODEL_TYPE,
        "pipeline_tag": "image-feature-extraction",
        "tags": ["face-recognition", "angular-margin", "jax", run.config.model.name],
    }
    if license_:
        known = license_.lower() in _LICENSES
        front |= {"license": license_.lower()} if known else {"license": "other"}
        front |= {} if known else {"license_name": license_}
    # JSON is YAML too, and quotes what must be.
    lines = [f"{name}: {json.dumps(value)}" for name, value in front.items()]
    readme = "\n".join(["---", *lines, "---", "", model_card(run.path)]) + _USAGE
    model = nnx.merge(run.graph, run.params, run.model_state)
    tensors = state_dict(model, batches_tracked=run.step)
    with atomic_folder(folder) as temporary:
        (temporary / WEIGHTS).write_bytes(safetensors_bytes(tensors, {"format": "pt"}))
        (temporary / "README.md").write_text(readme, encoding="utf-8")
        write_json(temporary / CONFIG, {"model_type": MODEL_TYPE, "step": run.step} | network)


def pretrained_config(folder: Path) -> tuple[TrainConfig, int]:
    """Returns the config of a folder's network, with its preprocessing, and its step.

    Raises:
      FileNotFoundError: there is no config.json.
      ValueError: it is not one of this project's, or is damaged.
    """
    path = existing_file(folder / CONFIG, "the config of a folder of `sphereface export --hf`")
    values: Any = read_json(path)
    kind = values.pop("model_type", None) if isinstance(values, dict) else None
    require(kind == MODEL_TYPE, str(path), f'"model_type": "{MODEL_TYPE}"', repr(kind))
    step = values.pop("step", 0)
    require(isinstance(step, int) and step >= 0, f"{path}: step", "a step", repr(step))
    data = {name: values.pop(name) for name in _PREPROCESSING if name in values}
    missing = [name for name in _PREPROCESSING if name not in (*data, *_LATER)]
    require(not missing, str(path), f"the field {', '.join(missing)}", "none")
    config = TrainConfig(
        out=folder,
        data=from_dict(DataConfig, to_dict(DataConfig(train="unknown")) | data, where=str(path)),
        model=from_dict(ModelConfig, values, where=str(path)),
    )
    return config, step


def load_pretrained(folder: Path) -> SavedRun:
    """Reads a folder that `save_pretrained` or `sphereface export --hf` wrote.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: one is damaged, or the weights do not fit the network.
    """
    config, step = pretrained_config(folder)
    path = existing_file(folder / WEIGHTS, "the weights of a folder of `sphereface export --hf`")
    model = make_model(config.model, config.data.image_size, rngs=None)
    try:
        load_state_dict(model, read_safetensors(path))
    except ValueError as error:
        raise ValueError(f"{path}: as {config.model.name}, {error}") from None
    return SavedRun(
        path=folder,
        config=config,
        step=step,
        num_classes=0,
        graph=nnx.graphdef(model),
        params=nnx.state(model, nnx.Param),
        model_state=nnx.state(model, nnx.Not(nnx.Param)),
        prototypes=jnp.asarray(np.zeros((padded_classes(1), config.model.embedding_dim))),
    )
