"""Tables of what protocols measured: all of one run's numbers, or one number of several runs."""

from collections.abc import Sequence

from sphereface_jax.reports.html import table
from sphereface_jax.reports.run_record import RunRecord, Score

_RANKS = ("1", "5", "10")


def tables_of_one(run: RunRecord) -> list[str]:
    """Every number of every protocol of a run, a table a kind."""
    deciding = [score for score in run.scores if "auc" in score.numbers]
    finding = [score for score in run.scores if "rank_k" in score.numbers]
    tables = []
    if deciding:
        places = {score.on for score in deciding}
        where = f" on {places.pop()}" if len(places) == 1 else ""
        fars = list(dict.fromkeys(f for s in deciding for f in s.numbers.get("tar_at_far", {})))
        headings = ["protocol", "on", "accuracy", "95 % interval", "AUC", "EER"]
        headings += [f"TAR at {far}" for far in fars] + ["mirror", "threshold"]
        rows = [_verification_row(score, fars) for score in deciding]
        if where:
            headings, rows = headings[:1] + headings[2:], [row[:1] + row[2:] for row in rows]
        optimistic = any(score.numbers.get("optimistic") for score in deciding)
        note = "; * its threshold is chosen on the pairs it is scored on" * optimistic
        tables.append(table(headings, rows, caption=f"Verification{where}{note}"))
    if finding:
        headings = ["protocol", "on", "rank 1", "rank 5", "rank 10", "searches", "DIR at FAR"]
        rows = [_identification_row(score) for score in finding]
        tables.append(table(headings, rows, caption="Identification: who is it?"))
    shapes = [score for score in run.scores if "angular_fisher_score" in score.numbers]
    if shapes:
        headings = ["protocol", "on", "angular Fisher", "to own mean", "nearest other", "people"]
        rows = [_geometry_row(score) for score in shapes]
        tables.append(table(headings, rows, caption="Geometry: how do people lie?"))
    return tables


def _accuracy(score: Score) -> str:
    if not score.verifies:
        return "–"
    spread = score.numbers.get("accuracy_std")
    star = "*" if score.numbers.get("optimistic") else ""
    said = f"{score.numbers['accuracy_10_fold']:.2%}"
    return said + (f" ± {spread:.2%}" if spread is not None else "") + star


def _verification_row(score: Score, fars: Sequence[str]) -> list[str]:
    numbers = score.numbers
    interval = numbers.get("intervals_95", {}).get("accuracy_10_fold")
    return [
        score.protocol,
        score.on,
        _accuracy(score),
        f"{100 * interval[0]:.1f} – {interval[1]:.1%}" if interval else "–",
        f"{numbers['auc']:.4f}",
        f"{numbers['equal_error_rate']:.2%}",
        *(_share(numbers["tar_at_far"].get(far)) for far in fars),
        numbers.get("flip", "–"),
        f"{numbers['threshold']:.3f}" if "threshold" in numbers else "–",
    ]


def _share(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.1%}"


def _identification_row(score: Score) -> list[str]:
    numbers = score.numbers
    alarms = ", ".join(
        f"{rate:.1%} at {far}" for far, rate in numbers["dir_at_far"].items() if rate is not None
    )
    ranks = [_share(numbers["rank_k"].get(rank)) for rank in _RANKS]
    searches = numbers.get("num_searches", 0)
    return [score.protocol, score.on, *ranks, f"{searches:,}", alarms or "–"]


def _geometry_row(score: Score) -> list[str]:
    angles = score.numbers["angles"]
    return [
        score.protocol,
        score.on,
        f"{score.numbers['angular_fisher_score']:.4f}",
        f"{angles['intra_class_mean']:.1f}° ± {angles['intra_class_std']:.1f}°",
        f"{angles['inter_class_nearest_mean']:.1f}°",
        f"{angles['num_classes']:,}",
    ]


def table_of_many(runs: Sequence[RunRecord]) -> str:
    """The first number of every protocol, a column a run."""
    by_run = [{(s.protocol, s.on): s for s in run.scores} for run in runs]
    keys = list(dict.fromkeys(key for each in by_run for key in each))
    rows = []
    for protocol, on in keys:
        cells = [_headline(each.get((protocol, on))) for each in by_run]
        if any(cells):
            rows.append([protocol, on, *(cell or "–" for cell in cells)])
    return table(
        ["protocol", "on", *(run.name for run in runs)],
        rows,
        caption="Accuracy of verification (or AUC), rank-1 rate of identification",
    )


def _headline(score: Score | None) -> str | None:
    if score is None:
        return None
    if score.verifies:
        return _accuracy(score)
    if "rank_k" in score.numbers:
        return f"{score.numbers['rank_k']['1']:.2%} rank 1"
    return f"AUC {score.numbers['auc']:.4f}" if "auc" in score.numbers else None
