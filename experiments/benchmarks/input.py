"""The input pipeline against bare decoding, and against PyTorch's DataLoader.

    python -m experiments.benchmarks.input --faces DIR --threads 2

Bare decoding is the least that any input must do: read each file of the folder and `cv2.imdecode`
it, in a thread pool, in large chunks, keeping nothing. The pipeline does all that training does:
shuffle, decode, crop 112x112 to 112x96, mirror, shift, colour order, batch. It reads the same faces
as a folder, as RecordIO and as ArrayRecord, and the folder once more with every augmentation of
docs/faces.md, resized to 64x56. The DataLoader (skipped where there is no PyTorch)
reads the folder with as many worker processes as there are threads, decodes with the same OpenCV
and only crops and mirrors. The contestants run in turn, so that a busy machine is busy for all of
them; the rates are those of each one's best round.

`--train-steps N` also trains a SphereNet-4 for N steps and reports its share of time waiting for
input; the folder is then read while the same cores train.
"""

import contextlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro
from rich.console import Console

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.benchmarks.measure import rates
from experiments.pages import RESULTS
from sphereface_jax.data.files import available_cores
from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.data.images import encode_jpeg
from sphereface_jax.data.open import open_source
from sphereface_jax.data.pipeline import make_pipeline
from sphereface_jax.data.prepare import prepare
from sphereface_jax.data.record_source import RecordSource, write_records
from sphereface_jax.data.source import FaceSource
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.data.transforms import FaceTransform

CHUNK = 256
TRANSFORM = FaceTransform(shift=2)
AUGMENTED = FaceTransform(
    image_size=(64, 56),
    resize=True,
    shift=2,
    crop=0.2,
    low_resolution=0.1,
    photometric=0.3,
    cutout=0.3,
)


def bare_decoding(folder: ImageFolder, threads: int) -> int:
    """Reads and decodes every image of a folder once."""
    paths = [folder.describe(i) for i in range(len(folder))]

    def work(start: int) -> None:
        for path in paths[start : start + CHUNK]:
            with open(path, "rb") as file:
                cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(0, len(paths), CHUNK)))
    return len(paths)


def run_pipeline(
    source: FaceSource,
    batch_size: int,
    threads: int,
    images: int,
    transform: FaceTransform = TRANSFORM,
) -> int:
    """Takes so many images of the training stream."""
    pipeline = make_pipeline(
        source, batch_size=batch_size, seed=0, transform=transform, num_threads=threads
    )
    batches = -(-images // batch_size)
    for _ in itertools.islice(pipeline, batches):
        pass
    pipeline.close()
    return batches * batch_size


def data_loader(folder: ImageFolder, batch_size: int, workers: int) -> Callable[[], int] | None:
    """One epoch of a PyTorch DataLoader over the folder; None without PyTorch."""
    try:
        from torch.utils.data import DataLoader, Dataset
    except ImportError:
        return None

    class Faces(Dataset):
        """The usual Dataset: decode, crop, mirror at random."""

        def __len__(self) -> int:
            return len(folder)

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            image = cv2.imread(folder.describe(index), cv2.IMREAD_COLOR)[:, 8:104]
            if np.random.random() < 0.5:
                image = cv2.flip(image, 1)
            return np.ascontiguousarray(image), int(folder.labels[index])

    loader = DataLoader(Faces(), batch_size, shuffle=True, num_workers=workers, drop_last=True)

    def epoch() -> int:
        return sum(len(images) for images, _ in loader)

    return epoch


@contextlib.contextmanager
def faces_on_disk(faces: Path | None) -> Iterator[ImageFolder]:
    """The folder given, or a small one of synthetic faces."""
    if faces is not None:
        yield ImageFolder(faces)
        return
    with tempfile.TemporaryDirectory() as directory:
        synthetic = SyntheticFaces(8, 16, image_size=(112, 112))
        for i in range(len(synthetic)):
            example = synthetic[i]
            path = Path(directory, str(example["label"]), f"{i}.jpg")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode_jpeg(example["image"]))
        yield ImageFolder(directory)


def waiting_share(folder: ImageFolder, steps: int, batch_size: int) -> float:
    """The share of time that the trainer waits for input, over the steps after the first ten."""
    from sphereface_jax.training.config import (
        DataConfig,
        ModelConfig,
        OptimizerConfig,
        TrainConfig,
    )
    from sphereface_jax.training.loop import train

    with tempfile.TemporaryDirectory() as out:
        config = TrainConfig(
            out=Path(out) / "run",
            data=DataConfig(train=str(folder.directory), shift=2),
            model=ModelConfig(name="spherenet4"),
            optimizer=OptimizerConfig(learning_rate=0.01),
            steps=steps,
            batch_size=batch_size,
        )
        train(config, console=Console(quiet=True))
        lines = (Path(out) / "run" / "metrics.jsonl").read_text().splitlines()
    shares = [json.loads(line)["input_wait_share"] for line in lines]
    return float(np.mean(shares[1:] or shares))


def main(
    faces: Path | None = None,
    threads: int = available_cores(),
    batch_size: int = 256,
    rounds: int = 5,
    train_steps: int = 0,
    out: Path = RESULTS / "input.json",
) -> None:
    """Times every contestant and writes the rates and their shares of bare decoding.

    Args:
      faces: a folder of identities with aligned 112x112 images; a few synthetic ones by default.
      threads: of everybody.
      batch_size: of the pipeline and the DataLoader.
      rounds: how often each runs.
      train_steps: also train a SphereNet-4 for so many steps.
      out: results file.
    """
    cv2.setNumThreads(0)
    machine = describe_machine()
    with faces_on_disk(faces) as folder, tempfile.TemporaryDirectory() as directory:
        write_records(folder, Path(directory, "rec", "train.rec"))
        prepared = prepare(folder, Path(directory, "tfds"), described_as={"faces": "benchmark"})
        sources = {
            "folder": folder,
            "rec": RecordSource(Path(directory, "rec")),
            "array_record": open_source(prepared.directory),
        }
        contestants: dict[str, Callable[[], int]] = {
            "bare_decoding": lambda: bare_decoding(folder, threads)
        }
        for name, source in sources.items():
            contestants[name] = lambda source=source: run_pipeline(
                source, batch_size, threads, len(folder)
            )
        contestants["folder_augmented"] = lambda: run_pipeline(
            folder, batch_size, threads, len(folder), AUGMENTED
        )
        loader = data_loader(folder, batch_size, threads)
        if loader is not None:
            contestants["data_loader"] = loader
        found = {name: pace[:, 0] for name, pace in rates(contestants, rounds).items()}
        waiting = waiting_share(folder, train_steps, 64) if train_steps else None
        images = len(folder)
    best = {name: max(values) for name, values in found.items()}
    shares = {name: round(rate / best["bare_decoding"], 3) for name, rate in best.items()}
    for name, rate in best.items():
        print(f"{name:14} {rate:9,.0f} images/s  {shares[name]:6.1%} of bare decoding")
    results: dict[str, Any] = {
        "benchmark": "input",
        "images": images,
        "threads": threads,
        "batch_size": batch_size,
        "images_per_second": {name: [round(r) for r in values] for name, values in found.items()},
        "share_of_bare_decoding": shares,
        "machine": machine,
    }
    if waiting is not None:
        print(f"a SphereNet-4 of batch 64 waits {waiting:.2%} of its time for input")
        results["input_wait_share"] = round(waiting, 5)
    write_results(out, results)


if __name__ == "__main__":
    tyro.cli(main)
