"""Operating points: thresholds and error rates that can be counted by hand."""

import numpy as np
import pytest

from sphereface_jax.evaluation.calibration import (
    TooFewPairsError,
    best_accuracy_point,
    describe_rate,
    far_point,
)

COSINES = np.array([0.9, 0.8, 0.3, 0.6, 0.2, 0.1, 0.0])
IS_SAME = np.array([True, True, True, False, False, False, False])


def test_the_best_accuracy_point_on_paper() -> None:
    # One mistake is the least: the same pair at 0.3, anywhere from 0.6001 to 0.7999, or the
    # different pair at 0.6, from 0.2001 to 0.2999.
    thresholds = np.concatenate([np.arange(2001, 3000), np.arange(6001, 8000)]) / 10000
    point = best_accuracy_point(COSINES, IS_SAME)
    assert point.threshold == pytest.approx(thresholds.mean(), abs=1e-12)
    # The mean of two separate plateaus need not lie on either; what is stored is measured there.
    assert point.false_accept_rate == pytest.approx(1 / 4)
    assert point.false_reject_rate == pytest.approx(1 / 3)
    assert (point.num_same, point.num_different) == (3, 4)
    assert point.to_json()["threshold"] == point.threshold


@pytest.mark.parametrize(
    ("max_far", "threshold", "far", "frr"),
    [(0.25, 0.2, 0.25, 0.0), (0.49, 0.2, 0.25, 0.0), (0.5, 0.1, 0.5, 0)],
)
def test_the_far_point_on_paper(max_far: float, threshold: float, far: float, frr: float) -> None:
    point = far_point(COSINES, IS_SAME, max_far=max_far)
    assert point.threshold == threshold
    assert point.false_accept_rate == far
    assert point.false_reject_rate == pytest.approx(frr)


def test_ties_never_exceed_the_allowed_far() -> None:
    point = far_point([0.9, 0.5, 0.5, 0.5, 0.1], [True, False, False, False, False], max_far=0.25)
    assert point.false_accept_rate == 0.0
    assert point.threshold == 0.5


def test_a_far_that_the_pairs_cannot_show_is_refused() -> None:
    message = (
        r"fewer than 1 in 4 .* cannot be shown with 4 pairs of different people; 1e-06 takes 1,0"
    )
    with pytest.raises(TooFewPairsError, match=message):
        far_point(COSINES, IS_SAME, max_far=1e-6)


def test_no_error_on_few_pairs_is_not_said_to_be_a_rate_of_zero() -> None:
    assert describe_rate(0.0, 10) == "fewer than 1 in 10"
    assert describe_rate(1 / 3000, 3000) == "1 in 3,000"
    assert describe_rate(0.25, 4) == "25.00%"


@pytest.mark.parametrize("max_far", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_that_is_none_is_refused(max_far: float) -> None:
    with pytest.raises(ValueError, match="max_far: expected a rate"):
        far_point(COSINES, IS_SAME, max_far=max_far)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="found no different pairs"):
        best_accuracy_point([0.1], [True])
    with pytest.raises(ValueError, match="scores: expected finite"):
        best_accuracy_point([0.1, np.nan], [True, False])
