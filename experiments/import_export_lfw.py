"""Import, evaluate, export, evaluate again in onnxruntime: the same numbers on both sides.

A run's weights leave as safetensors, come back as a new run, are scored by `sphereface evaluate`,
leave as ONNX, and onnxruntime embeds the same images from pixels alone; its vectors take the same
protocol. The two accuracies must be equal, and each image's two vectors have a cosine within 1e-4
of 1; so must those of the package `insightface`, where it is installed and faces are 112×112.

    python -m experiments.import_export_lfw --run RUN --pairs lfw/pairs.txt --images lfw/aligned_112
    python -m experiments.import_export_lfw    # synthetic faces, under a minute

Needs the extra `onnx`. Results go to --out as JSON; nothing else stays.
"""

import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from rich.console import Console

from experiments.benchmark_lists import draw_people, write_pairs
from experiments.study import start
from sphereface_jax.commands.evaluate import evaluate
from sphereface_jax.commands.evaluate_options import EvaluateOptions
from sphereface_jax.commands.export_run import export_run
from sphereface_jax.commands.import_weights import import_weights
from sphereface_jax.commands.weight_options import ExportOptions, ImportOptions
from sphereface_jax.data.files import read_json, write_json
from sphereface_jax.data.finder import find_images_below
from sphereface_jax.data.images import read_image
from sphereface_jax.data.vectors import FaceVectors, save_vectors
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.training.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from sphereface_jax.training.loop import train
from sphereface_jax.training.run_folder import read_config

PROTOCOL = "lfw_authors"


def smoke_inputs(work: Path, console: Console) -> tuple[Path, Path, Path]:
    """Trains a tiny run and draws a few people: a run, a list of pairs, a folder."""
    size = (56, 48)
    config = TrainConfig(
        out=work / "trained",
        data=DataConfig(image_size=size, synthetic_identities=20, synthetic_views=8),
        model=ModelConfig(name="sfnet4_bn", embedding_dim=32, channels=(8, 16, 16, 32)),
        optimizer=OptimizerConfig(learning_rate=0.02),
        steps=20,
        batch_size=16,
    )
    train(config, console=console)
    draw_people(work / "faces", 20, 3, size, 1000)
    write_pairs(work / "pairs.txt", 1000)
    return config.out, work / "pairs.txt", work / "faces"


def reimport(run: Path, work: Path, console: Console) -> Path:
    """Writes a run's weights as safetensors and makes a new run of them."""
    config = read_config(run)
    weights, again = work / "weights.safetensors", work / "imported"
    export_run(ExportOptions(run, safetensors=weights), console=console)
    options = ImportOptions(
        weights,
        out=again,
        arch=config.model.name,
        embedding_dim=config.model.embedding_dim,
        channels=config.model.channels,
        color_order=config.data.color_order,
        image_size=config.data.image_size,
        pixel_mean=config.data.pixel_mean,
        pixel_divisor=config.data.pixel_divisor,
        license=config.data.license,
    )
    import_weights(options, console=console)
    return again


def open_session(network: Path) -> onnxruntime.InferenceSession:
    """A file of a network, to be run on the CPU."""
    settings = onnxruntime.SessionOptions()
    # Threads that spin while they wait take the processor from whatever else runs.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(network), settings, providers=["CPUExecutionProvider"])


def embed_with_onnxruntime(network: Path, paths: list[Path], size: tuple[int, int]) -> np.ndarray:
    """Returns embeddings of images and of their mirror images, [N, 2, D], by onnxruntime alone."""
    session = open_session(network)
    side = max(size)

    def square(image: np.ndarray) -> np.ndarray:
        """Grey columns where the network's crop is cut from; the file cuts them off again."""
        margin = (side - image.shape[1]) // 2
        return np.pad(image, ((0, 0), (margin, side - image.shape[1] - margin), (0, 0)))

    rows = []
    for first in range(0, len(paths), 64):
        faces = np.stack([square(read_image(path)) for path in paths[first : first + 64]])
        views = [
            session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(view)})[0]
            for view in (faces, faces[:, :, ::-1])
        ]
        rows.append(np.stack(views, axis=1))
    return np.concatenate(rows)


