"""Public networks, imported: LFW beside onnxruntime on their own files, and exported again.

Each file becomes a run by `sphereface import`, which `sphereface evaluate` scores. onnxruntime runs
the file itself, and the ONNX file that `sphereface export` makes of the run; its vectors take the
same protocols. The accuracies must be equal to 0.05 points, and vectors have a cosine of 0.9999.

    python -m experiments.public_networks --networks DIR --pairs lfw/pairs.txt \
        --images lfw/aligned_112

DIR holds the files that NETWORKS names; those that are not there are left out. Needs the extra
`onnx`. An evaluation takes minutes; results go to --out as JSON, written after each network, and
those that are there already stay.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.import_export_lfw import cosine_distance, open_session
from experiments.pages import RESULTS, table
from experiments.study import start
from sphereface_jax.commands.evaluate import evaluate
from sphereface_jax.commands.evaluate_options import EvaluateOptions
from sphereface_jax.commands.export_run import export_run
from sphereface_jax.commands.import_weights import import_weights
from sphereface_jax.commands.weight_options import ExportOptions, ImportOptions
from sphereface_jax.data.files import read_json
from sphereface_jax.data.finder import find_images_below
from sphereface_jax.data.images import read_image
from sphereface_jax.data.vectors import FaceVectors, save_vectors
from sphereface_jax.embedder import FaceEmbedder

SIDES = ("here", "onnxruntime", "exported_again")
PROTOCOLS = ("lfw_authors", "lfw_insightface")
COMPARED = 1000  # faces whose vectors are compared
MOST_POINTS, LEAST_COSINE = 0.05, 0.9999


@dataclasses.dataclass(frozen=True)
class Network:
    """A file, and what its authors say of it.

    Attributes:
      mean: of its pixels, RGB.
      divisor: of its pixels.
      options: of the import.
      onnx: the ONNX file of the same network, for a state dict.
    """

    mean: tuple[float, ...]
    divisor: tuple[float, ...]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    onnx: str = ""


_IMAGENET = {
    "mean": (255 * 0.485, 255 * 0.456, 255 * 0.406),
    "divisor": (255 * 0.229, 255 * 0.224, 255 * 0.225),
}
NETWORKS = {
    "foamliu_mobilefacenet.onnx": Network(**_IMAGENET),
    "faceplugin_fr_feature.onnx": Network(
        (127.0,), (128.0,), {"pixel_mean": 127.0, "pixel_divisor": 128.0}
    ),
    "foamliu_mobilefacenet.pt": Network(
        **_IMAGENET,
        options={"arch": "mobilefacenet_foamliu"},
        onnx="foamliu_mobilefacenet.onnx",
    ),
}
"""By the name of the file."""


def embed_file(file: Path, paths: list[Path], mean: Any, divisor: Any) -> np.ndarray:
    """Returns embeddings of images and of their mirror images, [N, 2, D], by onnxruntime."""
    session = open_session(file)
    (given,) = session.get_inputs()
    size = 1 if given.shape[0] == 1 else 32
    rows = []
    for first in range(0, len(paths), size):
        faces = np.stack([read_image(path) for path in paths[first : first + size]])
        x = ((faces - np.array(mean)) / np.array(divisor)).astype(np.float32)
        x = x.transpose(0, 3, 1, 2)
        views = [session.run(None, {given.name: view})[0] for view in (x, x[..., ::-1])]
        rows.append(np.stack(views, axis=1))
    return np.concatenate(rows)


def score(options: EvaluateOptions, out: Path, console: Console) -> dict[str, float]:
    """Returns the accuracy by each protocol."""
    evaluate(dataclasses.replace(options, protocol=PROTOCOLS, json=out), console=console)
    protocols = read_json(out)["protocols"]
    return {name: protocols[name]["accuracy_10_fold"] for name in PROTOCOLS}


def scored_by_onnxruntime(
    file: Path, options: "Options", mean: Any, divisor: Any, work: Path, console: Console
) -> tuple[np.ndarray, dict[str, float], float]:
    """Returns the embeddings of a file, its accuracies, and the seconds that embedding took."""
    paths = find_images_below(options.images).paths
    begin = time.perf_counter()
    both = embed_file(file, paths, mean, divisor)
    seconds = time.perf_counter() - begin
    names = [path.relative_to(options.images).as_posix() for path in paths]
    vectors = work / f"{file.stem}.npz"
    save_vectors(vectors, FaceVectors(names, both[:, 0], both[:, 1]))
    found = score(
        EvaluateOptions(embeddings=vectors, pairs=options.pairs), work / "there.json", console
    )
    return both, found, seconds


def measure(name: str, options: "Options", work: Path, console: Console) -> dict[str, Any]:
    """Takes one network there and back."""
    network, run = NETWORKS[name], work / "run"
    import_weights(
        ImportOptions(options.networks / name, out=run, **network.options), console=console
    )
    begin = time.perf_counter()
    here = score(
        EvaluateOptions(run=run, images=options.images, pairs=options.pairs),
        work / "here.json",
        console,
    )
    seconds = {"here": time.perf_counter() - begin}
    again = work / "again.onnx"
    export_run(ExportOptions(run, onnx=again), console=console)
    original = options.networks / (network.onnx or name)
    theirs, there, seconds["onnxruntime"] = scored_by_onnxruntime(
        original, options, network.mean, network.divisor, work, console
    )
    ours_again, there_again, seconds["exported_again"] = scored_by_onnxruntime(
        again, options, 127.5, 127.5, work, console
    )
    paths = find_images_below(options.images).paths[:: max(1, len(theirs) // COMPARED)][:COMPARED]
    chosen = slice(None, None, max(1, len(theirs) // COMPARED))
    ours = FaceEmbedder.from_run(run).embed_paths(paths).embeddings
    return {
        "architecture": read_json(run / "config.json")["model"]["name"],
        "folded": read_json(run / "config.json")["model"]["folded"],
        "images": len(theirs),
        "here": here,
        "onnxruntime": there,
        "exported_again": there_again,
        "compared": len(ours),
        "least_cosine": 1 - cosine_distance(ours, theirs[chosen, 0][:COMPARED]),
        "least_cosine_exported_again": 1 - cosine_distance(ours, ours_again[chosen, 0][:COMPARED]),
        "seconds": seconds,
    }


def report(results: dict[str, Any]) -> str:
    """The results as a table."""
    rows = [
        [
            f"`{name}`",
            *(f"{100 * found[side][protocol]:.2f}" for protocol in PROTOCOLS for side in SIDES),
            f"{min(found['least_cosine'], found['least_cosine_exported_again']):.7f}",
        ]
        for name, found in results["networks"].items()
    ]
    words = ("here", "onnxruntime", "exported again")
    header = ["file", *(f"`{protocol}`, {word}" for protocol in PROTOCOLS for word in words)]
    return table([*header, "least cosine"], rows)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure."""

    networks: Path
    """The folder of the files."""
    pairs: Path
    """Pairs in LFW's format."""
    images: Path
    """The folder of their images, 112×112."""
    out: Path = RESULTS / "public_networks.json"
    """Where to write the numbers."""


