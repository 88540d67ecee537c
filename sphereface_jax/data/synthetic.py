"""Synthetic faces as a data source: as many people as wanted, drawn on demand, no files.

The renderer itself is `face_renderer.render_face`. A source is a window onto its endless world: a
range of identities and a number of views of each. Two sources with disjoint ranges share nobody,
which is how a network is tested on unseen people.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from sphereface_jax._checks import require
from sphereface_jax.data.face_renderer import REFERENCE_SIZE, render_face

MAX_IDENTITIES = 1 << 31


@dataclasses.dataclass(frozen=True)
class SyntheticFaces:
    """A random-access source of `num_identities` · `views_per_identity` painted faces.

    Item i shows identity `first_identity + i // views_per_identity` in view
    `i % views_per_identity`. Items are pure functions of the arguments, so that threads and
    processes may read them in any order; nothing is stored for each identity.

    Args:
      num_identities: how many people.
      views_per_identity: how many pictures of each.
      seed: which world of people; other seeds give other people under the same numbers.
      image_size: height and width in pixels.
      first_identity: where the range of people starts.

    Raises:
      ValueError: a count below 1, identities that would reach beyond 2³¹, or a seed or image size
        that `render_face` refuses.

    Example:
      >>> train = SyntheticFaces(1000, 20)
      >>> test = SyntheticFaces(100, 8, first_identity=1000)
      >>> len(test), test[8]["label"], test.identities[1], test[8]["image"].shape
      (800, 1, 'synthetic_001001', (112, 96, 3))
    """

    num_identities: int
    views_per_identity: int
    _: dataclasses.KW_ONLY
    seed: int = 0
    image_size: tuple[int, int] = REFERENCE_SIZE
    first_identity: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges and paints one face, so that what cannot be painted is named now."""
        for name in ("num_identities", "views_per_identity"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        last = self.first_identity + self.num_identities
        if self.first_identity < 0 or last > MAX_IDENTITIES:
            raise ValueError(
                "first_identity: expected identities within [0, 2**31), "
                f"got [{self.first_identity}, {last})"
            )
        render_face(self.seed, self.first_identity, 0, self.image_size)

    def __len__(self) -> int:
        """The number of images."""
        return self.num_identities * self.views_per_identity

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The item {"image": uint8 [H, W, 3] RGB, "label": int}."""
        label, view = self._locate(index)
        image = render_face(self.seed, self.first_identity + label, view, self.image_size)
        return {"image": image, "label": label}

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """[N] int32, the label of every item."""
        return np.repeat(np.arange(self.num_identities, dtype=np.int32), self.views_per_identity)

    @functools.cached_property
    def identities(self) -> Sequence[str]:
        """The name of each label."""
        return _IdentityNames(range(self.first_identity, self.first_identity + self.num_identities))

    def describe(self, index: int) -> str:
        """Says in words which image an item is, for messages."""
        label, view = self._locate(index)
        return f"{self.identities[label]}, view {view}, seed {self.seed}"

    def contents(self) -> list[str]:
        """What the images are drawn from, on the first line; one line per image."""
        return [repr(self), *[""] * (len(self) - 1)]

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)} synthetic faces")
        label, view = divmod(int(index), self.views_per_identity)
        return label, view


class _IdentityNames(Sequence[str]):
    """The name of each label, made when it is read, so that millions cost nothing."""

    def __init__(self, numbers: range):
        """Names the identities `numbers`."""
        self._numbers = numbers

    def __len__(self) -> int:
        """The number of names."""
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        """A name, or for a slice the names there."""
        if isinstance(index, slice):
            return _IdentityNames(self._numbers[index])
        return f"synthetic_{self._numbers[index]:06d}"
