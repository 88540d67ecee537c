"""Embedding images through FaceEmbedder against the bare forward pass.

    python -m experiments.benchmarks.embed --faces DIR

The bare forward pass is the least that any embedding must do: the compiled network on batches that
are decoded, cropped and on the device already, every batch full. FaceEmbedder does the rest: it
takes arrays, a folder of JPEG files or a verification pack, decodes, crops, orders the colours,
batches, pads the end, and brings the vectors back. One view is the image alone, two are the image
and its mirror image, as `sphereface embed` stores them. The contestants run in turn, so that a busy
machine is busy for all of them. A contestant's share is the median over the rounds of its rate by
that of the bare pass in the same round; its share of processor time is the same of images a second
of this process's work, which other processes disturb less and which does not see idle waiting.

The network is untrained, which makes no difference to its speed, and by default the smallest there
is, beside which everything else weighs most.
"""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import tyro
from flax import nnx

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.benchmarks.measure import rates
from experiments.pages import RESULTS
from sphereface_jax.data.finder import find_images_below
from sphereface_jax.data.images import encode_jpeg, read_bytes, read_image
from sphereface_jax.data.packs import read_pack, write_pack
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.embedding import embed
from sphereface_jax.interop.sources import source_of
from sphereface_jax.training.config import DataConfig, ModelConfig, TrainConfig
from sphereface_jax.training.input import face_transform
from sphereface_jax.training.run_folder import SavedRun
from sphereface_jax.training.state import make_model

BARE = {1: "forward", 2: "forward_two_views"}


def untrained(arch: str) -> SavedRun:
    """A network as it was initialised, in the form of a run."""
    source = source_of(arch)
    data = DataConfig(
        image_size=source.image_size,
        color_order=source.color_order,
        pixel_mean=source.pixel_mean,
        pixel_divisor=source.pixel_divisor,
    )
    config = TrainConfig(out=Path("unused"), data=data, model=ModelConfig(name=arch))
    model = make_model(config.model, data.image_size, rngs=nnx.Rngs(0))
    graph, params, model_state = nnx.split(model, nnx.Param, ...)
    return SavedRun(
        path=config.out,
        config=config,
        step=0,
        num_classes=0,
        graph=graph,
        params=params,
        model_state=model_state,
        prototypes=np.zeros((256, config.model.embedding_dim), np.float32),
    )


def bare_forward(run: SavedRun, images: np.ndarray, batch_size: int, views: int) -> Callable:
    """The compiled network on full batches that are on the device; as `embed_images` calls it."""
    transform = face_transform(run.config.data)
    cropped = np.stack([transform(image) for image in images])
    batches = [
        jax.device_put(cropped.take(range(start, start + batch_size), axis=0, mode="wrap"))
        for start in range(0, len(images), batch_size)
    ]
    apply = functools.partial(
        embed,
        run.graph,
        run.params,
        run.model_state,
        pixel_mean=run.config.data.pixel_mean,
        pixel_divisor=run.config.data.pixel_divisor,
        mirror=views == 2,
    )

    def forward() -> int:
        jax.block_until_ready([apply(batch) for batch in batches])
        return len(batches) * batch_size

    return forward


@contextlib.contextmanager
def faces_on_disk(faces: Path | None, count: int) -> Iterator[tuple[Path, Path]]:
    """A folder of so many JPEG files, and a pack of the same bytes."""
    with tempfile.TemporaryDirectory() as directory:
        folder, pack = Path(directory, "faces"), Path(directory, "faces.bin")
        if faces is None:
            drawn = SyntheticFaces(4, -(-count // 4), image_size=(112, 112))
            encoded = [encode_jpeg(drawn[index]["image"]) for index in range(count)]
        else:
            encoded = [read_bytes(path) for path in find_images_below(faces).paths[:count]]
        folder.mkdir()
        for index, content in enumerate(encoded):
            (folder / f"{index:06d}.jpg").write_bytes(content)
        write_pack(pack, encoded, [True] * (len(encoded) // 2))
        yield folder, pack


def main(
    faces: Path | None = None,
    arch: str = "spherenet4",
    images: int = 300,
    batch_size: int = 64,
    rounds: int = 9,
    out: Path = RESULTS / "embed.json",
) -> None:
    """Times every contestant and writes the rates and their shares of the bare forward pass.

    Args:
      faces: a folder of aligned 112x112 images, at any depth; synthetic ones by default.
      arch: the network.
      images: how many of them, an even number.
      batch_size: of everybody.
      rounds: how often each contestant runs.
      out: results file.
    """
    cv2.setNumThreads(0)
    machine = describe_machine()
    run = untrained(arch)
    embedder = FaceEmbedder(run, batch_size=batch_size)
    with faces_on_disk(faces, images) as (folder, path):
        arrays = np.stack([read_image(image) for image in find_images_below(folder).paths])
        pack = read_pack(path)
        contestants: dict[int, dict[str, Callable[[], int]]] = {
            1: {
                BARE[1]: bare_forward(run, arrays, batch_size, 1),
                "arrays": lambda: len(embedder.embed(arrays)),
                "folder": lambda: len(embedder.embed(folder)),
            },
            2: {
                BARE[2]: bare_forward(run, arrays, batch_size, 2),
                "folder_two_views": lambda: len(embedder.embed(folder, flip="averaged")),
                "pack_two_views": lambda: len(embedder.embed_source(pack)[0]),
            },
        }
        found = {views: rates(those, rounds) for views, those in contestants.items()}
    results: dict[str, Any] = {
        "benchmark": "embed",
        "arch": arch,
        "images": len(arrays),
        "batch_size": batch_size,
        "images_per_second": {},
        "share_of_forward": {},
        "share_of_forward_in_processor_time": {},
        "machine": machine,
    }
    for views, those in found.items():
        for name, values in those.items():
            share, of_work = np.median(values / those[BARE[views]], axis=0).tolist()
            print(
                f"{name:18} {values[:, 0].max():9,.1f} images/s  {share:6.1%} of the forward pass, "
                f"{of_work:6.1%} in processor time"
            )
            results["images_per_second"][name] = values[:, 0].round(1).tolist()
            results["share_of_forward"][name] = round(share, 3)
            results["share_of_forward_in_processor_time"][name] = round(of_work, 3)
    write_results(out, results)


if __name__ == "__main__":
    tyro.cli(main)