def check(numbers: dict[str, Any]) -> list[str]:
    """Says what differs more than it may."""
    said = []
    for name, found in numbers.items():
        for protocol, accuracy in found["here"].items():
            for side in SIDES[1:]:
                if 100 * abs(found[side][protocol] - accuracy) > MOST_POINTS:
                    said.append(f"{name}: {protocol} differs from {side}")
        said += [
            f"{name}: {cosine} is {found[cosine]}"
            for cosine in ("least_cosine", "least_cosine_exported_again")
            if found[cosine] < LEAST_COSINE
        ]
    return said


def main(options: Options) -> None:
    """Measures, prints and stores.

    Raises:
      FileNotFoundError: none of the files is there.
    """
    console = Console(soft_wrap=True)
    names = [name for name in NETWORKS if (options.networks / name).is_file()]
    if not names:
        raise FileNotFoundError(f"{options.networks}: expected {', '.join(NETWORKS)}, found none")
    results: dict[str, Any] = {"machine": describe_machine(), "networks": {}}
    if options.out.exists():
        results = read_json(options.out)
    for name in names:
        if name in results["networks"]:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            results["networks"][name] = measure(name, options, Path(temporary), console)
        write_results(options.out, results)
    print(report(results))
    differing = check(results["networks"])
    if differing:
        raise SystemExit("; ".join(differing))


if __name__ == "__main__":
    start(main, Options, __doc__)
