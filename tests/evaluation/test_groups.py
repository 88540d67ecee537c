"""A planted bias is found and named; fair data accuses nobody."""

from pathlib import Path

import numpy as np
import pytest

from sphereface_jax.data.lfw_list import read_groups
from sphereface_jax.evaluation.calibration import TooFewPairsError, far_point
from sphereface_jax.evaluation.groups import ACROSS, group_errors, pair_groups
from sphereface_jax.evaluation.likelihood import fit_likelihood


def planted(seed: int, *, shift: float, people: int = 300, pairs: int = 4000):
    """Three groups; strangers of group c score `shift` higher. Some pairs are across groups."""
    rng = np.random.default_rng(seed)
    group = np.array(["a", "b", "c"])[np.arange(people) % 3]
    effect = rng.standard_normal(people)
    i = rng.integers(people, size=pairs)
    j = (i + 3 * rng.integers(1, people // 3, size=pairs)) % people
    j[: pairs // 10] = (i[: pairs // 10] + 1) % people
    is_same = np.arange(pairs) % 2 == 0
    j = np.where(is_same, i, j)
    noise = np.sqrt(0.1) * (effect[i] + effect[j]) + np.sqrt(0.8) * rng.standard_normal(pairs)
    biased = (group[i] == "c") & (group[j] == "c") & ~is_same
    cosines = np.where(is_same, 0.5, 0.1) + 0.1 * noise + shift * biased
    return cosines, is_same, i, j, group[i], group[j]


def test_a_planted_bias_is_named_and_a_threshold_offered() -> None:
    cosines, is_same, *rest = planted(0, shift=0.1)
    report = group_errors(
        cosines, is_same, *rest, threshold=0.3, calibration=fit_likelihood(cosines, is_same)
    )
    assert report.worst == {"false_accepts": "c"}
    assert list(report.groups) == ["a", "b", "c", ACROSS]
    worst, fair = report.groups["c"], report.groups["a"]
    assert worst.false_accepts.low > fair.false_accepts.high
    assert worst.cllr - worst.min_cllr > fair.cllr - fair.min_cllr
    inside = np.isin(rest[2], ["c"]) & (rest[3] == "c") & ~is_same
    overall = np.mean(cosines[~is_same] > 0.3)
    assert report.threshold_for_worst > 0.3
    assert np.mean(cosines[inside] > report.threshold_for_worst) <= overall
    assert report.to_json()["groups"]["c"]["false_accepts"]["trials"] == inside.sum()


def test_draws_of_biased_and_of_fair_data() -> None:
    named = [group_errors(*planted(s, shift=0.08), threshold=0.3).worst for s in range(12)]
    assert sum(found.get("false_accepts") == "c" for found in named) >= 11
    fair = [group_errors(*planted(s, shift=0.0), threshold=0.3).worst for s in range(24)]
    assert sum(map(bool, fair)) <= 1


def test_the_error_is_that_of_all_groups_and_both_kinds_together() -> None:
    data = planted(4, shift=0.05)
    p_values = group_errors(*data, threshold=0.3).p_values
    smallest = min(p for of_kind in p_values.values() for p in of_kind.values())
    for factor, named in ((5.9, 0), (6.1, 1)):
        assert len(group_errors(*data, threshold=0.3, error=factor * smallest).worst) == named


def test_a_small_group_is_said_to_be_too_small() -> None:
    cosines, is_same, i, j, left, right = planted(1, shift=0.0)
    left, right = left.copy(), right.copy()
    few = np.flatnonzero((left == "c") & (right == "c") & ~is_same)[40:]
    left[few] = ""
    report = group_errors(cosines, is_same, i, j, left, right, threshold=0.3)
    assert "too few to show" in report.groups["c"].too_small
    assert report.groups["a"].too_small == ""
    assert report.worst == {}
    assert report.threshold_for_worst is None


def test_the_offered_threshold_is_that_of_the_groups_own_pairs() -> None:
    with pytest.raises(TooFewPairsError):
        far_point([0.1, 0.9], [False, True], max_far=0.1)
    assert pair_groups(["a", "b"], ["a", ""]).tolist() == ["a", ""]


def test_bad_input_is_named() -> None:
    cosines, is_same, i, j, left, right = planted(2, shift=0.0)
    with pytest.raises(ValueError, match="two groups or more, found 1"):
        group_errors(cosines, is_same, i, j, ["a"] * len(i), ["a"] * len(i), threshold=0.3)
    with pytest.raises(ValueError, match="right_groups"):
        group_errors(cosines, is_same, i, j, left, right[1:], threshold=0.3)
    with pytest.raises(ValueError, match="error: expected"):
        group_errors(cosines, is_same, i, j, left, right, threshold=0.3, error=1)


@pytest.mark.parametrize("line", ["m000", "m000\t", "m000 m w"])
def test_a_line_that_is_not_a_name_and_a_group_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "groups.txt"
    path.write_text(f"m001\tm\n{line}\n")
    with pytest.raises(ValueError, match=r"groups.txt:2: expected 'Name<TAB>group', found 'm000"):
        read_groups(path)
