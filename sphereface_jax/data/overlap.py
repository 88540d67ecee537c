"""Does a training set hold people or pictures of the test? And one picture under two names?

People are compared by name, pictures by a perceptual hash: which of the 255 lowest frequencies of a
64×64 grey version (a DCT) lie above their median. Re-encoding, scaling, brightness and a shift of a
pixel leave it nearly as it is: on aligned faces of LFW at most 10 bits change at JPEG quality 50, 4
when halved in size and back, 40 when shifted by a pixel, while the nearest of 8 million other pairs
differ in 48. So 40 is the limit here.

Near pairs are found by locality-sensitive hashing: 64 tables, each keyed by another random choice
of bits, and every candidate checked. Of pairs planted among half a million random hashes it found
all of 1,000 at 26 bits and 891 of 1,000 at 40.
"""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np

from sphereface_jax.data.files import available_cores
from sphereface_jax.data.images import UnreadableImage, decode_image
from sphereface_jax.data.source import FaceSource, ImageSequence, encoded_image
from sphereface_jax.data.text import first_ten

NEAR = 40  # of 255 bits
_TABLES = 64
_CHUNK = 64
_LARGEST_STEP = 1 << 22  # candidate pairs compared at once


class Fingerprints(NamedTuple):
    """What N images look like; rows of unreadable images are random.

    Attributes:
      bits: uint64 [N, 4], the perceptual hash.
      digests: uint64 [N, 2], of the encoded bytes.
    """

    bits: np.ndarray
    digests: np.ndarray


class Duplicate(NamedTuple):
    """Two images that look alike.

    Attributes:
      first: index of one.
      second: index of the other, in the other set where there are two.
      distance: bits that differ.
      exact: whether they are the same bytes.
    """

    first: int
    second: int
    distance: int
    exact: bool


@dataclasses.dataclass(frozen=True)
class OverlapReport:
    """What two sets share, and what a set holds twice.

    Attributes:
      shared_names: identities of both sets, as the training set spells them.
      shared_images: each image of the training set that is in the evaluation set, the one that it
        is like, and in how many bits they differ.
      two_names: images of the training set that are alike and belong to different identities.
    """

    shared_names: list[str]
    shared_images: list[tuple[str, str, int]]
    two_names: list[tuple[str, str, int]]

    def lines(self) -> list[str]:
        """The report for a terminal."""
        return [
            f"identities in both sets, by name: {len(self.shared_names):,}",
            *first_ten(f"  {name}" for name in self.shared_names),
            f"pictures in both sets: {len(self.shared_images):,}",
            *first_ten(f"  {a} is {b} ({bits} bits apart)" for a, b, bits in self.shared_images),
            f"training pictures under two names: {len(self.two_names):,}",
            *first_ten(f"  {a} is {b} ({bits} bits apart)" for a, b, bits in self.two_names),
        ]

    def to_json(self) -> dict[str, Any]:
        """The report in plain types."""
        return dataclasses.asdict(self)


