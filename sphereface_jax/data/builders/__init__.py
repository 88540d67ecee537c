"""TFDS builders of face data sets; importing this package registers them.

After `import sphereface_jax.data.builders`, `tfds.builder("casia_webface", data_dir=...)` finds
them, as do all of TFDS's tools. None of them downloads anything: the data has licences to agree to,
so it is put into TFDS's manual folder by hand, in any form that `open_source` reads. They write
ArrayRecord, which is read back without TensorFlow.
"""

from sphereface_jax.data.builders.casia_webface import CasiaWebface
from sphereface_jax.data.builders.face_folder import FaceFolder
from sphereface_jax.data.builders.lfw_aligned import LfwAligned

__all__ = ["CasiaWebface", "FaceFolder", "LfwAligned"]
