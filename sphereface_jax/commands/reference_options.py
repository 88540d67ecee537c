"""The options of `sphereface enroll`, `identify` and `bridge`.

A light module, for the command line is read before anything heavy is imported.
"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from sphereface_jax.training.config import NOT_NEGATIVE, Range, check_options, ranged

_SEEDS = Range(0, 2**32 - 1)


@dataclass(frozen=True)
class EnrollOptions:
    """A file of enrolled people, and whom to enroll or to remove."""

    gallery: Positional[Path]
    """The file that holds the people; made if need be, replaced as a whole."""
    run: Positional[Path | None] = None
    """Folder of the run to embed with."""
    directory: Positional[Path | None] = None
    """Folder of pictures, <Name>/<image>, aligned unless --align."""
    align: bool = False
    """Detect and align each face first."""
    min_length: float = ranged(0.0, NOT_NEGATIVE)
    """Leave out pictures whose embedding is shorter, as those of bad ones are."""
    remove: tuple[str, ...] = ()
    """People to remove; give no run and no folder."""

    def check(self) -> None:
        """Refuses options that do not go together, or are out of range.

        Raises:
          ValueError: naming them.
        """
        check_options(self)
        if self.remove and (self.run is not None or self.directory is not None):
            raise ValueError("--remove: expected the gallery alone, got a run too")
        if not self.remove and (self.run is None or self.directory is None):
            raise ValueError("expected GALLERY RUN DIRECTORY or GALLERY --remove NAME, got less")


@dataclass(frozen=True)
class IdentifyOptions:
    """A file of enrolled people, and the pictures to find them in."""

    gallery: Positional[Path]
    """The file that `enroll` wrote."""
    images: Positional[tuple[Path, ...]]
    """Pictures, aligned unless --align."""
    run: Path | None = None
    """Folder of the run to embed with; the one that people were enrolled with by default."""
    bridge: Path | None = None
    """A map of `sphereface bridge`, where people were enrolled with an older network."""
    one_false_hit_in: float = ranged(100.0, Range(1, open_low=True))
    """How many strangers' searches may have one false hit among them."""
    threshold: float | None = ranged(None, Range(-1, 1))
    """A cosine that a match must exceed, in place of the one for that rate."""
    align: bool = False
    """Detect and align each face first."""
    min_length: float = ranged(0.0, NOT_NEGATIVE)
    """Do not answer where an embedding is shorter."""


@dataclass(frozen=True)
class BridgeOptions:
    """Two networks, and pictures that both embed."""

    old: Positional[Path]
    """Folder of a run, or an .npz file of vectors."""
    new: Positional[Path]
    """The same of the new network."""
    out: Path
    """The file for the map."""
    images: Path | None = None
    """Folder of pictures that runs embed, <Name>/<image>; the names only split the people."""
    far: float = ranged(1e-2, Range(0, 1, open_low=True, open_high=True))
    """False accept rate to measure at."""
    align: bool = False
    """Detect and align each face first."""
    seed: int = ranged(0, _SEEDS)
    """Of the split of people into those to learn from, to choose on and to measure on."""
    json: Path | None = None
    """Where to write the numbers."""