def find_overlap(
    training: FaceSource,
    evaluation: ImageSequence,
    *,
    num_threads: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> OverlapReport:
    """Compares a training set with an evaluation set, and with itself across identities.

    Args:
      training: the training set.
      evaluation: a face source, or a verification pack, which has no names to compare.
      num_threads: as many as there are cores by default.
      advance: called with the number of images done since the last call.

    Returns:
      The names in common, the images in common, and those that two training identities share.
    """
    names = {normalise_name(name) for name in getattr(evaluation, "identities", ())}
    ours = fingerprint(training, num_threads=num_threads, advance=advance)
    theirs = fingerprint(evaluation, num_threads=num_threads, advance=advance)
    labels = training.labels
    within = [d for d in find_duplicates(ours) if labels[d.first] != labels[d.second]]
    return OverlapReport(
        [name for name in training.identities if normalise_name(name) in names],
        [
            (training.describe(d.first), evaluation.describe(d.second), d.distance)
            for d in find_duplicates(ours, theirs)
        ],
        [(training.describe(d.first), training.describe(d.second), d.distance) for d in within],
    )


def normalise_name(name: str) -> str:
    """A name without case, accents and punctuation: `José_Ñandú-2` becomes `jose nandu 2`."""
    plain = unicodedata.normalize("NFKD", name)
    plain = "".join(c for c in plain if not unicodedata.combining(c)).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in plain).split())


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """The 255 lowest frequencies of an image against their median.

    Args:
      image: uint8 [H, W, 3], RGB.

    Returns:
      uint64 [4].
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:16, :16].ravel()[1:]
    return np.packbits(np.append(low > np.median(low), False)).view(np.uint64)


def fingerprint(
    source: ImageSequence,
    *,
    num_threads: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Fingerprints:
    """Hashes every image of a source; those that cannot be read match nothing.

    Args:
      source: N images.
      num_threads: as many as there are cores by default.
      advance: called with the number of images done since the last call.

    Returns:
      The hashes, in the order of the images.
    """
    bits = np.random.Generator(np.random.Philox(0)).integers(0, 2**64, (len(source), 4), np.uint64)
    digests = bits[:, :2].copy()

    def work(start: int) -> int:
        chunk = range(start, min(start + _CHUNK, len(source)))
        for index in chunk:
            try:
                encoded = encoded_image(source, index)
                bits[index] = perceptual_hash(decode_image(encoded, source.describe(index)))
            except UnreadableImage:
                continue
            digest = hashlib.blake2b(encoded, digest_size=16).digest()
            digests[index] = np.frombuffer(digest, np.uint64)
        return len(chunk)

    with ThreadPoolExecutor(num_threads or available_cores()) as pool:
        for count in pool.map(work, range(0, len(source), _CHUNK)):
            advance(count)
    return Fingerprints(bits, digests)


def find_duplicates(first: Fingerprints, second: Fingerprints | None = None) -> list[Duplicate]:
    """Pairs of images at most `NEAR` bits apart, within one set or between two.

    Images of one and the same hash are each paired with the first of them only: within a set, and
    on the second side of two.

    Args:
      first: a set.
      second: another; the pairs are then between the two.

    Returns:
      The pairs, sorted.
    """
    if second is None:
        rows, starts, members = np.unique(
            first.bits, axis=0, return_index=True, return_inverse=True
        )
        same = np.column_stack([starts[members], np.arange(len(members))])
        pairs = np.concatenate([same[same[:, 0] != same[:, 1]], starts[_near_rows(rows)]])
        pairs.sort(axis=1)
        second = first
    else:
        pairs = _pairs_between(first.bits, second.bits)
    pairs = np.unique(pairs, axis=0)
    left, right = pairs.T
    distances = np.bitwise_count(first.bits[left] ^ second.bits[right]).sum(axis=1)
    exact = (first.digests[left] == second.digests[right]).all(axis=1)
    columns = (left.tolist(), right.tolist(), distances.tolist(), exact.tolist())
    return [Duplicate(*pair) for pair in zip(*columns, strict=True)]


def _pairs_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """int64 [P, 2]: each row of the first, and the first row of each hash near it in the second."""
    rows, members = np.unique(np.concatenate([first, second]), axis=0, return_inverse=True)
    ours, theirs = members[: len(first)], members[len(first) :]
    start = np.full(len(rows), -1)
    start[theirs[::-1]] = np.arange(len(second))[::-1]
    itself = np.arange(len(rows))
    near = _near_rows(rows)
    near = np.concatenate([np.column_stack([itself, itself]), near, near[:, ::-1]])
    near = near[start[near[:, 1]] >= 0]
    near = near[np.argsort(near[:, 0], kind="stable")]
    low, high = (np.searchsorted(near[:, 0], ours, side) for side in ("left", "right"))
    counts = high - low
    left = np.repeat(np.arange(len(first)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.column_stack([left, start[near[np.repeat(low, counts) + within, 1]]])


def _near_rows(rows: np.ndarray) -> np.ndarray:
    """int64 [P, 2]: i < j of the hashes at most `NEAR` bits apart, all of them different."""
    width = min(24, max(8, int(np.ceil(np.log2(max(2, len(rows)))))))
    rng = np.random.Generator(np.random.Philox(1))
    found = np.empty((0, 2), np.int64)
    for _ in range(_TABLES):
        keys = np.zeros(len(rows), np.uint64)
        for bit in rng.choice(256, width, replace=False).tolist():
            keys = keys << np.uint64(1) | rows[:, bit // 64] >> np.uint64(bit % 64) & np.uint64(1)
        blocks = [found]
        for pairs in _equal_keys(keys):
            apart = np.bitwise_count(rows[pairs[:, 0]] ^ rows[pairs[:, 1]]).sum(axis=1)
            blocks.append(pairs[apart <= NEAR])
        found = np.unique(np.concatenate(blocks), axis=0)
    return found


def _equal_keys(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of pairs i < j whose keys agree."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.arange(len(order))
    for step in range(1, len(order)):
        starts = starts[starts + step < len(order)]
        starts = starts[ordered[starts] == ordered[starts + step]]
        if not len(starts):
            return
        pairs = np.stack([order[starts], order[starts + step]], axis=1)
        yield from np.array_split(pairs, len(pairs) // _LARGEST_STEP + 1)
