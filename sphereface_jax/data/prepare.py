"""`prepare`: any face source into a TFDS data set of ArrayRecord files, once and for all.

Every image is decoded to see that it can be, aligned if asked for, and stored as JPEG; what cannot
be used is left out and listed. All cores encode; a shard has a temporary name until it is whole, so
an interrupted call goes on at the last whole one. The result is what TFDS itself writes:
`tfds.builder(NAME, data_dir=OUT)` and `open_source("NAME", data_dir=OUT)` read it.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sphereface_jax.data.aligner import EncodedFace, FaceAligner, encoded_face
from sphereface_jax.data.files import available_cores, claim_folder, write_json
from sphereface_jax.data.images import UnreadableImage
from sphereface_jax.data.source import FaceSource, fingerprint
from sphereface_jax.data.text import first_ten

VERSION = "1.0.0"
_SHARD = 4096  # images
_MOST_SHARDS = 1024
_CHUNK = 16  # images that a thread encodes at a time


@dataclasses.dataclass(frozen=True)
class PrepareSummary:
    """What a prepared data set holds.

    Attributes:
      directory: the folder with its `dataset_info.json`.
      identities: with at least one image.
      images: stored.
      images_per_identity: the fewest, the median and the most.
      sizes: how many images of each `HxW`.
      skipped: the name of each image left out, and why.
    """

    directory: str
    identities: int
    images: int
    images_per_identity: tuple[int, float, int]
    sizes: dict[str, int]
    skipped: list[tuple[str, str]]

    def lines(self) -> list[str]:
        """The summary for a terminal."""
        fewest, median, most = self.images_per_identity
        sizes = ", ".join(f"{count:,} of {size}" for size, count in sorted(self.sizes.items()))
        return [
            f"{self.directory}: {self.images:,} images of {self.identities:,} identities",
            f"images per identity: {fewest:,} to {most:,}, median {median:g}",
            f"sizes: {sizes}",
            f"left out: {len(self.skipped):,}",
            *first_ten(f"  {why}" for _, why in self.skipped),
        ]


@dataclasses.dataclass(frozen=True)
class _Shard:
    """What a finished shard holds; stored beside it until all are finished."""

    labels: list[int]
    sizes: dict[str, int]
    num_bytes: int
    skipped: list[tuple[str, str]]


def prepare(
    source: FaceSource,
    out: Path,
    *,
    described_as: dict[str, Any],
    name: str = "face_folder",
    split: str = "train",
    aligner: FaceAligner | None = None,
    num_threads: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> PrepareSummary:
    """Writes a source as a TFDS data set; called again, goes on or returns what is there.

    Args:
      source: the faces.
      out: TFDS's `data_dir`; the data set goes into OUT/NAME/1.0.0.
      described_as: where the faces come from and how they are made, in JSON's types; a call with
        another description, or with images of other names or sizes, into the same place is refused.
      name: of the data set, as TFDS writes them: small letters, digits and `_`.
      split: the split's name.
      aligner: aligns the faces on the way.
      num_threads: as many as there are cores by default.
      advance: called with the number of images done since the last call.

    Returns:
      How many images were written, and which were skipped and why.

    Raises:
      ValueError: a bad name, another data set in its place, or no image that can be used.
      WrongImageSize: an image is neither 112×112 nor 112×96, and there is no aligner.
    """
    if not (name.isascii() and name.isidentifier() and name == name.lower()):
        raise ValueError(f"name: expected small letters, digits and '_', got {name!r}")
    directory = out / name / VERSION
    plan = {
        "from": described_as,
        "images": len(source),
        "split": split,
        "fingerprint": fingerprint(source)[:16],
    }
    if (directory / "summary.json").is_file():
        claim_folder(directory, "plan.json", plan, "a data set")
        advance(len(source))
        return _read_summary(directory)
    work = directory.with_name(f"incomplete.{VERSION}")
    work.mkdir(parents=True, exist_ok=True)
    claim_folder(work, "plan.json", plan, "a data set")
    shards = _write_shards(source, work, f"{name}-{split}", aligner, num_threads, advance)
    summary = _summarise(directory, shards)
    if not summary.images:
        raise ValueError(
            f"{directory}: none of {len(source)} images can be used; {summary.skipped[0][1]}"
        )
    _write_metadata(work, source, name, split, shards)
    write_json(work / "summary.json", dataclasses.asdict(summary))
    shutil.rmtree(work / "shards")
    os.replace(work, directory)
    return summary


def _write_shards(
    source: FaceSource,
    work: Path,
    stem: str,
    aligner: FaceAligner | None,
    num_threads: int | None,
    advance: Callable[[int], None],
) -> list[_Shard]:
    count = min(_MOST_SHARDS, -(-len(source) // _SHARD))
    borders = np.linspace(0, len(source), count + 1).astype(int).tolist()
    shards = []
    pool = ThreadPoolExecutor(num_threads or available_cores())
    try:
        for number in range(count):
            indices = range(borders[number], borders[number + 1])
            record = work / "shards" / f"{number:05d}.json"
            if record.is_file():
                shards.append(_read_shard(record))
                advance(len(indices))
                continue
            path = work / f"{stem}.array_record-{number:05d}-of-{count:05d}"
            shards.append(_write_shard(source, indices, path, aligner, pool, advance))
            write_json(record, dataclasses.asdict(shards[-1]))
    finally:
        pool.shutdown(cancel_futures=True)
    return shards


def _write_shard(
    source: FaceSource,
    indices: range,
    path: Path,
    aligner: FaceAligner | None,
    pool: ThreadPoolExecutor,
    advance: Callable[[int], None],
) -> _Shard:
    def encode(chunk: range) -> list[EncodedFace | UnreadableImage]:
        return [_encoded_or_error(source, index, aligner) for index in chunk]

    labels, skipped, num_bytes = [], [], 0
    sizes: Counter[str] = Counter()
    with _array_record_writer(path) as writer:
        chunks = [indices[i : i + _CHUNK] for i in range(0, len(indices), _CHUNK)]
        for chunk, faces in zip(chunks, pool.map(encode, chunks), strict=True):
            for index, face in zip(chunk, faces, strict=True):
                if isinstance(face, UnreadableImage):
                    skipped.append((source.describe(index), str(face)))
                    continue
                labels.append(int(source.labels[index]))
                sizes[f"{face.size[0]}x{face.size[1]}"] += 1
                example = serialize_example(face.encoded, labels[-1])
                writer.write(example)
                num_bytes += len(example)
            advance(len(chunk))
    return _Shard(labels, dict(sizes), num_bytes, skipped)


@contextlib.contextmanager
def _array_record_writer(path: Path) -> Iterator[Any]:
    """A writer whose file appears under its name when the block ends without an error."""
    from array_record.python.array_record_module import ArrayRecordWriter

    temporary = path.with_name(f".{path.name}.tmp")
    writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")  # JPEG is dense
    try:
        try:
            yield writer
        finally:
            writer.close()
        os.replace(temporary, path)
    except RuntimeError as error:
        raise OSError(f"{path}: cannot be written; {' '.join(str(error).split())}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _encoded_or_error(
    source: FaceSource, index: int, aligner: FaceAligner | None
) -> EncodedFace | UnreadableImage:
    try:
        return encoded_face(source, index, aligner)
    except UnreadableImage as error:
        return error


def serialize_example(encoded: bytes, label: int) -> bytes:
    """A record as TFDS writes it for features `image` and `label`.

    Args:
      encoded: the image, as JPEG.
      label: its class.

    Returns:
      The record, a serialised `tf.train.Example`.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(encoded)
    example.features.feature["label"].int64_list.value.append(label)
    return example.SerializeToString()


