"""Exact search, maps between networks, and refusing short embeddings."""

import numpy as np
import pytest

from sphereface_jax.evaluation.bridge import candidate_maps, cross_tar, fit_procrustes, fit_ridge
from sphereface_jax.evaluation.pairs import Pairs, unit_rows
from sphereface_jax.evaluation.quality import error_versus_reject
from sphereface_jax.evaluation.search import ReferenceIndex


@pytest.mark.parametrize("count", [1, 31, 32, 33, 1000, 70_001])
def test_search_finds_what_a_full_product_finds(count: int) -> None:
    rng = np.random.default_rng(count)
    references = rng.normal(size=(count, 16)) * rng.uniform(0.1, 9, size=(count, 1))
    probes = rng.normal(size=(5, 16))
    rows, cosines = ReferenceIndex(references).search(probes, k=3)
    full = unit_rows(probes) @ unit_rows(references).T
    expected = np.argsort(-full, axis=1)[:, :3]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(cosines, np.take_along_axis(full, expected, axis=1), atol=1e-6)


def test_equal_references_come_in_their_order_and_negative_cosines_are_found() -> None:
    index = ReferenceIndex(np.repeat([[1.0, 0.0]], 70, axis=0))
    assert index.search([[1.0, 0.0]], k=3)[0].tolist() == [[0, 1, 2]]
    rows, cosines = index.search([[-1.0, 0.0]], k=1)
    assert cosines.tolist() == [[-1.0]]
    assert rows[0, 0] < 70


def test_bad_searches_are_named() -> None:
    index = ReferenceIndex(np.eye(3))
    with pytest.raises(ValueError, match="probes: expected width 3, got 2"):
        index.search(np.eye(2))
    with pytest.raises(ValueError, match="k: expected at least 1"):
        index.search(np.eye(3), k=0)
    with pytest.raises(ValueError, match="references: expected nonzero rows"):
        ReferenceIndex(np.zeros((2, 3)))


def test_procrustes_undoes_a_rotation_and_ridge_an_affine_map() -> None:
    rng = np.random.default_rng(0)
    old = unit_rows(rng.normal(size=(200, 6)))
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    found = fit_procrustes(3 * old, old @ rotation)
    np.testing.assert_allclose(found.weights, rotation, atol=1e-10)
    new = unit_rows(old @ rng.normal(size=(6, 4)) + 0.3)
    by_ridge = np.einsum("nd,nd->n", fit_ridge(old, new, penalty=1e-6)(old), new)
    by_rotation = np.einsum("nd,nd->n", fit_procrustes(old, new)(old), new)
    assert by_ridge.mean() > 0.95
    assert by_ridge.mean() > by_rotation.mean()
    assert len({each.kind for each in candidate_maps(old, new)}) > 3


def test_cross_tar_on_paper() -> None:
    # Old and new vectors of two pictures each of four people; one picture is lost in the new.
    new = np.eye(5)[[0, 0, 1, 1, 2, 2, 3, 4]]
    old = np.eye(5)[[0, 0, 1, 1, 2, 2, 3, 3]]
    found = cross_tar(old, new, [0, 0, 1, 1, 2, 2, 3, 3], far=0.1)
    assert found.tar.rate == pytest.approx(7 / 8)
    assert (found.tar.trials, found.num_different) == (8, 48)


def test_bad_bridges_are_named() -> None:
    with pytest.raises(ValueError, match="new: expected 3 rows, as in old, got 2"):
        fit_procrustes(np.eye(3), np.eye(3)[:2])
    with pytest.raises(ValueError, match="penalty"):
        fit_ridge(np.eye(3), np.eye(3), penalty=0)
    with pytest.raises(ValueError, match="old: expected width 3, got 2"):
        fit_procrustes(np.eye(3), np.eye(3))(np.eye(2))
    with pytest.raises(ValueError, match="at least 1000 different ones"):
        cross_tar(np.eye(3)[[0, 0, 1]], np.eye(3)[[0, 0, 1]], [0, 0, 1], far=1e-3)


def test_refusing_short_embeddings_lowers_errors_where_length_tells_quality() -> None:
    rng = np.random.default_rng(0)
    quality = rng.uniform(size=400)
    pairs = Pairs(range(0, 400, 2), range(1, 400, 2), is_same=[True, False] * 100, folds=[0] * 200)
    lowest = np.minimum(quality[::2], quality[1::2])
    cosines = np.where(pairs.is_same, lowest, 0.1)
    curve = error_versus_reject(cosines, pairs, quality, threshold=0.2, fractions=[0, 0.1, 0.3])
    assert curve.false_reject_rate[0] > curve.false_reject_rate[1] > curve.false_reject_rate[2] == 0
    assert curve.false_accept_rate == (0, 0, 0)
    assert curve.rejected == pytest.approx((0, 0.1, 0.3))
    assert curve.pairs_kept[0] == 200
    with pytest.raises(ValueError, match="quality: expected finite"):
        error_versus_reject(cosines, pairs, quality * np.nan, threshold=0.2)
    with pytest.raises(ValueError, match="fractions"):
        error_versus_reject(cosines, pairs, quality, threshold=0.2, fractions=[1.0])
