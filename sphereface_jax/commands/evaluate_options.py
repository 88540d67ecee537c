"""The options of `sphereface evaluate`: what to embed with, what to score, what to write down.

A light module, for the command line is read before anything heavy is imported.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional, UseAppendAction

from sphereface_jax.data.files import require_writable_folder


@dataclass(frozen=True)
class MegafaceOptions:
    """MegaFace's lists; the probes' images lie in --images."""

    probes: Path | None = None
    """JSON list of the probes (FaceScrub) and who they are."""
    distractors: Path | None = None
    """JSON list of the distractors."""
    distractor_images: Path | None = None
    """Folder of the distractors' images, if not --images."""
    wrong_probes: Path | None = None
    """List of probes to leave out (facescrub_noises.txt)."""
    wrong_distractors: Path | None = None
    """List of distractors to leave out (megaface_noises.txt)."""


@dataclass(frozen=True)
class EvaluateOptions:
    """A run or stored vectors, one benchmark's lists or a folder of people, and what to do."""

    run: Positional[Path | None] = None
    """Folder of the run to embed with."""
    embeddings: Path | None = None
    """Score an .npz file of embeddings, taken as they are, or a folder of MegaFace's features."""
    images: Path | None = None
    """Folder of the images that a list names; alone, of people: <Name>/<image>."""
    align: bool = False
    """Detect and align each face of --images first."""
    pairs: Path | None = None
    """A list of pairs in LFW's format."""
    pack: tuple[Path, ...] = ()
    """InsightFace's verification packs, lfw.bin cfp_fp.bin ..."""
    ytf: Path | None = None
    """YouTube Faces' list of splits; frames are <images>/<Name>/<video>/<frame>.jpg."""
    ijb: Path | None = None
    """Folder of IJB-B's or IJB-C's lists; --images has the loose crops."""
    megaface: MegafaceOptions = field(default_factory=MegafaceOptions)
    protocol: UseAppendAction[tuple[str, ...]] = ()
    """A protocol to score; again for another. By default every one that the lists allow."""
    against: Path | None = None
    """Another run or .npz file: McNemar's test between the two on the same pairs."""
    allow_missing: bool = False
    """Leave out what needs a missing image, and say how much."""
    max_far: float | None = None
    """Calibrate to this false accept rate at most, not to the best accuracy."""
    recalibrate: bool = False
    """Replace the threshold and the likelihood ratios that are stored with the run."""
    likelihood: Literal["logistic", "isotonic"] = "logistic"
    """How cosines of --pairs become likelihood ratios: a line, or any non-decreasing function."""
    groups: Path | None = None
    """People's groups, 'Name<TAB>group' per line: errors of --pairs within and across them."""
    json: Path | None = None
    """Where to write the numbers."""

    @property
    def lists(self) -> list[str]:
        """The options that name lists of images below --images."""
        given = {
            "--pairs": self.pairs,
            "--ytf": self.ytf,
            "--ijb": self.ijb,
            "--megaface.probes": self.megaface.probes or self.megaface.distractors,
        }
        return [name for name, value in given.items() if value is not None]

    def check(self) -> None:
        """Refuses options that do not go together, before anything is read.

        Raises:
          ValueError: naming them.
          FileNotFoundError: there is no folder to write the numbers into.
        """
        if (self.run is None) == (self.embeddings is None):
            raise ValueError(
                "expected a run's folder or --embeddings FILE.npz, got both or neither"
            )
        if len(self.lists) > 1:
            raise ValueError(
                f"expected one list, whose images are in --images, got {' and '.join(self.lists)}; "
                "score them one after another"
            )
        if (self.megaface.probes is None) != (self.megaface.distractors is None):
            raise ValueError("expected --megaface.probes and --megaface.distractors, got one")
        something = self.lists or self.pack or self.images or self.embeddings
        if not something:
            raise ValueError(
                "expected something to score: --pairs, --pack, --ytf, --ijb, --megaface.probes or "
                "--images alone, got none"
            )
        embeds = self.run is not None or (self.against is not None and self.against.is_dir())
        if self.images is not None and not embeds:
            raise ValueError("--images: expected with a run, got it with stored vectors")
        if self.images is None and embeds and self.lists:
            raise ValueError(
                f"--images: expected the folder of the images of {self.lists[0]}, got none"
            )
        self._check_align()
        self._check_outcome()

    def _check_align(self) -> None:
        if self.align and (self.images is None or self.ijb is not None or self.pack):
            brought = "--ijb, whose landmarks do it" if self.ijb else "--pack, whose faces are"
            got = brought if self.ijb or self.pack else "no --images"
            raise ValueError(f"--align: expected photographs of --images to align, got {got}")

    def _check_outcome(self) -> None:
        if self.groups is not None and self.pairs is None:
            raise ValueError("--groups: expected --pairs, whose people are in groups, got none")
        if self.max_far is not None and not 0 < self.max_far < 1:
            raise ValueError(f"--max-far: expected a rate in (0, 1), got {self.max_far}")
        if self.run is None and (self.recalibrate or self.max_far is not None):
            raise ValueError("--max-far, --recalibrate: expected a run to calibrate, got none")
        if self.json is not None:
            require_writable_folder(self.json)