def embed_with_insightface(network: Path, paths: list[Path]) -> np.ndarray | None:
    """Returns embeddings [N, D] by the package insightface; None where it cannot be had."""
    try:
        from insightface.model_zoo import get_model
    except ImportError:
        return None
    model = get_model(str(network))
    if model is None:  # it knows faces of 112×112 and larger
        return None
    chunks = [paths[start : start + 64] for start in range(0, len(paths), 64)]
    return np.concatenate(
        [model.get_feat([read_image(path)[:, :, ::-1] for path in chunk]) for chunk in chunks]
    )


def cosine_distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the largest cosine distance between the rows of one and of the other."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(np.max(1 - (ours * theirs).sum(axis=1) / lengths))


def score(options: EvaluateOptions, out: Path, console: Console) -> dict:
    """Returns the protocol's numbers."""
    evaluate(
        dataclasses.replace(options, protocol=(PROTOCOL,), json=out, recalibrate=False),
        console=console,
    )
    return read_json(out)["protocols"][PROTOCOL]


def compare(run: Path, pairs: Path, images: Path, work: Path, console: Console) -> dict:
    """Takes a run through both worlds and returns how far they differ."""
    imported = reimport(run, work, console)
    here = score(
        EvaluateOptions(run=imported, images=images, pairs=pairs), work / "here.json", console
    )
    network = work / "network.onnx"
    export_run(ExportOptions(imported, onnx=network, onnx_input="uint8"), console=console)
    paths = find_images_below(images).paths
    there_both = embed_with_onnxruntime(network, paths, read_config(imported).data.image_size)
    ours = FaceEmbedder.from_run(imported).embed_paths(paths)
    names = [path.relative_to(images).as_posix() for path in paths]
    vectors = work / "onnx.npz"
    save_vectors(vectors, FaceVectors(names, there_both[:, 0], there_both[:, 1]))
    there = score(EvaluateOptions(embeddings=vectors, pairs=pairs), work / "there.json", console)
    for_insightface = work / "insightface.onnx"
    export_run(ExportOptions(imported, onnx=for_insightface), console=console)
    theirs = embed_with_insightface(for_insightface, paths)
    distances = {"onnxruntime": cosine_distance(ours.embeddings, there_both[:, 0])}
    if theirs is not None:
        distances["insightface"] = cosine_distance(ours.embeddings, theirs)
    return {
        "images": len(paths),
        "jax": here["accuracy_10_fold"],
        "onnxruntime": there["accuracy_10_fold"],
        "largest_cosine_distance": distances,
    }


@dataclasses.dataclass(frozen=True)
class Options:
    """What to compare."""

    run: Path | None = None
    """The run's folder; a tiny run on synthetic faces by default."""
    pairs: Path | None = None
    """Pairs in LFW's format."""
    images: Path | None = None
    """The folder of their images."""
    out: Path | None = None
    """Where to write the numbers as JSON."""


def main(options: Options) -> None:
    """Compares, prints and stores.

    Raises:
      ValueError: a run is named without pairs or images.
    """
    console = Console(soft_wrap=True)
    given = options.run, options.pairs, options.images
    if None in given and any(given):
        raise ValueError("expected --run, --pairs and --images together, or none of them")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        inputs = given if all(given) else smoke_inputs(work, console)
        numbers = compare(*inputs, work, console)
    print(json.dumps(numbers, indent=2))
    if options.out is not None:
        write_json(options.out, numbers)
    if numbers["jax"] != numbers["onnxruntime"]:
        raise SystemExit("the accuracies in onnxruntime and JAX differ")
    if max(numbers["largest_cosine_distance"].values()) > 1e-4:
        raise SystemExit("the vectors of another program and of JAX differ")


if __name__ == "__main__":
    start(main, Options, __doc__)
