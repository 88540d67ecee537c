"""Where faces come from: one small protocol, and parts of what follows it.

A source is a random-access sequence of labelled images. Labels and identity names are known without
decoding anything, so that a run can count its classes, hold identities out and draw verification
pairs before it touches a pixel.

A run goes through its images in an order that depends on all of them; one more or less, and every
example after it is another. `fingerprint` tells, without reading them, that they are the same.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sphereface_jax._checks import require
from sphereface_jax.data.images import decode_image, encode_png, read_bytes

# Identities of CASIA-WebFace that are also in LFW's test pairs; the authors leave them out
# (wy1iu/sphereface, train/code/get_list.m).
CASIA_LFW_OVERLAP = ("0166921", "1056413", "1193098")
_MOST_SIZES = 20_000  # of which a disk tells the size in a fraction of a second


class ImageSequence(Protocol):
    """What reading in order takes: a face source without its labels."""

    def __len__(self) -> int:
        """The number of images."""
        ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A mapping with `image`: uint8 [H, W, 3] RGB."""
        ...

    def describe(self, index: int) -> str:
        """Where image `index` lies: a path, or a data set and record; for error messages."""
        ...


@runtime_checkable
class FaceSource(ImageSequence, Protocol):
    """Labelled face images by index; safe to read from many threads at once.

    Attributes:
      labels: int32 [N], label i is `identities[labels[i]]`.
      identities: the names of the classes, in label order.
    """

    @property
    def labels(self) -> np.ndarray:
        """int32 [N]."""
        ...

    @property
    def identities(self) -> Sequence[str]:
        """A name for each label."""
        ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`{"image": uint8 [H, W, 3] RGB, "label": int}`, or `UnreadableImage` naming it."""
        ...


class EncodedFaces:
    """A face source whose images are encoded files, one at each path that `describe` gives.

    A source that keeps them elsewhere has a `read_encoded` of its own.

    Attributes:
      labels: int32 [N].
    """

    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = decode_image(self.read_encoded(index), self.describe(index))
        return {"image": image, "label": int(self.labels[index])}

    def read_encoded(self, index: int) -> bytes:
        """The bytes of image `index` as they are stored."""
        return read_bytes(self.describe(index))

    def describe(self, index: int) -> str:
        """Where image `index` lies."""
        raise NotImplementedError


class ImageView:
    """Some images of a sequence, or all of them each changed: an `ImageSequence`.

    Args:
      source: the images.
      indices: which of them [N]; all by default.
      change: from pixels and what they are called to other pixels, as a `FaceAligner` does;
        nothing by default.
    """

    def __init__(
        self,
        source: ImageSequence,
        indices: Sequence[int] | np.ndarray | None = None,
        change: Callable[[np.ndarray, str], np.ndarray] | None = None,
    ):
        self._source, self._change = source, change
        self._indices = np.arange(len(source)) if indices is None else np.asarray(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[int(self._indices[index])]
        if self._change is None:
            return example
        return {"image": self._change(example["image"], self.describe(index))}

    def describe(self, index: int) -> str:
        """What the underlying sequence calls it."""
        return self._source.describe(int(self._indices[index]))


class Relabelled(ImageView):
    """Some images of a source, with labels of their own.

    Args:
      source: any face source.
      indices: which of its images [N].
      labels: int32 [N], of the identities.
      identities: their names.
    """

    def __init__(
        self,
        source: FaceSource,
        indices: np.ndarray,
        labels: np.ndarray,
        identities: tuple[str, ...],
    ):
        super().__init__(source, indices)
        self.labels, self.identities = labels, identities
        self.passed_over = getattr(source, "passed_over", ())
        self.remarks = getattr(source, "remarks", ())

    def __getitem__(self, index: int) -> dict[str, Any]:
        return super().__getitem__(index) | {"label": int(self.labels[index])}

    def read_encoded(self, index: int) -> bytes:
        """The encoded image, as `encoded_image` gives it for the underlying source."""
        return encoded_image(self._source, int(self._indices[index]))

    def contents(self) -> list[str]:
        """As the underlying source says it of these images."""
        lines = contents(self._source)
        return [lines[index] for index in self._indices.tolist()]


class Subset(Relabelled):
    """The images of some identities of a source, relabelled 0, 1, ... in the source's label order.

    Args:
      source: any face source.
      identities: names to keep.

    Raises:
      ValueError: no name given, or a name that the source does not have.
    """

    def __init__(self, source: FaceSource, identities: Sequence[str]):
        wanted = set(identities)
        unknown = sorted(wanted.difference(source.identities))
        if unknown or not wanted:
            found = f"unknown identities {unknown[:3]}" if unknown else "an empty list"
            raise ValueError(
                f"subset: expected names out of the source's {len(source.identities)} identities, "
                f"got {found}"
            )
        kept = [label for label, name in enumerate(source.identities) if name in wanted]
        relabel = np.full(len(source.identities), -1, np.int32)
        relabel[kept] = np.arange(len(kept), dtype=np.int32)
        indices = np.flatnonzero(relabel[source.labels] >= 0)
        super().__init__(
            source,
            indices,
            relabel[source.labels[indices]],
            tuple(source.identities[label] for label in kept),
        )


def encoded_image(source: ImageSequence, index: int) -> bytes:
    """An image as bytes: as the source stores it, or as PNG if the source has pixels only.

    Args:
      source: the images.
      index: of the image.

    Returns:
      A file's bytes.

    Raises:
      UnreadableImage: the image cannot be read.
    """
    read = getattr(source, "read_encoded", None)
    if read is not None:
        return read(index)
    return encode_png(source[index]["image"])


def exclude_identities(source: FaceSource, names: Sequence[str]) -> Subset:
    """Leaves identities out by name, such as `CASIA_LFW_OVERLAP`.

    Args:
      source: the faces.
      names: of the identities to leave out.

    Returns:
      The others' images, in their order.

    Raises:
      ValueError: a name that the source does not have, or nobody left.
    """
    known = {*source.identities, *getattr(source, "absent", ())}
    unknown = sorted(set(names).difference(known))
    if unknown:
        raise ValueError(
            f"exclude: expected names out of the source's {len(source.identities)} identities, "
            f"such as {source.identities[0]!r}, got {unknown[:3]}"
        )
    return Subset(source, sorted(set(source.identities).difference(names)))


def split_identities(source: FaceSource, fraction: float, seed: int) -> tuple[Subset, Subset]:
    """Holds whole identities out of training, for validation on people never seen.

    Args:
      source: any face source.
      fraction: the fraction of the identities to hold out, in (0, 1); rounded, and at least two.
      seed: which identities.

    Returns:
      The rest to train on, and those held out.

    Raises:
      ValueError: a fraction outside (0, 1), or fewer than two identities left on either side.
    """
    require(0 < fraction < 1, "fraction", "a number between 0 and 1", fraction)
    count = len(source.identities)
    held_out = max(2, round(fraction * count))
    if count - held_out < 2:
        raise ValueError(
            f"fraction: {fraction} of {count} identities leaves {max(0, count - held_out)} to "
            "train on; expected at least 2 on either side: hold out fewer, or bring more people"
        )
    order = np.random.Generator(np.random.Philox(seed)).permutation(count)
    names = [source.identities[label] for label in order]
    return Subset(source, names[held_out:]), Subset(source, names[:held_out])


def with_file_sizes(lines: list[str], path: Callable[[int], str]) -> list[str]:
    """Appends the size of the file behind a line to each line, or to every k-th of very many.

    Args:
      lines: one per file.
      path: returns the path of the file behind line i.

    Returns:
      The lines, in their order; one whose file is missing stays as it is.
    """
    sized = list(lines)
    for index in range(0, len(lines), max(1, -(-len(lines) // _MOST_SIZES))):
        with contextlib.suppress(OSError):  # a missing file has none
            sized[index] += f" {os.stat(path(index)).st_size}"
    return sized


def contents(source: Any) -> list[str]:
    """A line per image on which it is, wherever the source lies; empty where that is unknown."""
    read = getattr(source, "contents", None)
    return [""] * len(source) if read is None else read()


def fingerprint(source: Any) -> str:
    """Returns a digest of a source's people, labels, and its images' names and sizes.

    It is the same wherever the source lies. Nothing is decoded or read: a million files take about
    a second.
    """
    digest = hashlib.sha256(np.ascontiguousarray(source.labels, "<i4").tobytes())
    for lines in (source.identities, contents(source)):
        digest.update("\n".join(map(str, lines)).encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()
