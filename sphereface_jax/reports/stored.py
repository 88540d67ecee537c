"""What a report needs beyond the numbers, kept small: scores of pairs, people, prototypes.

An evaluation's JSON says how good a run is, not what to look at. Three kinds of data say that.
Each is a few plain arrays, made while the embeddings are at hand, and lies in a run's folder as a
compressed .npz without pickles (`commands/keep.py`):

RUN/evidence/pairs-LIST.npz     StoredPairs of a list of pairs
RUN/evidence/people-SET.npz     StoredPeople of the people of a test
RUN/evidence/training.npz       StoredPeople of some of the people who were learnt
RUN/evidence/prototypes.npz     StoredPrototypes
RUN/likelihood.npz              LikelihoodEvidence of the pairs behind the run's threshold

Every field of a class is the array of that name; a dictionary of arrays is `FIELD/KEY`. Pictures
are JPEG bytes one after another, with the place where each one ends.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax.evaluation.impostors import nearest_other
from sphereface_jax.evaluation.pairs import to_degrees, unit_rows
from sphereface_jax.evaluation.pooling import group_means
from sphereface_jax.evaluation.search import ReferenceIndex

HARDEST = 12
SPHERE_PEOPLE, SPHERE_IMAGES = 8, 40
_MOST = 2000
_BINS = np.arange(0.0, 181.0)
Stored = TypeVar("Stored")


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Encoded images in one array.

    Attributes:
      content: uint8, the JPEG bytes of all, one after another.
      ends: int64 [N], where each one ends.
    """

    content: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, encoded: Sequence[bytes]) -> Self:
        """Puts encoded images after another."""
        content = np.frombuffer(b"".join(encoded), np.uint8)
        return cls(content, np.cumsum([len(each) for each in encoded], dtype=np.int64))

    def __len__(self) -> int:
        """N."""
        return len(self.ends)

    def __getitem__(self, index: int) -> bytes:
        start = 0 if index == 0 else int(self.ends[index - 1])
        return self.content[start : int(self.ends[index])].tobytes()


@dataclasses.dataclass(frozen=True, eq=False)
class StoredPairs:
    """The scores of a list of pairs, and its hardest pairs in pictures.

    Attributes:
      title: text [], the list's name.
      step: int64 [], of the weights.
      is_same: bool [P].
      cosine: float32 [P], of the features as `sphereface compare` takes them, nothing subtracted.
      scores: by protocol, float32 [P], as the protocol scores the pairs.
      hardest: int64 [H], pairs: the different ones of the highest cosine, then the same ones of
        the lowest; empty where the pairs are not of single images.
      names: text [2H], the left and the right image of each of those.
      pictures: of `names`; none where the images were not at hand.
    """

    title: NDArray
    step: NDArray[np.int64]
    is_same: NDArray[np.bool_]
    cosine: NDArray[np.float32]
    scores: Mapping[str, NDArray[np.float32]]
    hardest: NDArray[np.int64]
    names: NDArray
    pictures: Pictures


@dataclasses.dataclass(frozen=True, eq=False)
class StoredPeople:
    """How tight people are, how near their nearest other is, and some of their embeddings.

    Attributes:
      title: text [], the set's name.
      step: int64 [], of the weights.
      num_images: int64 [], of all people.
      people: text [C], those with two images or more, 2,000 evenly taken where there are more.
      spread: float32 [C], mean angle of a person's embeddings to their mean, in degrees.
      nearest: float32 [C], angle of that mean to the nearest mean of anybody else, in degrees.
      nearest_name: text [C], whose that is.
      shown: text [K], people to show on the sphere.
      embeddings: float16 [S, D] unit vectors of these.
      shown_index: int64 [S], whose each one is, in `shown`.
      prototypes: float16 [K, D] unit prototypes of these, or [0, D] where they were not learnt.
      pictures: one image of each of `shown`, or none.
    """

    title: NDArray
    step: NDArray[np.int64]
    num_images: NDArray[np.int64]
    people: NDArray
    spread: NDArray[np.float32]
    nearest: NDArray[np.float32]
    nearest_name: NDArray
    shown: NDArray
    embeddings: NDArray[np.float16]
    shown_index: NDArray[np.int64]
    prototypes: NDArray[np.float16]
    pictures: Pictures


