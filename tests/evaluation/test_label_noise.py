"""Wrong labels, planted into drawn vectors: what is found, and that a clean set is left alone."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
from on_devices import run_on_devices
from planted_noise import draw_people, flip, join, part

from sphereface_jax.evaluation.label_noise import (
    Finding,
    LabelNoise,
    agreed,
    find_noise,
    learnt_by_heart,
    merged_labels,
    wrong_posterior,
)


def nearest(embeddings: np.ndarray, centres: np.ndarray, labels: np.ndarray) -> SimpleNamespace:
    """What `sphereface_jax.nearest` finds, without compiling anything."""
    cosine = embeddings @ centres.T / np.linalg.norm(centres, axis=1)
    cosine[np.arange(len(labels)), labels] = -np.inf
    return SimpleNamespace(other_class=cosine.argmax(axis=1), other_cosine=cosine.max(axis=1))


look = functools.partial(find_noise, nearest=nearest)


def found(noise: LabelNoise, *actions: str) -> list[Finding]:
    return [each for each in noise.findings if each.action in actions]


def rows(findings: list[Finding]) -> set[int]:
    return {row for each in findings for row in each.images}


@pytest.mark.parametrize("rate", [0.2, 0.4])
def test_planted_flips_are_found_and_moved_home(rate: float) -> None:
    embeddings, truth = draw_people()
    labels = flip(truth, rate)
    noise = look(embeddings, labels)
    wrong, flagged = {*np.flatnonzero(labels != truth).tolist()}, rows(found(noise, "drop", "move"))
    assert len(wrong & flagged) >= 0.95 * max(len(wrong), len(flagged))
    moves = found(noise, "move")
    assert np.mean([truth[move.images[0]] == move.target for move in moves]) >= 0.95
    assert len(moves) >= 0.9 * len(wrong)
    assert noise.wrong == pytest.approx(rate, abs=0.05)
    assert not found(noise, "merge", "split")


@pytest.mark.parametrize("spread", [0.4, 0.8, 1.2])
def test_a_clean_set_is_left_alone(spread: float) -> None:
    embeddings, truth = draw_people(spread=spread)
    noise = look(embeddings, truth)
    assert len(rows(noise.findings)) <= 0.01 * len(truth)
    assert not found(noise, "merge", "split")


def test_people_under_two_names_are_merged() -> None:
    embeddings, truth = draw_people()
    labels = part(truth, 0.3)
    merges = found(look(embeddings, labels), "merge")
    found_pairs = {frozenset((m.identity, m.target)) for m in merges}
    assert found_pairs <= {frozenset((person, person + 60)) for person in range(18)}
    assert len(found_pairs) >= 0.9 * 18
    stands_for = merged_labels(merges, 78)
    np.testing.assert_array_equal(stands_for[labels] == stands_for[labels[0]], truth == 0)


def test_names_of_two_people_are_split_and_strangers_dropped() -> None:
    embeddings, truth = draw_people()
    strangers = draw_people(8, 1, seed=5)[0]
    labels = join(truth, 0.3)
    noise = look(np.concatenate([embeddings, strangers]), np.append(labels, np.arange(30, 38)))
    splits = found(noise, "split")
    # Two people are as unlike as 95 % are; in few dimensions some are more alike.
    assert {each.identity for each in splits} <= set(range(9))
    assert len(splits) >= 7
    for each in splits:
        assert len(set(truth[list(each.images)].tolist())) == 1
        assert len(each.images) >= 15
    dropped = rows(found(noise, "drop"))
    assert len(dropped & set(range(960, 968))) >= 4
    assert len(dropped) <= 10 + 8 * (9 - len(splits))


def test_a_copy_under_another_name_is_dropped_not_moved() -> None:
    embeddings, truth = draw_people()
    copied = np.arange(0, 960, 48)
    noise = look(
        np.concatenate([embeddings, embeddings[copied]]),
        np.append(truth, (truth[copied] + 7) % 60),
    )
    drops = {drop.images[0]: drop for drop in found(noise, "drop")}
    assert {row: drops[row].copy_of for row in range(960, 980)} == dict(
        zip(range(960, 980), copied.tolist(), strict=True)
    )


def test_everything_at_once() -> None:
    embeddings, truth = draw_people(90)
    labels = flip(part(truth, 0.3), 0.2)
    noise = look(embeddings, labels)
    pairs = {frozenset((m.identity, m.target)) for m in found(noise, "merge")}
    assert len(pairs & {frozenset((p, p + 90)) for p in range(27)}) >= 0.9 * max(len(pairs), 27)
    wrong = {*np.flatnonzero(labels % 90 != truth).tolist()}
    flagged = rows(found(noise, "drop", "move"))
    assert len(wrong & flagged) >= 0.9 * max(len(wrong), len(flagged))


def test_flips_that_a_network_has_learnt_are_found() -> None:
    # Training draws a wrong image towards the name that it bears, and away from its own.
    embeddings, truth = draw_people(dim=64)
    labels = flip(truth, 0.4)
    centres = np.stack([embeddings[truth == person].mean(axis=0) for person in range(60)])
    wrong = labels != truth
    embeddings[wrong] += 0.4 * (centres[labels] - centres[truth])[wrong]
    noise = look(embeddings, labels)
    flagged = rows(found(noise, "drop", "move"))
    assert len(flagged & {*np.flatnonzero(wrong).tolist()}) >= 0.95 * max(len(flagged), wrong.sum())
    assert noise.wrong == pytest.approx(0.4, abs=0.05)


def test_names_of_two_people_are_split_among_flips() -> None:
    embeddings, truth = draw_people(dim=64)
    joined = join(truth, 0.2)
    noise = look(embeddings, flip(joined, 0.2))
    assert {each.identity for each in found(noise, "split")} == set(range(6))
    for each in found(noise, "split"):
        people = truth[list(each.images)]
        assert np.mean(people == np.median(people)) >= 0.8


def test_three_names_of_one_person_are_merged() -> None:
    embeddings, truth = draw_people(views=24, seed=1)
    labels = np.where((truth == 5) & (np.arange(len(truth)) % 3 > 0), 60, truth)
    labels[(truth == 5) & (np.arange(len(truth)) % 3 > 1)] = 61
    merges = found(look(embeddings, labels), "merge")
    assert {frozenset((m.identity, m.target)) for m in merges} <= {
        frozenset(pair) for pair in ((5, 60), (5, 61), (60, 61))
    }
    stands_for = merged_labels(merges, 62)
    assert stands_for[5] == stands_for[60] == stands_for[61]


def test_planted_values_stay_where_nothing_else_is_low() -> None:
    rng = np.random.default_rng(0)
    planted, observed = rng.normal(0, 1, 1000), rng.normal(8, 1, 1000)
    belief, share = wrong_posterior(observed, learnt_by_heart(observed, planted))
    assert belief.max() < 0.5
    assert share < 0.01
    moved = learnt_by_heart(np.append(observed, rng.normal(2, 1, 500)), planted)
    assert moved.mean() == pytest.approx(2, abs=0.2)
    same = np.full(5, 3.0)
    np.testing.assert_array_equal(learnt_by_heart(observed, same), same)
    np.testing.assert_array_equal(learnt_by_heart(planted - 9, planted), planted)


def test_a_second_opinion_keeps_what_both_say() -> None:
    drop, move = Finding("drop", 0, -1, (3,), 0.9, 0, 0), Finding("move", 0, 4, (3,), 0.8, 0, 0)
    merge, split = Finding("merge", 1, 2, (), 0.9, 0, 0), Finding("split", 1, -1, (5, 6), 1, 0, 0)
    swapped, smaller = merge._replace(identity=2, target=1), split._replace(images=(5,))
    first = [merge, move, split, drop._replace(images=(9,))]
    assert agreed(first, []) == []
    second = [swapped, move._replace(confidence=0.6), smaller]
    assert agreed(first, second) == [merge, move._replace(confidence=0.6), split]
    (kept,) = agreed([move], [move._replace(target=5)])
    assert (kept.action, kept.target) == ("drop", -1)
    assert agreed([drop], [split._replace(images=(2, 3))]) == [drop]
    assert agreed([split], [split._replace(images=(6, 7, 8))]) == []


def test_the_posterior_is_the_share_where_kinds_are_apart() -> None:
    rng = np.random.default_rng(0)
    observed = np.concatenate([rng.normal(0, 1, 300), rng.normal(8, 1, 700)])
    belief, share = wrong_posterior(observed, rng.normal(0, 1, 1000))
    assert share == pytest.approx(0.3, abs=0.04)
    assert belief[:300].min() > 0.5
    assert belief[300:].max() < 0.1


def test_small_and_odd_sets() -> None:
    embeddings, truth = draw_people(4, 3)
    noise = look(embeddings[:7], truth[:7])  # the third person has one image
    assert np.isnan(noise.own_cosine[6])
    assert 6 not in rows(noise.findings)
    gap = look(embeddings, truth * 3)  # labels without images
    assert set(gap.other_class.tolist()) <= {0, 3, 6, 9}
    look(embeddings[:6], truth[:6])  # two people


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (np.zeros(6, int), {}, "two identities or more"),
        (np.arange(6), {}, "at most 1"),
        (np.arange(6) % 2, {}, "this network cannot judge these labels"),
        (np.arange(6) // 3, {"confidence": 0.0}, r"confidence: expected a number in \(0, 1\]"),
    ],
)
def test_what_cannot_be_judged_is_refused(labels: np.ndarray, options: dict, said: str) -> None:
    embeddings = np.eye(6)[[0, 0, 0, 1, 1, 1]]
    with pytest.raises(ValueError, match=said):
        look(embeddings, labels, **options)


def test_identities_that_are_all_alike_are_refused() -> None:
    # Few dimensions, and all images on one side: what a network says that has learnt nothing.
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 8)
    centres = np.eye(1, 3) * 3 + 0.2 * rng.normal(size=(3, 3))
    embeddings = centres[labels] + 0.2 * rng.normal(size=(24, 3))
    with pytest.raises(ValueError, match="all identities look like one to this network"):
        look(embeddings, labels)


@pytest.mark.slow
def test_dense_blocks_and_class_parallel_decide_alike() -> None:
    run_on_devices("clean_decides_alike")