def _write_metadata(
    work: Path, source: FaceSource, name: str, split: str, shards: list[_Shard]
) -> None:
    """The JSON files that make the shards a TFDS data set."""
    import tensorflow_datasets as tfds

    from sphereface_jax.data import builders

    known = {"casia_webface": builders.CasiaWebface, "lfw_aligned": builders.LfwAligned}
    builder = known.get(name, builders.FaceFolder)
    template = tfds.core.ShardedFileTemplate(
        data_dir=work, dataset_name=name, split=split, filetype_suffix="array_record"
    )
    tfds.folder_dataset.write_metadata(
        data_dir=work,
        version=VERSION,
        features=builder.face_features(source.identities),
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(shard.labels) for shard in shards],
                num_bytes=sum(shard.num_bytes for shard in shards),
                filename_template=template,
            )
        ],
        check_data=False,  # it would read through TensorFlow
        supervised_keys=("image", "label"),
        **builder.notes(),
    )


def _summarise(directory: Path, shards: list[_Shard]) -> PrepareSummary:
    labels = np.array([label for shard in shards for label in shard.labels], np.int64)
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    sizes: Counter[str] = Counter()
    for shard in shards:
        sizes.update(shard.sizes)
    return PrepareSummary(
        directory=str(directory),
        identities=len(counts),
        images=len(labels),
        images_per_identity=(
            (int(counts.min()), float(np.median(counts)), int(counts.max()))
            if len(counts)
            else (0, 0.0, 0)
        ),
        sizes=dict(sizes),
        skipped=[item for shard in shards for item in shard.skipped],
    )


def _read_shard(path: Path) -> _Shard:
    stored = json.loads(path.read_bytes())
    return _Shard(**stored | {"skipped": [tuple(item) for item in stored["skipped"]]})


def _read_summary(directory: Path) -> PrepareSummary:
    stored = json.loads((directory / "summary.json").read_bytes())
    stored["skipped"] = [tuple(item) for item in stored["skipped"]]
    stored["images_per_identity"] = tuple(stored["images_per_identity"])
    return PrepareSummary(**stored | {"directory": str(directory)})
