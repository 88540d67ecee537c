"""The pipeline: what example g is depends on (seed, g) alone; errors are named; threads end."""

import gc
import itertools
import threading
import time

import numpy as np
import pytest
from faces_on_disk import make_face

from sphereface_jax.data.images import ImagePaths, UnreadableImage
from sphereface_jax.data.pipeline import (
    InputPipeline,
    ShuffledOrder,
    make_pipeline,
    ordered_batches,
)
from sphereface_jax.data.transforms import FaceTransform, WrongImageSize

SIZE = (14, 12)
TRANSFORM = FaceTransform(image_size=SIZE, shift=1)


class Faces:
    """Images in memory; those in `broken` cannot be read."""

    def __init__(self, count: int, broken: tuple[int, ...] = (), size: tuple[int, int] = (14, 14)):
        self.labels = np.arange(count, dtype=np.int32)
        self.identities = tuple(f"p{i:04d}" for i in range(count))
        self.broken, self.size = broken, size

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        if index in self.broken:
            raise UnreadableImage(f"{self.describe(index)}: broken")
        return {"image": make_face(index, *self.size), "label": index}

    def describe(self, index):
        return f"face {index}"


def take(pipeline: InputPipeline, batches: int) -> list[dict]:
    taken = list(itertools.islice(pipeline, batches))
    pipeline.close()
    return taken


def stream(source=None, *, batches: int = 4, **options) -> dict[str, np.ndarray]:
    """The first batches, joined."""
    options = {"batch_size": 8, "seed": 7, "transform": TRANSFORM, "num_threads": 2} | options
    taken = take(make_pipeline(source or Faces(20), **options), batches)
    return {key: np.concatenate([batch[key] for batch in taken]) for key in taken[0]}


def assert_same(left: dict, right: dict) -> None:
    np.testing.assert_array_equal(left["label"], right["label"])
    np.testing.assert_array_equal(left["image"], right["image"])


def test_batches_have_the_promised_shapes() -> None:
    (batch,) = take(make_pipeline(Faces(5), batch_size=8, seed=0, transform=TRANSFORM), 1)
    assert batch["image"].shape == (8, *SIZE, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].dtype == np.int32


def test_order_and_augmentation_follow_the_seed_alone() -> None:
    assert_same(stream(num_threads=1), stream(num_threads=4, prefetch_batches=5))
    assert_same(stream(prefetch_batches=0), stream(batch_size=16, batches=2))
    assert (stream(seed=8)["label"] != stream()["label"]).any()


def test_every_epoch_shows_each_record_once_in_another_order() -> None:
    labels = stream(batch_size=5, batches=12)["label"].reshape(3, 20)
    for epoch in labels:
        assert sorted(epoch) == list(range(20))
    assert len({tuple(epoch) for epoch in labels}) == 3


def test_augmentation_differs_from_epoch_to_epoch() -> None:
    seen = stream(batch_size=20, batches=10)
    views = {image.tobytes() for image in seen["image"][seen["label"] == 3]}
    assert len(views) > 2


@pytest.mark.parametrize("process_count", [2, 4])
def test_sharding_comes_last(process_count: int) -> None:
    batches = {}
    for index in range(process_count):
        pipeline = make_pipeline(
            Faces(20),
            batch_size=8,
            seed=7,
            transform=TRANSFORM,
            num_threads=2,
            process_index=index,
            process_count=process_count,
        )
        batches[index] = take(pipeline, 4)
        assert pipeline.examples_consumed == 32
    joined = {
        key: np.concatenate([batches[i][b][key] for b in range(4) for i in range(process_count)])
        for key in ("image", "label")
    }
    assert_same(joined, stream())


@pytest.mark.parametrize("start", [1, 8, 19, 20, 29])
def test_a_run_resumes_at_any_example(start: int) -> None:
    whole = stream(batches=6)
    resumed = stream(batches=2, start_example=start)
    assert_same(resumed, {key: value[start : start + 16] for key, value in whole.items()})


def test_the_state_is_the_number_of_examples_consumed() -> None:
    pipeline = make_pipeline(Faces(20), batch_size=8, seed=7, transform=TRANSFORM, start_example=3)
    assert pipeline.examples_consumed == 3
    take(pipeline, 2)
    assert pipeline.examples_consumed == 19


def test_a_far_start_is_at_once() -> None:
    started = time.monotonic()
    stream(start_example=10**15, batches=1)
    assert time.monotonic() - started < 5