@dataclasses.dataclass(frozen=True, eq=False)
class StoredPrototypes:
    """How a head's prototypes spread over the hypersphere.

    Attributes:
      step: int64 [], of the weights.
      num_prototypes: int64 [], C.
      dimension: int64 [], D.
      nearest: float32 [M], angle of a prototype to the nearest other, in degrees; of all or, where
        there are more, of 2,000 evenly taken ones.
      angles: int64 [180], how many pairs of those M are at 0° to 1°, 1° to 2°, ...
    """

    step: NDArray[np.int64]
    num_prototypes: NDArray[np.int64]
    dimension: NDArray[np.int64]
    nearest: NDArray[np.float32]
    angles: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class LikelihoodEvidence:
    """What turns a cosine of a run into evidence; people are numbers, not names.

    Attributes:
      title: text [], the list's name.
      step: int64 [], of the weights.
      method: text [], of the calibration.
      cllr: float64 [], on pairs held out from the calibration, fold by fold.
      min_cllr: float64 [], what discrimination alone costs.
      is_same: bool [P].
      cosine: float32 [P].
      held_out: float32 [P], log likelihood ratio by a calibration without the pair's fold.
      left: int32 [P], the person on the left of each pair.
      right: int32 [P].
      knots: float64 [K], cosines of the calibration's curve.
      log_lr: float64 [K], natural log of the likelihood ratio there.
      low: float64 [K], the lower end of its 95 % interval over people.
      high: float64 [K], the upper end.
      highest: float32 [M, H], the highest cosines of a picture of each person with others'.
      rejected: float64 [F], fractions of the pictures refused, those with short embeddings first.
      min_length: float64 [F], the shortest length kept.
      rejected_frr: float64 [F], false reject rate at the run's threshold among the others.
      rejected_far: float64 [F], false accept rate among them.
    """

    title: NDArray
    step: NDArray[np.int64]
    method: NDArray
    cllr: NDArray[np.float64]
    min_cllr: NDArray[np.float64]
    is_same: NDArray[np.bool_]
    cosine: NDArray[np.float32]
    held_out: NDArray[np.float32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    knots: NDArray[np.float64]
    log_lr: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    highest: NDArray[np.float32]
    rejected: NDArray[np.float64]
    min_length: NDArray[np.float64]
    rejected_frr: NDArray[np.float64]
    rejected_far: NDArray[np.float64]


def hardest_pairs(cosine: ArrayLike, is_same: ArrayLike, count: int = HARDEST) -> NDArray[np.int64]:
    """The pairs that come nearest to being mistaken, or are.

    Args:
      cosine: [P].
      is_same: [P] booleans.
      count: how many of each kind, at most.

    Returns:
      Indices: the different pairs of the highest cosine, the worst first, then the same pairs of
      the lowest.

    Example:
      >>> hardest_pairs([0.9, 0.1, 0.8, 0.2], [True, True, False, False], count=1).tolist()
      [2, 1]
    """
    values, same = np.asarray(cosine, np.float64), np.asarray(is_same, bool)
    order = np.argsort(values, kind="stable")
    return np.concatenate([order[::-1][~same[order[::-1]]][:count], order[same[order]][:count]])


def choose_shown(labels: ArrayLike, count: int = SPHERE_PEOPLE) -> NDArray[np.int64]:
    """The labels with the most images, of those with two or more.

    Args:
      labels: [N] integers.
      count: how many labels at most.

    Returns:
      The labels, the one with the most images first; of as many, the smaller.

    Example:
      >>> choose_shown([0, 1, 1, 2, 2, 2, 3], count=2).tolist()
      [2, 1]
    """
    values, counts = np.unique(np.asarray(labels), return_counts=True)
    values = values[counts > 1]
    return values[np.argsort(-counts[counts > 1], kind="stable")[:count]]


def measure_people(
    embeddings: NDArray[np.floating],
    people: Sequence[str],
    *,
    title: str,
    step: int,
    prototypes: Mapping[str, NDArray[np.floating]] | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> StoredPeople | None:
    """Measures people, and keeps the embeddings of those with the most images.

    Args:
      embeddings: [N, D], of any length.
      people: [N], who each one is.
      title: the set's name.
      step: of the weights.
      prototypes: [D] of people, where they were learnt.
      pictures: JPEG bytes of people; those to show are taken.

    Returns:
      The measures, or None where there are not two people with two images each, or where an
      embedding is zero, NaN or infinite and so has no direction.
    """
    if not (np.isfinite(embeddings).all() and embeddings.any(axis=1).all()):
        return None
    names, label = np.unique(np.asarray(people, dtype=str), return_inverse=True)
    shown = choose_shown(label)
    if len(shown) < 2:
        return None
    unit = unit_rows(embeddings)
    means = unit_rows(group_means(unit, label))
    counts = np.bincount(label)
    to_mean = to_degrees(np.einsum("nd,nd->n", unit, means[label]))
    several = _at_most(np.flatnonzero(counts > 1))
    found, cosines = ReferenceIndex(means).search(means[several], k=2)
    # The best is the person, or another of the very same mean.
    other = np.arange(len(several)), (found[:, 0] == several).astype(int)
    sample = [np.flatnonzero(label == person)[:SPHERE_IMAGES] for person in shown]
    rows = np.concatenate(sample)
    learnt = prototypes or {}
    known = [learnt[name] for name in names[shown] if name in learnt]
    own = unit_rows(np.array(known)) if len(known) == len(shown) else np.empty((0, unit.shape[1]))
    faces = [(pictures or {}).get(name, b"") for name in names[shown]]
    return StoredPeople(
        title=np.array(title),
        step=np.array(step),
        num_images=np.array(len(unit)),
        people=names[several],
        spread=(np.bincount(label, weights=to_mean) / counts)[several].astype(np.float32),
        nearest=to_degrees(cosines[other]).astype(np.float32),
        nearest_name=names[found[other]],
        shown=names[shown],
        embeddings=unit[rows].astype(np.float16),
        shown_index=np.repeat(np.arange(len(shown)), [len(each) for each in sample]),
        prototypes=own.astype(np.float16),
        pictures=Pictures.of(faces if all(faces) else []),
    )


def measure_prototypes(prototypes: NDArray[np.floating], *, step: int) -> StoredPrototypes | None:
    """Measures how prototypes lie to each other.

    Args:
      prototypes: [C, D], of any length; 2,000 of them at most are looked at.
      step: of the weights.

    Returns:
      The measures, or None where there is one prototype only.
    """
    count, dimension = prototypes.shape
    if count < 2:
        return None
    taken = _at_most(np.arange(count))
    unit = unit_rows(prototypes[taken])
    nearest = nearest_other(unit, prototypes, taken)
    pairs = np.triu_indices(len(unit), k=1)
    angles, _ = np.histogram(to_degrees((unit @ unit.T)[pairs]), _BINS)
    return StoredPrototypes(
        step=np.array(step),
        num_prototypes=np.array(count),
        dimension=np.array(dimension),
        nearest=to_degrees(nearest).astype(np.float32),
        angles=angles,
    )


def to_arrays(stored: Any) -> dict[str, NDArray]:
    """The arrays of any class of this module, as they are stored."""
    arrays: dict[str, NDArray] = {}
    for field in dataclasses.fields(stored):
        value = getattr(stored, field.name)
        if isinstance(value, Pictures):
            arrays |= {"pictures/content": value.content, "pictures/ends": value.ends}
        elif isinstance(value, Mapping):
            arrays |= {f"{field.name}/{key}": array for key, array in value.items()}
        else:
            arrays[field.name] = value
    return arrays


def from_arrays(cls: type[Stored], arrays: Mapping[str, NDArray]) -> Stored:
    """The object whose arrays these are.

    Args:
      cls: a dataclass of this module.
      arrays: as `to_arrays` returns them.

    Returns:
      One of that class.

    Raises:
      TypeError: one is missing, or one too many is there; the message names it.
    """
    values: dict[str, Any] = {}
    for name, array in arrays.items():
        field, _, key = name.partition("/")
        if key:
            values.setdefault(field, {})[key] = array
        else:
            values[field] = array
    if "pictures" in values:
        values["pictures"] = Pictures(**values["pictures"])
    return cls(**values)


def _at_most(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """All indices, or 2,000 evenly taken ones."""
    if len(indices) <= _MOST:
        return indices
    return indices[np.linspace(0, len(indices) - 1, _MOST).astype(np.int64)]
