"""prepare: any source into a TFDS data set, all of it or none, and on from where it stopped."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from faces_on_disk import make_face, make_folder, write_image

from sphereface_jax.data import prepare as prepare_module
from sphereface_jax.data.aligner import FaceAligner, encoded_face
from sphereface_jax.data.archives import ArchiveSource
from sphereface_jax.data.builders import storable_names
from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.data.images import UnreadableImage, encode_jpeg
from sphereface_jax.data.open import open_source
from sphereface_jax.data.prepare import PrepareSummary, prepare
from sphereface_jax.data.record_source import write_records
from sphereface_jax.data.source import FaceSource, exclude_identities
from sphereface_jax.data.transforms import WrongImageSize

FROM = {"source": "faces"}
COUNTS = {"ann": 3, "bob": 2, "cat": 4}


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    return ImageFolder(make_folder(tmp_path / "faces", COUNTS, ".jpg"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "_SHARD", 4)
    monkeypatch.setattr(prepare_module, "_CHUNK", 2)


def test_a_folder_becomes_a_tfds_data_set(folder: ImageFolder, tmp_path: Path) -> None:
    counted = []
    summary = prepare(folder, tmp_path / "out", described_as=FROM, advance=counted.append)
    assert summary == PrepareSummary(
        directory=str(tmp_path / "out/face_folder/1.0.0"),
        identities=3,
        images=9,
        images_per_identity=(2, 3.0, 4),
        sizes={"112x112": 9},
        skipped=[],
    )
    assert sum(counted) == 9
    for spec, options in ((summary.directory, {}), ("face_folder", {"data_dir": tmp_path / "out"})):
        source = open_source(spec, **{key: str(value) for key, value in options.items()})
        assert source.identities == folder.identities
        assert source.labels.tolist() == folder.labels.tolist()
        for i in range(9):
            assert source.read_encoded(i) == folder.read_encoded(i)
    builder = tfds.builder("face_folder", data_dir=str(tmp_path / "out"))
    assert builder.info.splits["train"].num_examples == 9
    assert builder.info.splits["train"].num_shards == 3
    assert builder.info.features["label"].names == ["ann", "bob", "cat"]
    assert [p.name for p in (tmp_path / "out/face_folder").iterdir()] == ["1.0.0"]
    assert "tensorflow" not in sys.modules


def test_images_that_changed_since_are_not_taken_for_those_prepared(
    folder: ImageFolder, tmp_path: Path
) -> None:
    prepare(folder, tmp_path / "out", described_as=FROM)
    first = Path(folder.describe(0))
    first.write_bytes(first.read_bytes() + b"more")
    with pytest.raises(ValueError, match=r"fingerprint.*delete it, or name another folder"):
        prepare(folder, tmp_path / "out", described_as=FROM)


def test_names_that_tfds_cannot_keep_shift_no_other(tmp_path: Path) -> None:
    names = {"a\nb": 1, " c ": 1, os.fsdecode(b"d\xe9"): 1, "e\u2028f": 1, "é": 1, "z": 2}
    folder = ImageFolder(make_folder(tmp_path / "faces", names, ".jpg"))
    prepare(folder, tmp_path / "out", described_as=FROM)
    source = open_source("face_folder", data_dir=str(tmp_path / "out"))
    named = dict(zip(folder.identities, source.identities, strict=True))
    assert named == {
        **{"a\nb": r"a\nb", " c ": r"\x20c\x20", os.fsdecode(b"d\xe9"): r"d\xe9"},
        **{"e\u2028f": r"e\u2028f", "é": "é", "z": "z"},
    }
    assert source.labels.tolist() == folder.labels.tolist()
    with pytest.raises(ValueError, match=r"are both stored as 'a\\\\nb'"):
        storable_names(["a\nb", r"a\nb"])


def test_a_slice_has_the_identities_of_its_images(folder: ImageFolder, tmp_path: Path) -> None:
    prepare(folder, tmp_path / "out", described_as=FROM)
    source = open_source("face_folder", data_dir=str(tmp_path / "out"), split="train[3:]")
    assert source.identities == ("bob", "cat")
    assert source.labels.tolist() == [0, 0, 1, 1, 1, 1]
    # Whom the slice lacks may be excluded all the same; a name that nobody bears may not.
    assert exclude_identities(source, ["ann", "bob"]).identities == ("cat",)
    with pytest.raises(ValueError, match=r"got \['dan'\]"):
        exclude_identities(source, ["dan"])


def test_again_is_at_once_and_another_description_is_refused(folder, tmp_path: Path) -> None:
    first = prepare(folder, tmp_path / "out", described_as=FROM)
    before = {p: p.stat().st_mtime_ns for p in Path(first.directory).iterdir()}
    assert prepare(folder, tmp_path / "out", described_as=FROM) == first
    assert before == {p: p.stat().st_mtime_ns for p in Path(first.directory).iterdir()}
    with pytest.raises(ValueError, match=r"found a data set made with .*'source': 'faces'"):
        prepare(folder, tmp_path / "out", described_as={"source": "others"})


class Interrupting:
    """A view of a source that stops the call at one of its images, as Ctrl-C would."""

    def __init__(self, source: FaceSource, at: int):
        self.source, self.at = source, at
        self.labels, self.identities = source.labels, source.identities
        self.reads = 0

    def __len__(self):
        return len(self.source)

    def describe(self, index):
        return self.source.describe(index)

    def read_encoded(self, index):
        self.reads += 1
        if index == self.at:
            raise KeyboardInterrupt
        return self.source.read_encoded(index)


def test_an_interrupted_call_goes_on(folder: ImageFolder, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare(Interrupting(folder, at=7), tmp_path / "out", described_as=FROM)
    assert not (tmp_path / "out/face_folder/1.0.0").exists()
    assert len(list((tmp_path / "out").rglob("*.array_record-*-of-00003"))) == 2
    rest = Interrupting(folder, at=-1)
    counted = []
    summary = prepare(rest, tmp_path / "out", described_as=FROM, advance=counted.append)
    assert rest.reads == 3
    assert sum(counted) == 9
    source = open_source(summary.directory)
    assert [source.read_encoded(i) for i in range(9)] == [folder.read_encoded(i) for i in range(9)]


def test_what_cannot_be_used_is_left_out_and_listed(folder: ImageFolder, tmp_path: Path) -> None:
    torn = [Path(folder.describe(i)) for i in (0, 3, 4)]  # bob's two, so nobody is left of him
    for path in torn:
        path.write_bytes(path.read_bytes()[:-200])
    summary = prepare(folder, tmp_path / "out", described_as=FROM)
    assert (summary.images, summary.identities) == (6, 2)
    assert [name for name, _ in summary.skipped] == [str(path) for path in torn]
    assert "truncated" in summary.skipped[0][1]
    lines = summary.lines()
    assert lines[0] == f"{summary.directory}: 6 images of 2 identities"
    assert lines[1:4] == [
        "images per identity: 2 to 4, median 3",
        "sizes: 6 of 112x112",
        "left out: 3",
    ]
    source = open_source(summary.directory)
    assert source.identities == ("ann", "cat")  # nobody without an image is a class
    assert source.labels.tolist() == [0, 0, 1, 1, 1, 1]


def test_a_shard_of_nothing_but_unreadable_images(folder: ImageFolder, tmp_path: Path) -> None:
    for i in range(3):  # all of the first shard
        Path(folder.describe(i)).write_bytes(b"")
    summary = prepare(folder, tmp_path / "out", described_as=FROM)
    source = open_source(summary.directory)
    assert source.identities == ("bob", "cat")
    assert source.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert source.read_encoded(0) == folder.read_encoded(3)


def test_a_full_disk_gives_one_line(folder: ImageFolder, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        with pytest.raises(OSError, match="array_record-00000-of-00003: cannot be written; ") as e:
            prepare(folder, tmp_path / "out", described_as=FROM)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(e.value)
    assert not list((tmp_path / "out").rglob("*array_record*"))
    assert prepare(folder, tmp_path / "out", described_as=FROM).images == 9


def test_nothing_usable_gives_one_line(folder: ImageFolder, tmp_path: Path) -> None:
    for i in range(9):
        Path(folder.describe(i)).write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of 9 images can be used; .*empty"):
        prepare(folder, tmp_path / "out", described_as=FROM)
    assert not (tmp_path / "out/face_folder/1.0.0").exists()


def test_unaligned_faces_are_refused_or_aligned(tmp_path: Path) -> None:
    write_image(tmp_path / "raw/ann/0.jpg", make_face(0, 150, 150))
    write_image(tmp_path / "raw/bob/0.jpg", make_face(1, 150, 150))
    folder = ImageFolder(tmp_path / "raw")
    with pytest.raises(WrongImageSize, match=r"ann/0\.jpg: .* found 150x150; align the faces"):
        prepare(folder, tmp_path / "out", described_as=FROM)
    points = np.array([[60.0, 70], [90, 69], [75, 85], [64, 100], [88, 101]])
    aligner = FaceAligner((112, 96), landmarks={"ann/0.jpg": points})
    described = FROM | {"points": "file"}
    with pytest.raises(ValueError, match="found a data set made with"):
        prepare(folder, tmp_path / "out", described_as=described, aligner=aligner)
    summary = prepare(folder, tmp_path / "other", described_as=described, aligner=aligner)
    assert summary.sizes == {"112x96": 1}
    assert "not in the landmark file" in summary.skipped[0][1]
    assert open_source(summary.directory)[0]["image"].shape == (112, 96, 3)


def test_only_what_is_no_jpeg_is_encoded(tmp_path: Path) -> None:
    write_image(tmp_path / "ann/0.jpg", make_face(0))
    write_image(tmp_path / "ann/1.png", make_face(1))
    (tmp_path / "ann/2.png").write_bytes(b"")
    folder = ImageFolder(tmp_path)
    assert encoded_face(folder, 0).encoded == (tmp_path / "ann/0.jpg").read_bytes()
    assert encoded_face(folder, 1).encoded == encode_jpeg(make_face(1))
    with pytest.raises(UnreadableImage, match=r"2\.png"):
        encoded_face(folder, 2)


@pytest.mark.parametrize("name", ["Faces", "my-faces", "", "../faces", "1st"])
def test_names_are_checked(folder: ImageFolder, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name: expected small letters"):
        prepare(folder, tmp_path / "out", described_as=FROM, name=name)


def test_known_names_bring_their_notes(folder: ImageFolder, tmp_path: Path) -> None:
    summary = prepare(folder, tmp_path, described_as=FROM, name="casia_webface", split="validation")
    stored = json.loads((Path(summary.directory) / "dataset_info.json").read_text())
    assert "Learning Face Representation from Scratch" in stored["citation"]
    assert "CASIA-WebFace" in stored["description"]
    assert stored["splits"][0]["name"] == "validation"
    assert "non-commercial" in (Path(summary.directory) / "LICENSE").read_text()


def put_folder(folder: ImageFolder, manual: Path) -> None:
    make_folder(manual, COUNTS, ".jpg")


def put_nested_folder(folder: ImageFolder, manual: Path) -> None:
    make_folder(manual / "CASIA-WebFace", COUNTS, ".jpg")


def put_records(folder: ImageFolder, manual: Path) -> None:
    write_records(folder, manual / "train.rec")


def put_archive(folder: ImageFolder, manual: Path) -> None:
    import zipfile

    manual.mkdir()
    with zipfile.ZipFile(manual / "faces.zip", "w") as archive:
        for i in range(len(folder)):
            path = Path(folder.describe(i))
            archive.write(path, path.relative_to(folder.directory))
    assert isinstance(open_source(str(manual / "faces.zip")), ArchiveSource)


@pytest.mark.parametrize("put", [put_folder, put_nested_folder, put_records, put_archive])
@pytest.mark.parametrize("name", ["face_folder", "casia_webface", "lfw_aligned"])
def test_builders_take_manual_data_in_any_format(folder, tmp_path: Path, put, name) -> None:
    import sphereface_jax.data.builders  # noqa: F401 (registers them)

    put(folder, tmp_path / "manual")
    builder = tfds.builder(name, data_dir=str(tmp_path / "out"))
    config = tfds.download.DownloadConfig(manual_dir=str(tmp_path / "manual"))
    builder.download_and_prepare(download_config=config)
    split = "test" if name == "lfw_aligned" else "train"
    source = open_source(f"tfds:{name}", data_dir=str(tmp_path / "out"), split=split)
    names = folder.identities if put is not put_records else ("0", "1", "2")
    assert source.identities == names
    stored = {(source.read_encoded(i), int(source.labels[i])) for i in range(len(source))}
    assert stored == {(folder.read_encoded(i), int(folder.labels[i])) for i in range(len(folder))}
    assert builder.info.citation or name == "face_folder"
    assert builder.info.description
    assert "tensorflow" not in sys.modules


def test_casia_leaves_out_who_is_in_lfw(tmp_path: Path) -> None:
    import sphereface_jax.data.builders  # noqa: F401 (registers them)

    make_folder(tmp_path / "manual", {"0000045": 1, "0166921": 2, "1193098": 1}, ".jpg")
    builder = tfds.builder("casia_webface", data_dir=str(tmp_path / "out"))
    config = tfds.download.DownloadConfig(manual_dir=str(tmp_path / "manual"))
    builder.download_and_prepare(download_config=config)
    assert open_source("casia_webface", data_dir=str(tmp_path / "out")).identities == ("0000045",)


def test_empty_manual_data_gives_one_line(tmp_path: Path) -> None:
    from sphereface_jax.data.builders import open_manual

    with pytest.raises(FileNotFoundError, match="expected the folder of manual data"):
        open_manual(tmp_path / "none")
    with pytest.raises(ValueError, match="no identities"):
        open_manual(tmp_path)