def test_large_batches_are_cut_into_chunks_without_a_seam() -> None:
    source = Faces(1000)
    large = stream(source, batch_size=700, batches=2)
    assert_same(large, stream(source, batch_size=100, batches=14))


def test_an_unreadable_image_raises_with_its_name() -> None:
    with pytest.raises(UnreadableImage, match="face 11: broken"):
        stream(Faces(20, broken=(11,)), batches=3)


def test_skipping_takes_the_next_in_the_shuffled_order_and_counts() -> None:
    broken = (2, 3, 11)
    order = ShuffledOrder(20, seed=7)
    expected = []
    for example in range(40):
        steps = (order(example, step) for step in range(20))
        expected.append(next(record for record in steps if record not in broken))
    pipeline = make_pipeline(
        Faces(20, broken), batch_size=8, seed=7, transform=TRANSFORM, on_error="skip"
    )
    labels = np.concatenate([batch["label"] for batch in take(pipeline, 5)])
    assert labels.tolist() == expected
    assert pipeline.skipped >= 6
    assert_same(
        stream(Faces(20, broken), on_error="skip"),
        stream(Faces(20, broken), on_error="skip", num_threads=1, prefetch_batches=0),
    )


def test_skipping_gives_up_when_nothing_is_readable() -> None:
    with pytest.raises(UnreadableImage, match="broken"):
        stream(Faces(6, broken=tuple(range(6))), on_error="skip")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_face_of_the_wrong_size_is_named(on_error: str) -> None:
    with pytest.raises(WrongImageSize, match=r"face \d+: expected a face of 14x12 .* found 30x30"):
        stream(Faces(4, size=(30, 30)), on_error=on_error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 9, "process_count": 2}, "multiple of the 2 processes"),
        ({"process_index": 1}, "process_index"),
        ({"seed": -1}, "seed"),
        ({"start_example": -1}, "start_example"),
        ({"num_threads": 0}, "num_threads"),
        ({"on_error": "ignore"}, "on_error"),
    ],
)
def test_arguments_are_checked(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        stream(**options)


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        make_pipeline(Faces(0), batch_size=2, seed=0)


def assert_ends(threads: set[threading.Thread]) -> None:
    assert threads
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.mark.parametrize("end", ["close", "drop"])
def test_threads_end_with_the_iterator(end: str) -> None:
    before = set(threading.enumerate())
    pipeline = make_pipeline(Faces(20), batch_size=4, seed=0, transform=TRANSFORM, num_threads=3)
    next(pipeline)
    started = set(threading.enumerate()) - before
    if end == "close":
        pipeline.close()
    del pipeline
    gc.collect()
    assert_ends(started)


def test_ordered_batches_pad_the_last() -> None:
    source = Faces(10)
    batches = list(ordered_batches(source, 4, transform=TRANSFORM))
    assert [batch["valid"].tolist() for batch in batches[:2]] == [[True] * 4] * 2
    assert batches[2]["valid"].tolist() == [True, True, False, False]
    assert not batches[2]["image"][2:].any()
    images = np.concatenate([batch["image"][batch["valid"]] for batch in batches])
    expected = [TRANSFORM(source[i]["image"]) for i in range(10)]
    np.testing.assert_array_equal(images, expected)


def test_ordered_batches_can_skip() -> None:
    source = Faces(6, broken=(1, 4))
    batches = list(ordered_batches(source, 4, transform=TRANSFORM, on_error="skip"))
    valid = np.concatenate([batch["valid"] for batch in batches])
    assert np.flatnonzero(valid).tolist() == [0, 2, 3, 5]
    assert not batches[0]["image"][1].any()
    with pytest.raises(UnreadableImage, match="face 1: broken"):
        list(ordered_batches(source, 4, transform=TRANSFORM))
    with pytest.raises(ValueError, match="on_error"):
        list(ordered_batches(source, 4, on_error="ignore"))


def test_ordered_batches_of_nothing() -> None:
    assert list(ordered_batches(ImagePaths([]), 4)) == []


def test_ordered_batches_name_an_unreadable_path(tmp_path) -> None:
    with pytest.raises(UnreadableImage, match=r"gone\.jpg: cannot be read"):
        list(ordered_batches(ImagePaths([tmp_path / "gone.jpg"]), 2))


def test_ordered_batches_can_be_left_early() -> None:
    before = set(threading.enumerate())
    batches = ordered_batches(Faces(50), 4, transform=TRANSFORM)
    next(batches)
    started = set(threading.enumerate()) - before
    batches.close()
    assert_ends(started)
