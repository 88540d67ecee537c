"""A trained network that turns face images into embeddings, read from a run's folder.

Batches are padded to one of three sizes, so that the network compiles at most that often however
many images a call brings.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args, overload

import numpy as np

from sphereface_jax._checks import require_choice
from sphereface_jax.data.aligner import FaceAligner
from sphereface_jax.data.finder import find_images_below
from sphereface_jax.data.images import ImagePaths, read_image
from sphereface_jax.data.source import ImageSequence, ImageView
from sphereface_jax.data.vectors import FaceVectors
from sphereface_jax.embedding import NotedErrors, batch_plan, embed, embed_images
from sphereface_jax.pretrained import load_pretrained
from sphereface_jax.training.input import face_transform
from sphereface_jax.training.run_folder import SavedRun, load_run

Image = str | Path | np.ndarray | Any
"""A path, an RGB array uint8 [H, W, 3], or an image of PIL."""

Flip = Literal["none", "averaged", "concatenated"]
"""What becomes of a face's mirror image."""


class FaceEmbedder:
    """Embeds images with the newest weights of a run, prepared as that run's config says.

    Args:
      run: a trained network.
      batch_size: images at a time.
      aligner: aligns each image first; without it the images must be aligned.

    Example:
      >>> embedder = FaceEmbedder.from_run(Path("runs/quickstart"))  # doctest: +SKIP
      >>> a, b = embedder.embed(["a.jpg", "b.jpg"])  # doctest: +SKIP
      >>> cosine = a @ b  # doctest: +SKIP
    """

    def __init__(self, run: SavedRun, *, batch_size: int = 64, aligner: FaceAligner | None = None):
        self.run = run
        self._aligner = aligner
        self._transform = face_transform(run.config.data)
        self._batch_size = batch_size
        self._apply = functools.partial(
            embed,
            run.graph,
            run.params,
            run.model_state,
            pixel_mean=run.config.data.pixel_mean,
            pixel_divisor=run.config.data.pixel_divisor,
        )

    @classmethod
    def from_run(
        cls, path: Path, *, batch_size: int = 64, aligner: FaceAligner | None = None
    ) -> Self:
        """Reads the newest checkpoint of a run.

        Args:
          path: the run's folder.
          batch_size: images at a time.
          aligner: aligns each image first; without it the images must be aligned.

        Returns:
          The embedder.

        Raises:
          FileNotFoundError: the folder holds no run, or the run has no checkpoint yet.
        """
        return cls(load_run(path), batch_size=batch_size, aligner=aligner)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, batch_size: int = 64, aligner: FaceAligner | None = None
    ) -> Self:
        """Reads a folder in Hugging Face's layout, of `sphereface export RUN --hf DIR`.

        No code in it is run, and nothing is fetched: `huggingface_hub.snapshot_download` brings a
        folder from there.

        Args:
          folder: with `config.json` and the weights.
          batch_size: images at a time.
          aligner: aligns each image first; without it the images must be aligned.

        Returns:
          The embedder.

        Raises:
          FileNotFoundError: a file is missing.
          ValueError: one is damaged, or the weights do not fit the network.
        """
        return cls(load_pretrained(Path(folder)), batch_size=batch_size, aligner=aligner)

    @overload
    def embed(
        self,
        images: Image | Sequence[Image],
        *,
        flip: Flip = ...,
        lengths: Literal[False] = ...,
        advance: Callable[[int], None] = ...,
    ) -> np.ndarray: ...

    @overload
    def embed(
        self,
        images: Image | Sequence[Image],
        *,
        flip: Flip = ...,
        lengths: Literal[True],
        advance: Callable[[int], None] = ...,
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def embed(
        self,
        images: Image | Sequence[Image],
        *,
        flip: Flip = "none",
        lengths: bool = False,
        advance: Callable[[int], None] = lambda count: None,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Embeds images, as vectors of unit length.

        Margin losses tend to make the length that a vector had before small for bad pictures;
        `sphereface evaluate` draws errors against it.

        Args:
          images: one image or several: paths, RGB arrays uint8 [H, W, 3], images of PIL; an array
            [N, H, W, 3]; or a folder, whose images are taken at any depth in the order of their
            names.
          flip: "none" leaves mirror images out, "averaged" takes the mean of the two embeddings,
            "concatenated" joins them: only the cosines of the last are those of `sphereface
            compare`, and fit the threshold that `sphereface evaluate` stores.
          lengths: return the pair (embeddings, lengths).
          advance: called with the number of images done since the last call.

        Returns:
          float32 [N, D], or [N, 2D] where concatenated. With `lengths`, also the length of each
          before, float32 [N].

        Raises:
          FileNotFoundError: there is no such folder.
          ValueError: an image cannot be read, has the wrong size, shows no face to align, or has an
            embedding that is NaN or infinite; it is named. Or `flip` is not one of its words.
        """
        require_choice("flip", flip, get_args(Flip))
        source = GivenImages(images)
        views = self._embed_views(source, mirror=flip != "none", advance=advance)
        joined = views.reshape(len(views), -1) if flip == "concatenated" else views.mean(axis=1)
        norms = np.linalg.norm(joined, axis=1)
        unit = joined / np.maximum(norms[:, None], np.finfo(np.float32).tiny)
        return (unit, norms) if lengths else unit

    def embed_source(
        self,
        source: ImageSequence,
        *,
        errors: dict[int, str] | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embeds images and their mirror images, as they leave the network.

        Args:
          source: N images.
          errors: None to end at the first image that cannot be read or shows no face; else such
            images have no rows, and this is filled with their numbers and why.
          advance: called with the number of images done since the last call.

        Returns:
          The embeddings and those of the mirror images, each float32 [N, D].

        Raises:
          ValueError: an image cannot be read, has the wrong size, or an embedding that is NaN or
            infinite; it is named. Or all cannot be read.
        """
        both = self._embed_views(source, mirror=True, errors=errors, advance=advance)
        return both[:, 0], both[:, 1]

    def _embed_views(
        self,
        source: ImageSequence,
        *,
        mirror: bool,
        errors: dict[int, str] | None = None,
        advance: Callable[[int], None],
    ) -> np.ndarray:
        if self._aligner is not None:
            source = ImageView(source, change=self._aligner)
        if errors is not None:
            source = NotedErrors(source, errors)
        parts = [
            embed_images(
                functools.partial(self._apply, mirror=mirror),
                ImageView(source, images),
                transform=self._transform,
                batch_size=size,
                on_error="raise" if errors is None else "skip",
                advance=advance,
            )
            for images, size in batch_plan(len(source), self._batch_size)
        ]
        if errors and len(errors) == len(source):
            raise ValueError(f"images: none of {len(source)} can be read; {errors[min(errors)]}")
        views = np.concatenate(parts)
        bad = ~np.isfinite(views).all(axis=(1, 2))
        if bad.any():
            read = [i for i in range(len(source)) if i not in (errors or {})]
            raise ValueError(
                f"{source.describe(read[int(bad.argmax())])}: expected a finite embedding, got NaN "
                f"or infinity, as of {bad.sum():,} of {len(bad):,} images; the weights of "
                f"{self.run.path} are of no use"
            )
        return views

    def embed_paths(
        self,
        paths: Sequence[str | Path],
        *,
        advance: Callable[[int], None] = lambda count: None,
    ) -> FaceVectors:
        """Embeds image files and their mirror images.

        Args:
          paths: N of them.
          advance: called with the number of images done since the last call.

        Returns:
          The embeddings [N, D] of both, under the paths with "/" between their parts.

        Raises:
          ValueError: as `embed_source`, without `errors`.
        """
        embeddings, mirrored = self.embed_source(ImagePaths(paths), advance=advance)
        return FaceVectors([Path(path).as_posix() for path in paths], embeddings, mirrored)


class GivenImages:
    """Images of any kind that a caller has, one after another: an `ImageSequence`.

    Args:
      images: as `FaceEmbedder.embed` takes them.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: no image was given.
    """

    def __init__(self, images: Image | Sequence[Image]):
        self._items: list[Image]
        if isinstance(images, str | Path):
            self._items = [*find_images_below(images).paths] if Path(images).is_dir() else [images]
        elif isinstance(images, np.ndarray):
            self._items = list(images) if images.ndim == 4 else [images]
        else:
            self._items = [images] if hasattr(images, "convert") else list(images)
        if not self._items:
            raise ValueError("images: expected at least one image, got none")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self._items[index]
        if isinstance(item, str | Path):
            return {"image": read_image(item)}
        image = _pixels(item) if hasattr(item, "convert") else np.asarray(item)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"{self.describe(index)}: expected RGB pixels uint8 [H, W, 3], got {image.dtype} "
                f"{list(image.shape)}"
            )
        return {"image": image}

    def describe(self, index: int) -> str:
        """The path, or the image's number."""
        item = self._items[index]
        return str(item) if isinstance(item, str | Path) else f"image {index}"


def _pixels(picture: Any) -> np.ndarray:
    """RGB of a picture of PIL, as its file is decoded: upright by EXIF, 16 bits to 8."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I;16"):  # PIL's own conversion cuts it off at 255
        grey = (np.asarray(upright) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(upright.convert("RGB"))
