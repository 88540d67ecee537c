"""The options of `sphereface embed`, `compare`, `prepare` and `clean`.

A light module, for the command line is read before anything heavy is imported.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class EmbedOptions:
    """A run, a folder of images and the file for their embeddings."""

    run: Positional[Path]
    """Folder of the run."""
    directory: Positional[Path]
    """Folder of images, at any depth."""
    out: Path
    """The file; it must not exist yet."""
    align: bool = False
    """Detect and align each face first."""
    on_error: Literal["raise", "skip"] = "raise"
    """Skip leaves out images that cannot be read or show no face, and lists them in
    OUT.skipped.tsv."""


@dataclass(frozen=True)
class CompareOptions:
    """A run and two faces."""

    run: Positional[Path]
    """Folder of the run."""
    first: Positional[Path]
    """A face, aligned unless --align."""
    second: Positional[Path]
    """Another."""
    align: bool = False
    """Detect and align each face first."""
    gallery_size: int | None = None
    """Say how often a stranger scores as high with anybody of a gallery of this size."""
    min_length: float = 0.0
    """Refuse to decide on a shorter embedding, as bad pictures have."""


@dataclass(frozen=True)
class PrepareOptions:
    """A set of faces, the data set to make of it, and what to change on the way."""

    source: Positional[str]
    """A folder of identities, an archive, a RecordIO set, a list file or a data set's name."""
    out: Path
    """TFDS's data folder; a second call goes on where the first one stopped."""
    name: str = "face_folder"
    """Of the data set."""
    split: str = "train"
    """Of the data set."""
    exclude: tuple[str, ...] = ()
    """Names of identities to leave out."""
    align: bool = False
    """Detect and align each face first."""
    landmarks: Path | None = None
    """Align by this file of five points an image."""
    check_overlap: str | None = None
    """An evaluation set to look for in this one."""
    apply: Path | None = None
    """Corrections of `sphereface clean` to carry out, before --exclude."""


@dataclass(frozen=True)
class CleanOptions:
    """Whose vectors judge which labels."""

    run: Positional[Path]
    """Folder of a run, or an .npz file of vectors of the images."""
    data: str | None = None
    """The faces, as `prepare` takes them; those that the run learnt by default."""
    agree_with: Path | None = None
    """Another run, or file of vectors, that must find the same."""
    out: Path | None = None
    """An existing folder; the run's by default."""
    confidence: float = 0.5
    """List what is at least so sure."""
