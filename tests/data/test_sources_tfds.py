"""TFDS data sets as face sources, without TensorFlow."""

import io
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from faces_on_disk import make_face

from sphereface_jax.data.images import UnreadableImage
from sphereface_jax.data.open import open_source
from sphereface_jax.data.tfds_source import TfdsSource

NAMES = ["ann", "bob"]


class TinyDataset(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes given examples of given features as ArrayRecord."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, directory: Path, features: dict, examples: list[dict]):
        self.features, self.examples = features, examples
        super().__init__(data_dir=str(directory), file_format="array_record")

    def _info(self):
        features = tfds.features.FeaturesDict(self.features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        for index, example in enumerate(self.examples):
            image = example.get("image")
            yield index, example | ({"image": io.BytesIO(image)} if image else {})


class TinyFaces(TinyDataset, skip_registration=True):
    pass


class TinyTexts(TinyDataset, skip_registration=True):
    pass


def png(seed: int) -> bytes:
    return cv2.imencode(".png", make_face(seed)[..., ::-1])[1].tobytes()


TRUNCATED = png(2)[:100]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tfds")
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=NAMES)}
    encoded = [png(0), png(1), TRUNCATED, png(3)]
    examples = [{"image": data, "label": i % 2} for i, data in enumerate(encoded)]
    TinyFaces(directory, features, examples).download_and_prepare()
    texts = [{"text": "no faces"}]
    TinyTexts(directory, {"text": tfds.features.Text()}, texts).download_and_prepare()
    return directory


@pytest.mark.parametrize("spec", ["tfds:tiny_faces", "tiny_faces", "tfds:tiny_faces:1.0.0"])
def test_a_prepared_data_set_is_a_source(data_dir: Path, spec: str) -> None:
    source = open_source(spec, data_dir=str(data_dir), split="test")
    assert source.identities == ("ann", "bob")
    assert sorted(source.labels.tolist()) == [0, 0, 1, 1]
    assert source.labels.dtype == np.int32
    images = {}
    for index in range(len(source)):
        assert source.describe(index).endswith(f"[test] record {index}")
        if source.read_encoded(index) == TRUNCATED:
            with pytest.raises(UnreadableImage, match=f"record {index}: not a whole image"):
                source[index]
        else:
            example = source[index]
            images[example["image"].tobytes()] = example["label"]
    assert images == {make_face(i).tobytes(): i % 2 for i in (0, 1, 3)}
    assert "tensorflow" not in sys.modules


def test_a_folder_with_dataset_info_opens_by_path(data_dir: Path) -> None:
    source = open_source(str(data_dir / "tiny_faces" / "1.0.0"))
    assert source.identities == ("ann", "bob")


@pytest.mark.parametrize(
    ("name", "split", "error", "message"),
    [
        ("tiny_faces", "validation", ValueError, "expected a split out of"),
        ("tiny_texts", "train", ValueError, "expected features image: Image"),
        ("no_such_faces", "train", FileNotFoundError, "found neither; check the spelling"),
        ("mnist", "train", FileNotFoundError, "not prepared"),
    ],
)
def test_a_bad_name_gives_one_line(data_dir: Path, name, split, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        TfdsSource(name, split, str(data_dir))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
