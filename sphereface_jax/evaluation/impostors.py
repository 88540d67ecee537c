"""The highest of very many impostor scores, in bounded memory.

3,530 probes against a million distractors give 3.5 billion cosines, and nearly all of them are
low and of no consequence: a rank needs the few highest of each probe, a threshold at a low false
accept rate the few highest of all. So the product is taken block by block on JAX's device, where
each run of `_GROUP` neighbouring scores is reduced to its maximum; only runs whose maximum is
above what is already kept are fetched and merged into it. As the kept scores rise, blocks pass
that have nothing to add, and what remains costs little more than the bare matrix product.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax.evaluation.pairs import check_embeddings, sorted_places, unit_rows

_GROUP = 32
_GROUPS_PER_FETCH = 1 << 14
# Scores held at a time. On a CPU they should stay in its cache, and in memory that the allocator
# keeps (from 32 MiB on it asks the system for fresh pages); accelerators want large products.
_CPU_BLOCK_BYTES = 1 << 24
_ACCELERATOR_BLOCK_BYTES = 1 << 29
_PROBES_PER_PASS = 1 << 14
_SAMPLE = 1 << 11
_PADDING = -2
# More than float32 rounds in a product of unit vectors, less than any two faces differ by.
_ROUNDING = np.float32(1e-5)


@dataclasses.dataclass(frozen=True, eq=False)
class HighestImpostors:
    """The highest cosines between probes and images of other people.

    Attributes:
      by_probe: [P, K] the K highest of each probe, falling; -inf where it has fewer.
      overall: [M] the M highest of all, falling; fewer where there are fewer.
      num_scores: how many there are in all.
    """

    by_probe: NDArray[np.float32]
    overall: NDArray[np.float32]
    num_scores: int


def highest_impostors(
    probes: ArrayLike,
    others: ArrayLike,
    *,
    probe_identities: NDArray[np.int64],
    other_identities: NDArray[np.int64],
    by_probe: int,
    overall: int,
    block_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> HighestImpostors:
    """The highest cosines of probes with others who are not the same person.

    Args:
      probes: [P, D] embeddings of any length.
      others: [N, D] embeddings of any length; read block by block, so a memory map will do.
      probe_identities: [P] integers.
      other_identities: [N] integers; where one equals the probe's, the score is left out.
      by_probe: K, how many scores to keep for each probe.
      overall: M, how many to keep of all scores.
      block_size: how many of `others` to score at a time; by default as many as keep the scores
        in a CPU's cache, or half a GiB of them on an accelerator.
      progress: called after each block with the scores done and the scores there are.

    Returns:
      `HighestImpostors`.

    Raises:
      ValueError: for embeddings of different widths, or that are not finite or zero.
    """
    unit_probes = unit_rows(check_embeddings("probes", probes)).astype(np.float32)
    others = np.asanyarray(others)
    if others.ndim != 2 or others.shape[1] != unit_probes.shape[1] or not len(others):
        expected, found = unit_probes.shape[1], list(others.shape)
        raise ValueError(f"others: expected shape [N, {expected}] with N >= 1, got {found}")
    num_probes, num_others = len(unit_probes), len(others)
    num_scores = num_probes * num_others - _count_equal(probe_identities, other_identities)
    overall = min(overall, num_scores)
    # Identities by their place among the probes', so that they fit in 32 bits.
    names, probe_numbers = np.unique(probe_identities, return_inverse=True)
    problem = _Problem(
        unit_probes,
        probe_numbers.astype(np.int32),
        others,
        sorted_places(names, other_identities).astype(np.int32),
        block_size or default_block_size(min(num_probes, _PROBES_PER_PASS)),
        progress,
    )
    row_floors, floor = _guess_floors(problem, by_probe, overall / max(num_scores, 1))
    highest, tail = _collect(problem, row_floors, floor, by_probe, overall)
    if len(tail) < overall:  # The guess was too high: the sample was not like the rest.
        highest, tail = _collect(problem, row_floors, np.float32(-np.inf), by_probe, overall)
    return HighestImpostors(np.sort(highest)[:, ::-1], np.sort(tail)[::-1], num_scores)


def nearest_other(
    rows: NDArray[np.floating], others: NDArray[np.floating], place: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The highest cosine of each row with any of the others but itself.

    Args:
      rows: [P, D], of any length.
      others: [N, D].
      place: [P], where each row is among the others.

    Returns:
      Cosines [P].

    Raises:
      ValueError: as `highest_impostors`.
    """
    return highest_impostors(
        rows,
        others,
        probe_identities=place,
        other_identities=np.arange(len(others)),
        by_probe=1,
        overall=0,
    ).by_probe[:, 0]


