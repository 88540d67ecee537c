"""The input pipeline: an endless, resumable stream of batches, read ahead by Grain's threads.

Example g of a run (g = 0, 1, 2, ...) is a pure function of (seed, g): epoch g // N shuffles the
source with its own permutation, g mod N picks the record, and g seeds the augmentation. Batch b
holds the examples [bB, (b+1)B); a process decodes only its slice of each. So neither devices,
processes, threads nor restarts change what is learnt, and the whole state of the input is one
integer, the number of examples consumed.

The unit of work is a batch, not an example: at some 50 µs to decode a face, the per-element queues,
generators and shuffles of a textbook Grain pipeline cost as much as the decoding.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import cv2
import grain
import numpy as np

from sphereface_jax._checks import expect, require
from sphereface_jax.data.files import available_cores
from sphereface_jax.data.images import UnreadableImage
from sphereface_jax.data.source import FaceSource, ImageSequence
from sphereface_jax.data.transforms import FaceTransform, WrongImageSize, example_draws

Batch = dict[str, np.ndarray]
OnError = Literal["raise", "skip"]

_CHUNK = 256  # examples that one thread decodes at a time; larger batches are cut into such chunks
_MAX_SUBSTITUTES = 1000  # unreadable images in a row before skipping gives up

logger = logging.getLogger(__name__)


class ShuffledOrder:
    """Which record example g shows: every epoch is its own permutation of the source.

    Args:
      count: records in the source.
      seed: the run's seed.
    """

    def __init__(self, count: int, seed: int):
        self._count, self._seed = count, seed
        self._permutations: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __call__(self, example: int, step: int = 0) -> int:
        """The record of an example, or the one `step` further on in its epoch's order."""
        epoch, position = divmod(example, self._count)
        return int(self._permutation(epoch)[(position + step) % self._count])

    def _permutation(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._permutations:
                order = np.arange(self._count, dtype=np.int32)
                bits = np.random.Philox(key=np.array([self._seed, epoch], np.uint64))
                np.random.Generator(bits).shuffle(order)
                if len(self._permutations) >= 2:  # threads straddle one epoch border at most
                    del self._permutations[min(self._permutations)]
                self._permutations[epoch] = order
            return self._permutations[epoch]


class InputPipeline(Iterator[Batch]):
    """Endless training batches; made by `make_pipeline`.

    Attributes:
      examples_consumed: examples that `next` has returned so far, over all processes, the resumed
        run's included: the one integer to checkpoint.
    """

    def __init__(self, chunks: "_TrainingChunks", chunks_per_batch: int, read: grain.ReadOptions):
        self.examples_consumed = chunks.start_example
        self._chunks = chunks
        dataset = grain.MapDataset.source(chunks).to_iter_dataset(read)
        if chunks_per_batch > 1:
            dataset = dataset.batch(chunks_per_batch, batch_fn=_concatenate)
        self._batches = iter(dataset)

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.examples_consumed += self._chunks.batch_size
        return batch

    @property
    def skipped(self) -> int:
        """How often an unreadable image was replaced by another, reading ahead included."""
        return self._chunks.skipped

    def close(self) -> None:
        """Stops reading ahead; dropping the last reference does the same."""
        self._batches.close()


def make_pipeline(
    source: FaceSource,
    *,
    batch_size: int,
    seed: int,
    transform: FaceTransform | None = None,
    start_example: int = 0,
    on_error: OnError = "raise",
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int | None = None,
    prefetch_batches: int = 2,
) -> InputPipeline:
    """Streams shuffled, augmented batches of a source without end.

    Args:
      source: labelled faces.
      batch_size: examples in a global batch, over all processes.
      seed: decides order and augmentation.
      transform: what happens to each image; the SphereFace authors' by default.
      start_example: examples consumed before; the stream goes on there at once.
      on_error: `raise` on an unreadable image, or `skip` to the next readable one in the shuffled
        order and count it. An image of the wrong size always raises.
      process_index: this process.
      process_count: processes that share each batch, in contiguous slices.
      num_threads: decoding threads; as many as there are cores by default, at most 16.
      prefetch_batches: batches kept ready.

    Returns:
      An iterator of `{"image": uint8 [B / process_count, H, W, 3], "label": int32 [B /
      process_count]}`.

    Raises:
      ValueError: an argument out of range, or an empty source.
    """
    _check_at_least(batch_size=(batch_size, 1), seed=(seed, 0), start_example=(start_example, 0))
    _check_at_least(process_count=(process_count, 1), prefetch_batches=(prefetch_batches, 0))
    expect(len(source), "source", "at least one image", "none")
    require(on_error in get_args(OnError), "on_error", "'raise' or 'skip'", repr(on_error))
    expected = f"0 to {process_count - 1}"
    require(0 <= process_index < process_count, "process_index", expected, process_index)
    expected = f"a multiple of the {process_count} processes"
    require(not batch_size % process_count, "batch_size", expected, batch_size)
    local = batch_size // process_count
    chunks = _TrainingChunks(
        source,
        transform or FaceTransform(),
        seed=seed,
        start_example=start_example,
        batch_size=batch_size,
        local_slice=range(process_index * local, (process_index + 1) * local),
        on_error=on_error,
    )
    per_batch = -(-local // _CHUNK)
    return InputPipeline(
        chunks, per_batch, _read_options(num_threads, prefetch_batches * per_batch)
    )


def ordered_batches(
    source: ImageSequence,
    batch_size: int,
    *,
    transform: FaceTransform | None = None,
    on_error: OnError = "raise",
    num_threads: int | None = None,
    prefetch_batches: int = 2,
) -> Iterator[Batch]:
    """Reads a source once, in order, without augmentation: for embedding and evaluation.

    Args:
      source: a face source, or `ImagePaths`.
      batch_size: examples in a batch; the last one is padded with black images.
      transform: crop and colour order; its augmentations are not applied.
      on_error: `raise` on an unreadable image, or `skip`: a warning, and a black image not `valid`.
      num_threads: decoding threads; as many as there are cores by default, at most 16.
      prefetch_batches: batches kept ready.

    Yields:
      `{"image": uint8 [B, H, W, 3], "valid": bool [B]}`; `valid` is False on the padding
      and on images skipped.

    Raises:
      ValueError: an argument out of range.
      UnreadableImage: naming the image.
      WrongImageSize: naming the image.
    """
    _check_at_least(batch_size=(batch_size, 1), prefetch_batches=(prefetch_batches, 0))
    require(on_error in get_args(OnError), "on_error", "'raise' or 'skip'", repr(on_error))
    chunks = _OrderedChunks(source, transform or FaceTransform(), batch_size, on_error)
    dataset = grain.MapDataset.source(chunks)
    batches = iter(dataset.to_iter_dataset(_read_options(num_threads, prefetch_batches)))
    try:
        yield from batches
    finally:
        batches.close()


class _TrainingChunks:
    """Grain's random-access source: element k is the k-th chunk of this process's batches."""

    def __init__(
        self,
        source: FaceSource,
        transform: FaceTransform,
        *,
        seed: int,
        start_example: int,
        batch_size: int,
        local_slice: range,
        on_error: OnError,
    ):
        cv2.setNumThreads(0)  # the threads are here; OpenCV's own would fight them
        self.start_example, self.batch_size = start_example, batch_size
        self.skipped = 0
        self._source, self._transform, self._seed = source, transform, seed
        self._local_slice, self._on_error = local_slice, on_error
        self._order = ShuffledOrder(len(source), seed)
        self._skipped_lock = threading.Lock()

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, index: int) -> Batch:
        batch, chunk = divmod(index, -(-len(self._local_slice) // _CHUNK))
        local = self._local_slice[chunk * _CHUNK : (chunk + 1) * _CHUNK]
        first = self.start_example + batch * self.batch_size + local.start
        draws = example_draws(self._seed, first, len(local)).tolist()
        images = np.empty((len(local), *self._transform.image_size, 3), np.uint8)
        labels = np.empty(len(local), np.int32)
        for row in range(len(local)):
            record, example = self._read(first + row)
            _transform(self._transform, example, draws[row], images[row], self._source, record)
            labels[row] = example["label"]
        return {"image": images, "label": labels}

    def _read(self, index: int) -> tuple[int, dict[str, Any]]:
        """The record shown as global example `index`, and what it holds."""
        tries = min(len(self._source), _MAX_SUBSTITUTES) if self._on_error == "skip" else 1
        for step in range(tries):
            record = self._order(index, step)
            try:
                return record, self._source[record]
            except UnreadableImage as error:
                if step == tries - 1:
                    raise
                with self._skipped_lock:
                    self.skipped += 1
                logger.warning("skipped: %s", error)
        raise AssertionError("unreachable: a source is not empty")


class _OrderedChunks:
    """Grain's random-access source: element k is the k-th batch, padded."""

    def __init__(
        self,
        source: ImageSequence,
        transform: FaceTransform,
        batch_size: int,
        on_error: OnError,
    ):
        cv2.setNumThreads(0)
        self._source, self._transform = source, transform
        self._batch_size, self._on_error = batch_size, on_error

    def __len__(self) -> int:
        return -(-len(self._source) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        records = range(len(self._source))[index * self._batch_size :][: self._batch_size]
        images = np.zeros((self._batch_size, *self._transform.image_size, 3), np.uint8)
        valid = np.arange(self._batch_size) < len(records)
        for row, record in enumerate(records):
            try:
                example = self._source[record]
            except UnreadableImage as error:
                if self._on_error == "raise":
                    raise
                logger.warning("skipped: %s", error)
                valid[row] = False
                continue
            _transform(self._transform, example, None, images[row], self._source, record)
        return {"image": images, "valid": valid}


def _transform(
    transform: FaceTransform,
    example: dict[str, Any],
    draws: Sequence[float] | None,
    out: np.ndarray,
    source: ImageSequence,
    record: int,
) -> None:
    try:
        transform(example["image"], draws, out)
    except WrongImageSize as error:
        raise WrongImageSize(f"{source.describe(record)}: {error}") from None


def _concatenate(chunks: Sequence[Batch]) -> Batch:
    return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}


def _read_options(num_threads: int | None, ready: int) -> grain.ReadOptions:
    if num_threads is None:
        num_threads = min(16, available_cores())
    _check_at_least(num_threads=(num_threads, 1))
    return grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads + ready)


def _check_at_least(**arguments: tuple[int, int]) -> None:
    for name, (value, minimum) in arguments.items():
        require(value >= minimum, name, f"at least {minimum}", value)
