"""Images of named people: who is it, is it anybody, and how does their hypersphere look.

Any folder `<Name>/<image>`, or vectors with such paths, is a gallery and its probes: LFW itself,
say. What is compared is what the authors compare: an image's embedding with its mirror image's
after it.
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from sphereface_jax.data.finder import PassedOver, find_images_below
from sphereface_jax.data.images import ImagePaths
from sphereface_jax.data.vectors import FaceVectors, identity_of
from sphereface_jax.evaluation.geometry_measures import embedding_geometry
from sphereface_jax.evaluation.identification import lfw_identification
from sphereface_jax.evaluation.results import Result
from sphereface_jax.tasks.task import FaceImages, Matched, require_folder

PEOPLE_PROTOCOLS = ("lfw_identification", "lfw_open_set", "geometry")


class PeopleTask:
    """Images whose paths name people: identification, in a closed and an open set, and geometry.

    Args:
      paths: of the images, as PERSON/IMAGE, below `images`.
      title: what to call them.
      images: their folder.

    Attributes:
      passed_over: what lies in the folder and is not an image.

    Raises:
      ValueError: a path without a person, fewer than two people, or none with two images.
    """

    prefix = ""

    def __init__(self, paths: Sequence[str], *, title: str, images: Path | None = None):
        self.title = title
        self._paths, self._images = paths, images
        self.passed_over: Sequence[PassedOver] = ()
        counts = Counter(map(identity_of, paths))
        if "" in counts:
            stray = next(path for path in paths if not identity_of(path))
            raise ValueError(f"{title}: expected images as PERSON/IMAGE, found {stray!r}")
        if len(counts) < 2 or max(counts.values()) < 2:
            raise ValueError(
                f"{title}: expected two people or more, one of them with two images or more, found "
                f"{len(counts)} people and {len(paths)} images"
            )
        has_strangers = min(counts.values()) == 1
        self.protocols = tuple(
            name for name in PEOPLE_PROTOCOLS if has_strangers or name != "lfw_open_set"
        )

    @classmethod
    def of_folder(cls, images: Path) -> Self:
        """The task of all images at any depth under a folder.

        Raises:
          FileNotFoundError: no such folder.
          ValueError: as the class, or there is no image in it.
        """
        found = find_images_below(images)
        task = cls(
            [Path(name).as_posix() for name in found.names], title=images.name, images=images
        )
        task.passed_over = found.passed_over
        return task

    def find_images(self) -> FaceImages:
        """All images of the folder."""
        folder = require_folder(self._images, self.title)
        return FaceImages(self._paths, ImagePaths([folder / path for path in self._paths]))

    def match(self, vectors: FaceVectors) -> Matched:
        """Takes all vectors there are."""
        paths, features = vectors.paths, vectors.features()
        people = [identity_of(path) for path in paths]
        scorers: dict[str, Callable[[], Result]] = {
            "lfw_identification": functools.partial(lfw_identification, paths, features),
            "lfw_open_set": functools.partial(lfw_identification, paths, features, open_set=True),
            "geometry": functools.partial(embedding_geometry, features, people),
        }
        return Matched(
            scorers=scorers,
            used={"images": (len(paths), len(paths))},
            facts={"flip": vectors.flip},
        )