def merge_impostors(first: HighestImpostors, second: HighestImpostors) -> HighestImpostors:
    """The highest scores of the same probes with two sets of others.

    Args:
      first: of the P probes with one set.
      second: of the same probes, in the same order, with another.

    Returns:
      The highest scores of each probe with both, as many as in `first`, and overall all of both.
    """
    by_probe = np.concatenate([first.by_probe, second.by_probe], axis=1)
    overall = np.concatenate([first.overall, second.overall])
    return HighestImpostors(
        np.sort(by_probe)[:, ::-1][:, : first.by_probe.shape[1]],
        np.sort(overall)[::-1],
        first.num_scores + second.num_scores,
    )


class _Problem(NamedTuple):
    """What is to be scored: unit probes and others, each with its identity's number."""

    probes: NDArray[np.float32]
    probe_numbers: NDArray[np.int32]
    others: NDArray
    other_numbers: NDArray[np.int32]
    block_size: int
    progress: Callable[[int, int], None] | None


def _guess_floors(
    problem: _Problem, by_probe: int, share: float
) -> tuple[NDArray[np.float32], np.float32]:
    """Floors to begin with, from a sample of the others, so that little has to be fetched.

    That of a probe is sure: as many of its scores as will be kept lie above it. That of all scores
    is a guess that half as many again as the wanted `share` of them lie above.
    """
    num_probes, num_others = len(problem.probes), len(problem.others)
    row_floors = np.full(num_probes, -np.inf, np.float32)
    if num_others <= 2 * _SAMPLE or 1.5 * share >= 1 or by_probe > _SAMPLE:
        return row_floors, np.float32(-np.inf)
    rows = np.sort(np.random.default_rng(0).choice(num_others, _SAMPLE, replace=False))
    sample = unit_rows(check_embeddings("others", problem.others[rows])).astype(np.float32)
    tail = []
    for first in range(0, num_probes, _PROBES_PER_PASS):
        part = slice(first, first + _PROBES_PER_PASS)
        scores = problem.probes[part] @ sample.T
        scores[problem.probe_numbers[part, None] == problem.other_numbers[rows]] = -np.inf
        wanted = max(int(1.5 * share * scores.size), 64)
        tail.append(np.partition(scores, -wanted, axis=None)[-wanted])
        if by_probe:
            kth = np.partition(scores, -by_probe, axis=1)[:, -by_probe]
            row_floors[part] = kth - _ROUNDING
    return row_floors, np.float32(min(tail))


