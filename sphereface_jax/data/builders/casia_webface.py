"""CASIA-WebFace, the training set of the SphereFace paper."""

from sphereface_jax.data.builders.base import FaceDatasetBuilder
from sphereface_jax.data.sources import CASIA_LFW_OVERLAP, FaceSource, exclude_identities


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
