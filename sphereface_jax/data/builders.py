"""TFDS builders of face data sets; importing this module registers them.

After `import sphereface_jax.data.builders`, `tfds.builder("casia_webface", data_dir=...)` finds
them, as do all of TFDS's tools. None of them downloads anything: the data has licences to agree to,
so it is put into TFDS's manual folder by hand, in any form that `open_source` reads. They write
ArrayRecord, which is read back without TensorFlow.
"""

import inspect
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from sphereface_jax.data.aligner import encoded_face
from sphereface_jax.data.open import open_source
from sphereface_jax.data.source import CASIA_LFW_OVERLAP, FaceSource, exclude_identities
from sphereface_jax.data.text import existing_folder, printable


class FaceDatasetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Aligned faces with an identity each; a subclass names the data set and its papers.

    Examples are `{"image": JPEG, "label": identity}`. Images that are JPEG already are stored as
    they are.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the aligned faces (112x112 or 112x96) into the manual folder: a folder of identities, "
        "a .zip or .tar of one, InsightFace's .rec and .idx, or a list file beside its images."
    )

    HOMEPAGE: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""
    LICENSE: ClassVar[str] = ""
    SPLIT: ClassVar[str] = "train"

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        # TFDS 4.9.10 looks for this with importlib_resources, which it does not install.
        cls.code_path = tfds.core.Path(inspect.getfile(cls))

    def __init__(self, *, file_format: Any = "array_record", **options: Any):
        super().__init__(file_format=file_format, **options)

    @classmethod
    def face_features(cls, identities: Sequence[str] | None = None) -> Any:
        """The features of a set of faces with these names for labels, if they are known yet."""
        names = storable_names(identities) if identities is not None else None
        return tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=names),
            }
        )

    @classmethod
    def notes(cls) -> dict[str, str]:
        """Description, homepage, citation and licence, as `tfds.core.DatasetInfo` takes them."""
        return {
            "description": inspect.cleandoc(cls.__doc__ or ""),
            "homepage": cls.HOMEPAGE,
            "citation": cls.CITATION,
            "license": cls.LICENSE,
        }

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            features=self.face_features(),
            supervised_keys=("image", "label"),
            **self.notes(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        source = self.select(open_manual(Path(dl_manager.manual_dir)))
        self.info.features["label"].names = storable_names(source.identities)
        return {self.SPLIT: self._generate_examples(source)}

    def _generate_examples(self, source: FaceSource) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(len(source)):
            image = io.BytesIO(encoded_face(source, index).encoded)
            yield index, {"image": image, "label": int(source.labels[index])}

    def select(self, source: FaceSource) -> FaceSource:
        """The part of the manual data that belongs to the data set."""
        return source


class CasiaWebface(FaceDatasetBuilder):
    """CASIA-WebFace, aligned, without the three of its identities that are also in LFW.

    The SphereFace authors leave these three out, and so does this data set where the data names
    its identities as CASIA does (InsightFace's records number them anew). `face_folder` keeps all.
    """

    HOMEPAGE = "http://www.cbsr.ia.ac.cn/english/CASIA-WebFace-Database.html"
    LICENSE = "For non-commercial research; the images are their owners'."
    CITATION = """
    @article{yi2014learning,
      title={Learning Face Representation from Scratch},
      author={Yi, Dong and Lei, Zhen and Liao, Shengcai and Li, Stan Z.},
      journal={arXiv preprint arXiv:1411.7923},
      year={2014}
    }
    """

    def select(self, source: FaceSource) -> FaceSource:
        """Leaves the overlap out, as far as it is there by name."""
        overlap = sorted(set(CASIA_LFW_OVERLAP).intersection(source.identities))
        return exclude_identities(source, overlap) if overlap else source


class LfwAligned(FaceDatasetBuilder):
    """LFW, aligned to 112x112 or 112x96; one split, `test`, with the people's names as labels.

    Verification needs the images by name, so `sphereface evaluate` reads them from the folder.
    """

    SPLIT = "test"
    HOMEPAGE = "http://vis-www.cs.umass.edu/lfw/"
    LICENSE = "For research; the images are their owners'."
    CITATION = """
    @techreport{huang2007labeled,
      title={Labeled Faces in the Wild: A Database for Studying Face Recognition in Unconstrained
        Environments},
      author={Huang, Gary B. and Ramesh, Manu and Berg, Tamara and Learned-Miller, Erik},
      institution={University of Massachusetts, Amherst},
      number={07-49},
      year={2007}
    }
    """


class FaceFolder(FaceDatasetBuilder):
    """Aligned faces from a folder of identities, or any other form that sphereface_jax reads."""

    HOMEPAGE = "https://www.tensorflow.org/datasets"
    LICENSE = "That of the images; ask whoever gave them to you."


def storable_names(identities: Sequence[str]) -> list[str]:
    r"""Names as TFDS can store them: it keeps one name per line, stripped, in UTF-8.

    What would not come back as it was, a newline, a blank at an end, a byte that is not UTF-8, is
    written out with a backslash, so that no name shifts those after it.

    Raises:
      ValueError: two names become one.

    Example:
      >>> storable_names(["Ann", "Bob\nCo", " Cat"])
      ['Ann', 'Bob\\nCo', '\\x20Cat']
    """
    stored = [_one_line(name) for name in identities]
    seen: dict[str, str] = {}
    for name, line in zip(identities, stored, strict=True):
        if (other := seen.setdefault(line, name)) != name:
            raise ValueError(f"identities: {other!r} and {name!r} are both stored as {line!r}")
    return stored


def _one_line(name: str) -> str:
    text = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in printable(name)
    )
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    return "\\x20" * start + text[start:end] + "\\x20" * (len(text) - max(end, start))


def open_manual(directory: Path) -> FaceSource:
    """Opens what lies in TFDS's manual folder: the data itself, or one file or folder that is it.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: there is no face data set in it.
    """
    existing_folder(directory, "the folder of manual data")
    try:
        return open_source(str(directory))
    except ValueError:
        entries = sorted(e for e in directory.iterdir() if not e.name.startswith("."))
        if len(entries) != 1:
            raise
        return open_source(str(entries[0]))