def _collect(
    problem: _Problem,
    row_floors: NDArray[np.float32],
    floor: np.float32,
    by_probe: int,
    overall: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The highest scores above the floors: [P, K] by probe and at most `overall` of all."""
    by_row, tail = _HighestByRow(row_floors, by_probe), _Highest(floor, overall)
    num_probes, num_others = len(problem.probes), len(problem.others)
    for first in range(0, num_probes, _PROBES_PER_PASS):
        rows = slice(first, min(first + _PROBES_PER_PASS, num_probes))
        part = problem._replace(
            probes=problem.probes[rows], probe_numbers=problem.probe_numbers[rows]
        )
        for block in _one_ahead(_scored_blocks(part)):
            _check_block(block)
            floors = np.minimum(by_row.floors[rows], tail.floor)
            row, score = _high_scores(block, part.probe_numbers, floors)
            tail.add(score)
            by_row.add(first + row, score)
            if problem.progress is not None:
                done = first * num_others + len(part.probes) * block.stop
                problem.progress(done, num_probes * num_others)
    return by_row.values, tail.values


class _Block(NamedTuple):
    """Scores of a block of others: arrays of the device, perhaps still in the making."""

    stop: int
    numbers: NDArray[np.int32]
    products: jax.Array
    maxima: jax.Array
    lengths: jax.Array


def _scored_blocks(problem: _Problem) -> Iterator[_Block]:
    num_others = len(problem.others)
    size = -(-min(problem.block_size, num_others) // _GROUP) * _GROUP
    probes = jnp.asarray(problem.probes)
    for start in range(0, num_others, size):
        stop = min(start + size, num_others)
        others = np.asarray(problem.others[start:stop], np.float32)
        numbers = problem.other_numbers[start:stop]
        if stop - start < size:
            missing = size - (stop - start)
            others = np.pad(others, [(0, missing), (0, 0)], constant_values=1.0)
            numbers = np.pad(numbers, (0, missing), constant_values=_PADDING)
        yield _Block(stop, numbers, *_grouped_scores(probes, jnp.asarray(others)))


def _check_block(block: _Block) -> None:
    lengths = np.asarray(block.lengths)
    bad = ~(np.isfinite(lengths) & (lengths > 0))
    if bad.any():
        row = block.stop - int((block.numbers != _PADDING).sum()) + int(bad.argmax())
        raise ValueError(f"others: expected finite nonzero rows, row {row} is not")


def _one_ahead(blocks: Iterator[_Block]) -> Iterator[_Block]:
    """The same blocks, the next one already on its way to the device when one is handed out."""
    ahead = next(blocks)
    for block in blocks:
        yield ahead
        ahead = block
    yield ahead


@jax.jit
def _grouped_scores(probes: jax.Array, others: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Products [P, B], the largest cosine of each group [P, B / _GROUP], lengths of others [B]."""
    lengths = jnp.linalg.norm(others, axis=1)
    products = jnp.matmul(probes, others.T, precision=jax.lax.Precision.HIGHEST)
    cosines = products * (1 / lengths)
    return products, cosines.reshape(len(probes), -1, _GROUP).max(axis=2), lengths


def _high_scores(
    block: _Block, probe_numbers: NDArray[np.int32], floors: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(row, score) of all the impostors of a block above their row's floor, rows rising."""
    hits = np.flatnonzero(np.asarray(block.maxima) > floors[:, None])
    hit_row, hit_group = np.divmod(hits, len(block.numbers) // _GROUP)
    groups = _fetch_groups(block.products, hits)
    groups *= (1 / np.asarray(block.lengths)).reshape(-1, _GROUP)[hit_group]
    high = np.flatnonzero(groups > floors[hit_row, None])
    hit, offset = np.divmod(high, _GROUP)
    row, score = hit_row[hit], groups.ravel()[high]
    number = block.numbers[hit_group[hit] * _GROUP + offset]
    is_impostor = (number != _PADDING) & (number != probe_numbers[row])
    return row[is_impostor], score[is_impostor]


@jax.jit
def _take_groups(products: jax.Array, groups: jax.Array) -> jax.Array:
    return products.reshape(-1, _GROUP)[groups]


def _fetch_groups(products: jax.Array, hits: NDArray[np.int64]) -> NDArray[np.float32]:
    """Groups [H, _GROUP] by their flat number, fetched in pieces of one compiled size."""
    pieces = [np.empty((0, _GROUP), np.float32)]
    for start in range(0, len(hits), _GROUPS_PER_FETCH):
        piece = hits[start : start + _GROUPS_PER_FETCH].astype(np.int32)
        padded = np.pad(piece, (0, _GROUPS_PER_FETCH - len(piece)))
        pieces.append(np.asarray(_take_groups(products, jnp.asarray(padded)))[: len(piece)])
    return np.concatenate(pieces)


class _Highest:
    """The `size` highest values above a floor of a stream."""

    def __init__(self, floor: np.float32, size: int) -> None:
        self.size = size
        self.floor = floor if size else np.float32(np.inf)
        self._values = np.empty(0, np.float32)
        self._waiting: list[NDArray[np.float32]] = []
        self._num_waiting = 0

    def add(self, values: NDArray[np.float32]) -> None:
        """Takes in values; those at or below the floor change nothing."""
        values = values[values > self.floor]
        self._waiting.append(values)
        self._num_waiting += len(values)
        if self._num_waiting > self.size:
            self._merge()

    @property
    def values(self) -> NDArray[np.float32]:
        """The highest so far, in no order."""
        self._merge()
        return self._values

    def _merge(self) -> None:
        values = np.concatenate([self._values, *self._waiting])
        self._waiting, self._num_waiting = [], 0
        if len(values) > self.size > 0:
            values = np.partition(values, -self.size)[-self.size :]
            self.floor = values.min()
        self._values = values[: self.size]


class _HighestByRow:
    """The `size` highest values above its floor of each row of a stream."""

    def __init__(self, floors: NDArray[np.float32], size: int) -> None:
        self.values = np.full((len(floors), size), -np.inf, np.float32)
        self.floors = floors.copy() if size else np.full_like(floors, np.inf)

    def add(self, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Takes in (row, value), the rows in rising order."""
        is_high = values > self.floors[rows]
        rows, values = rows[is_high], values[is_high]
        if not len(rows):
            return
        starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
        touched, counts = rows[starts], np.diff(np.append(starts, len(rows)))
        size, width = self.values.shape[1], counts.max()
        table = np.full((len(touched), size + width), -np.inf, np.float32)
        table[:, :size] = self.values[touched]
        column = size + np.arange(len(rows)) - np.repeat(starts, counts)
        table[np.repeat(np.arange(len(touched)), counts), column] = values
        table = np.partition(table, width, axis=1)[:, width:]
        self.values[touched] = table
        self.floors[touched] = np.maximum(self.floors[touched], table.min(axis=1))


def default_block_size(num_probes: int) -> int:
    """How many others to score at a time."""
    on_cpu = jax.default_backend() == "cpu"
    block_bytes = _CPU_BLOCK_BYTES if on_cpu else _ACCELERATOR_BLOCK_BYTES
    return max(block_bytes // (4 * num_probes), 8 * _GROUP)


def _count_equal(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    """How many pairs (i, j) have left[i] == right[j]."""
    names, counts = np.unique(left, return_counts=True)
    place = sorted_places(names, right)
    return int(counts[place[place >= 0]].sum())
