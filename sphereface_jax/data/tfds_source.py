"""TensorFlow Datasets as a face source, without TensorFlow.

TFDS writes each example as a `tf.train.Example` into ArrayRecord files. Reading the raw record and
parsing the protocol buffer here, rather than through TFDS's feature decoders, costs half the time
and lets an unreadable image be named.
"""

import os
from typing import Any

import numpy as np

from sphereface_jax._checks import expect
from sphereface_jax.data.folder import check_identities
from sphereface_jax.data.images import UnreadableImage
from sphereface_jax.data.source import EncodedFaces


class TfdsSource(EncodedFaces):
    """A prepared TFDS data set with an `image` and a `label` feature.

    Opening it reads every record once for the labels (about 10 µs each); no image is decoded. The
    identities are those of the split's images: a slice has no others.

    Args:
      name: the data set's registered name, `name/config` or `name:version` included, or the folder
        that holds its `dataset_info.json`.
      split: as TFDS writes them: `train`, `train[:90%]`, `train+test`.
      data_dir: where TFDS data sets lie; TFDS's own default if None.

    Attributes:
      absent: the names of the data set that no image of the split bears.

    Raises:
      FileNotFoundError: TFDS knows no such data set, or it is not prepared.
      ValueError: no such split, the features are others, or the files allow no random access.
    """

    def __init__(self, name: str, split: str = "train", data_dir: str | None = None):
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        self._parse = tf_example_pb2.Example.FromString
        self.name, self.split = name, split
        builder = _builder(name, data_dir)
        label = _check_features(name, builder.info.features)
        try:
            self._records = builder.as_data_source(
                split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
        except NotImplementedError:
            raise ValueError(
                f"{name}: prepared as {builder.info.file_format}; expected array_record, which can "
                "be read at random and without TensorFlow: prepare it again with that file format"
            ) from None
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{name}: expected a split out of {sorted(builder.info.splits)}, got {split!r} "
                f"({_one_line(error)})"
            ) from None
        stored = self._read_labels()
        names = tuple(label.names or ()) or tuple(map(str, range(label.num_classes)))
        check_identities(names, name)
        outside = (stored < 0) | (stored >= len(names))
        if outside.any():
            index = int(np.flatnonzero(outside)[0])
            raise ValueError(
                f"{self.describe(index)}: expected a label below {len(names)}, "
                f"found {stored[index]}"
            )
        present, labels = np.unique(stored, return_inverse=True)
        self.labels = labels.astype(np.int32)
        self.identities = tuple(names[label] for label in present)
        self.absent = tuple(sorted(set(names).difference(self.identities)))

    def read_encoded(self, index: int) -> bytes:
        """The bytes of image `index` as they were stored."""
        values = self._features(index)["image"].bytes_list.value
        if len(values) != 1:
            raise UnreadableImage(f"{self.describe(index)}: expected one image, got {len(values)}")
        return values[0]

    def describe(self, index: int) -> str:
        """Data set, split and record number."""
        return f"tfds:{self.name}[{self.split}] record {index}"

    def contents(self) -> list[str]:
        """The size of every image."""
        return [str(size) for size in self._sizes.tolist()]

    def _features(self, index: int) -> Any:
        try:
            return self._parse(self._records[index]).features.feature
        except Exception as error:  # protobuf and array_record raise types of their own
            raise UnreadableImage(f"{self.describe(index)}: {_one_line(error)}") from None

    def _read_labels(self) -> np.ndarray:
        labels = np.empty(len(self._records), np.int32)
        self._sizes = np.zeros(len(labels), np.int64)
        for index in range(len(labels)):
            features = self._features(index)
            self._sizes[index] = sum(map(len, features["image"].bytes_list.value))
            values = features["label"].int64_list.value
            expect(len(values) == 1, self.describe(index), "one label", len(values))
            labels[index] = values[0]
        return labels


def _builder(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        if os.path.isfile(os.path.join(name, "dataset_info.json")):
            return tfds.builder_from_directory(name)
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise FileNotFoundError(
            f"{name}: expected a folder or file of faces, or the name of a TFDS data set in "
            f"{data_dir or 'the default data folder'}, found neither; check the spelling and the "
            "folder that you are in"
        ) from None
    if not builder.info.splits:
        raise FileNotFoundError(
            f"{name}: the TFDS data set is not prepared in {builder.data_dir}; prepare it there, "
            "as ArrayRecord"
        )
    return builder


def _check_features(name: str, features: Any) -> Any:
    """The class label feature, once it is sure that there is one beside an image."""
    import tensorflow_datasets as tfds

    found = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    if not (
        isinstance(found.get("image"), tfds.features.Image)
        and isinstance(found.get("label"), tfds.features.ClassLabel)
    ):
        kinds = {key: type(value).__name__ for key, value in found.items()}
        raise ValueError(
            f"{name}: expected features image: Image, label: ClassLabel, found {kinds}"
        )
    return found["label"]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
