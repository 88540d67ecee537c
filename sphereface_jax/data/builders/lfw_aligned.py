"""Labeled Faces in the Wild, aligned: the test of the SphereFace paper."""

from sphereface_jax.data.builders.base import FaceDatasetBuilder


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
