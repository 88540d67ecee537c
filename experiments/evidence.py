"""Do intervals hold the truth, are likelihood ratios calibrated, and is a biased group named?

Simulated people, whose error rates are known, test the intervals and the groups. Stored vectors of
LFW test the rest on people held out: the interval of one half's pairs against the other half's
rate, Cllr against its minimum, and searches by people who are enrolled and by strangers.

    python -m experiments.evidence --vectors lfw_vectors.npz --pairs lfw/pairs.txt
    python -m experiments.evidence --draws 20    # simulated people alone

Results go to --out as JSON, never over earlier ones.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from scipy.stats import norm

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.pages import RESULTS
from sphereface_jax.data.vectors import FaceVectors, identity_of, load_vectors
from sphereface_jax.evaluation.groups import group_errors
from sphereface_jax.evaluation.identification import lfw_identification
from sphereface_jax.evaluation.likelihood import cllr, fit_likelihood, likelihood_curve, min_cllr
from sphereface_jax.evaluation.pairs import paired_cosines, unit_rows
from sphereface_jax.evaluation.rates import compare_strangers, pair_rate, tail_rate
from sphereface_jax.references import ReferenceSet
from sphereface_jax.tasks.pair_list import PairsTask

SPREAD, DIFFERENT, SAME, SHARED = 0.1, 0.1, 0.5, 0.2
DRAWN = 1500


@dataclass(frozen=True)
class Options:
    """What to measure on."""

    vectors: tuple[Path, ...] = ()
    """Stored vectors of LFW's images, one file per network."""
    pairs: Path | None = None
    """LFW's pairs.txt."""
    draws: int = 500
    """Simulated populations, and splits of LFW's people."""
    out: Path = RESULTS / "evidence_lfw.json"
    """Where to write the results."""


