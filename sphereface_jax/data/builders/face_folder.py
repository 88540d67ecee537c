"""Any face data set of one's own."""

from sphereface_jax.data.builders.base import FaceDatasetBuilder


class FaceFolder(FaceDatasetBuilder):
    """Aligned faces from a folder of identities, or any other form that sphereface_jax reads."""

    HOMEPAGE = "https://www.tensorflow.org/datasets"
    LICENSE = "That of the images; ask whoever gave them to you."