def population(rng: np.random.Generator, people: int, pairs: int, groups: int = 1):
    """Cosines of normal densities, a fifth of whose variance belongs to the people of a pair.

    Returns:
      (cosines, is_same, left, right), pairs of either kind; both people are of one group, their
      number modulo `groups`.
    """
    effect = rng.standard_normal(people)
    i, k = rng.integers(people, size=(2, pairs))
    j = (i + groups * rng.integers(1, people // groups, size=pairs)) % people
    noise = np.sqrt(1 - SHARED) * rng.standard_normal((2, pairs))
    different = DIFFERENT + SPREAD * (np.sqrt(SHARED / 2) * (effect[i] + effect[j]) + noise[0])
    same = SAME + SPREAD * (np.sqrt(SHARED) * effect[k] + noise[1])
    is_same = np.repeat([False, True], pairs)
    return np.append(different, same), is_same, np.append(i, k), np.append(j, k)


def coverage(draws: int) -> dict[str, Any]:
    """How many intervals of 95 % hold the true rate, or the true likelihood ratio."""
    held: dict[str, list[bool]] = {}
    for seed in range(draws):
        cosines, same, left, right = population(np.random.default_rng(seed), 1000, 3000)
        for rate in (1e-1, 1e-2, 1e-3):
            above = DIFFERENT + SPREAD * norm.isf(rate)
            found = tail_rate(cosines[~same], left[~same], right[~same], at_least=above)
            held.setdefault(f"FAR {rate:g}", []).append(found.low <= rate <= found.high)
            below = cosines[same] <= SAME + SPREAD * norm.ppf(rate)
            found = pair_rate(below, left[same], right[same])
            held.setdefault(f"FRR {rate:g}", []).append(found.low <= rate <= found.high)
    for seed in range(draws):
        drawn = population(np.random.default_rng(10_000 + seed), 500, 1500)
        curve = likelihood_curve(*drawn, num_draws=200, seed=seed)
        for cosine in (0.25, 0.3, 0.35):
            truth = np.exp(((cosine - DIFFERENT) ** 2 - (cosine - SAME) ** 2) / (2 * SPREAD**2))
            _, low, high = curve.at(cosine)
            held.setdefault(f"LR at cosine {cosine:g}", []).append(low <= truth <= high)
    return {
        name: {"covered": float(np.mean(values)), "draws": len(values)}
        for name, values in held.items()
    }


def groups(draws: int) -> dict[str, Any]:
    """How often the group with a planted bias is named, and how often any in fair data."""
    counts = {"planted": 0, "another": 0, "fair": 0}
    for seed in range(draws):
        for biased in (False, True):
            rng = np.random.default_rng(seed)
            cosines, same, left, right = population(rng, 600, 3000, groups=3)
            names = np.array(["a", "b", "c"])[left % 3]
            if biased:
                cosines = cosines + 0.5 * SPREAD * ((names == "c") & ~same)
            worst = group_errors(
                cosines, same, left, right, names, names, threshold=DIFFERENT + 2 * SPREAD
            ).worst
            if not biased:
                counts["fair"] += bool(worst)
            else:
                counts["planted"] += worst.get("false_accepts") == "c"
                counts["another"] += bool(set(worst.values()) - {"c"})
    return {"draws": draws, "pairs_per_kind": 3000, "people": 600, "named": counts}


def listed(vectors: FaceVectors, pairs: Path):
    """(cosines, is_same, left person, right person) of LFW's pairs."""
    matched = PairsTask(pairs).match(vectors)
    assert matched.tested is not None
    chosen, people = matched.tested.pairs, np.array(matched.tested.people)
    cosines = paired_cosines(vectors.features(), chosen)
    return cosines, chosen.is_same, people[chosen.left], people[chosen.right]


def halves(vectors: FaceVectors, pairs: Path, draws: int) -> dict[str, Any]:
    """Splits people in halves: intervals and calibrations of one, rates and Cllr of the other.

    The pairs of a half are drawn anew for each split; the list's own are one draw, and whether its
    rate happens to be that of all pairs decides how many splits hold it.
    """
    cosines, same, left, right = listed(vectors, pairs)
    people = np.array([identity_of(path) for path in vectors.paths])
    names, first = np.unique(people, return_index=True)
    unit = unit_rows(vectors.features()[first]).astype(np.float32)
    all_pairs = unit @ unit.T
    number = {name: place for place, name in enumerate(names.tolist())}
    i, j = (np.array([number[name] for name in side.tolist()]) for side in (left, right))
    held: dict[str, list[bool]] = {}
    gaps: dict[str, list[float]] = {}
    for seed in range(draws):
        half = np.random.default_rng(seed).permutation(len(names)) < len(names) // 2
        mine, theirs = half[i] & half[j], ~half[i] & ~half[j]
        drawn = np.random.default_rng([seed, 1]).choice(np.flatnonzero(half), (2, DRAWN))
        drawn = drawn[:, drawn[0] != drawn[1]]
        others = all_pairs[np.ix_(~half, ~half)][np.triu_indices((~half).sum(), 1)]
        for target in (1e-1, 1e-2):
            threshold = np.quantile(others, 1 - target)
            rows = mine & ~same
            found = tail_rate(cosines[rows], left[rows], right[rows], at_least=threshold)
            held.setdefault(f"FAR {target:g}, list", []).append(found.low <= target <= found.high)
            found = tail_rate(all_pairs[*drawn], *drawn, at_least=threshold)
            held.setdefault(f"FAR {target:g}", []).append(found.low <= target <= found.high)
        if seed < 100:
            for method in ("logistic", "isotonic"):
                fit = fit_likelihood(cosines[mine], same[mine], method=method)
                cost = cllr(fit(cosines[theirs]), same[theirs])
                gaps.setdefault(method, []).append(cost - min_cllr(cosines[theirs], same[theirs]))
    whole = all_pairs[np.triu_indices(len(names), 1)]
    return {
        "covered": {name: float(np.mean(values)) for name, values in held.items()},
        "far_of_the_list": {
            f"{target:g}": float(np.mean(cosines[~same] >= np.quantile(whole, 1 - target)))
            for target in (1e-1, 1e-2)
        },
        "splits": draws,
        "cllr_minus_min": {
            name: {"mean": float(np.mean(v)), "worst": float(np.max(v)), "splits": len(v)}
            for name, v in gaps.items()
        },
    }


def open_set(vectors: FaceVectors) -> dict[str, Any]:
    """Enrols a picture of everybody who has two, and searches for their others and for strangers.

    Half of the people with one picture calibrate; the other half are the strangers who search.
    """
    people = np.array([identity_of(path) for path in vectors.paths])
    features = vectors.features()
    order = np.lexsort((vectors.paths, people))
    _, start, count = np.unique(people[order], return_index=True, return_counts=True)
    firsts = order[start]
    enrolled, single = firsts[count > 1], firsts[count == 1]
    mated = np.setdiff1d(order, firsts)
    single = np.random.default_rng(0).permutation(single)
    known, strangers = np.split(single, 2) if len(single) % 2 == 0 else np.split(single[1:], 2)
    references = ReferenceSet("vectors")
    for row in enrolled.tolist():
        references.enroll(str(people[row]), features[[row]])
    table = compare_strangers(features[known], people[known])
    beside = lfw_identification(vectors.paths, features, open_set=True).dir_at_far
    found = {}
    for target, name in ((1e-1, "1e-1"), (1e-2, "1e-2")):
        threshold = table.threshold(target, len(references))
        answers = references.identify(features[mated], threshold=threshold)
        right = [
            bool(answer) and answer[0].name == people[row]
            for answer, row in zip(answers, mated, strict=True)
        ]
        alarms = references.identify(features[strangers], threshold=threshold)
        expected = table.false_hits(threshold, len(references))
        found[name] = {
            "threshold": threshold,
            "expected_false_hits": [expected.low, expected.rate, expected.high],
            "false_hits": float(np.mean([bool(answer) for answer in alarms])),
            "identified": float(np.mean(right)),
            "evaluate_dir": beside[name],
        }
    return {
        "enrolled": len(references),
        "mated_probes": len(mated),
        "strangers": len(strangers),
        "calibration_people": len(known),
        "at_false_hit_rate": found,
    }


def main(options: Options) -> None:
    """Measures, prints and keeps the numbers."""
    if bool(options.vectors) != (options.pairs is not None):
        raise ValueError("--vectors, --pairs: expected both or neither")
    start = time.perf_counter()
    results: dict[str, Any] = {
        "coverage": coverage(options.draws),
        "groups": groups(min(options.draws, 100)),
        "lfw": {},
    }
    for path in options.vectors:
        assert options.pairs is not None
        vectors = load_vectors(path)
        results["lfw"][path.stem] = {
            "halves": halves(vectors, options.pairs, options.draws),
            "open_set": open_set(vectors),
        }
    results |= {"machine": describe_machine(), "seconds": time.perf_counter() - start}
    write_results(options.out, results)


if __name__ == "__main__":
    main(tyro.cli(Options))
