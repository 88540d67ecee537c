"""Plots of decisions: angles of pairs, ROC, DET, and every protocol side by side."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from sphereface_jax.evaluation.calibration import best_accuracy_point
from sphereface_jax.evaluation.pairs import to_degrees
from sphereface_jax.evaluation.roc import (
    RocCurve,
    equal_error_rate,
    far_name,
    roc_curve,
    tar_at_far,
)
from sphereface_jax.reports.plot import (
    DASHES,
    DIFFERENT,
    SAME,
    Plot,
    axis,
    histogram,
    line,
    make_figure,
    percent_axis,
    steps,
    titled,
    tone,
    vertical,
)
from sphereface_jax.reports.run_record import RunRecord, Score
from sphereface_jax.reports.stored import StoredPairs

_FARS = (1e-1, 1e-2, 1e-3)
_BIN = 2.0
_MOST_POINTS = 400
_RATES = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8)
_PROBIT = NormalDist().inv_cdf


def threshold_of(run: RunRecord, title: str) -> float:
    """The cosine above which a run takes a pair of a list for one person.

    That of `sphereface compare` where it was measured on this list, else the best for it.

    Args:
      run: that has scores of the list.
      title: of the list.

    Returns:
      The cosine.
    """
    if run.calibration is not None and run.calibration["pairs"] == title:
        return float(run.calibration["threshold"])
    stored = run.pairs[title]
    return best_accuracy_point(stored.cosine, stored.is_same).threshold


def angle_plots(runs: Sequence[RunRecord], title: str) -> list[Plot]:
    """The angles of same and different pairs of a list.

    Args:
      runs: of the report.
      title: of the list.

    Returns:
      A plot for each run that has the list.
    """
    return [_angles(run, title, alone=len(runs) == 1) for run in runs if title in run.pairs]


def _angles(run: RunRecord, title: str, *, alone: bool) -> Plot:
    stored = run.pairs[title]
    angle, same = to_degrees(stored.cosine), stored.is_same
    boundary = float(to_degrees(threshold_of(run, title)))
    low, high = _BIN * np.floor(angle.min() / _BIN), _BIN * np.ceil(angle.max() / _BIN)
    edges = np.arange(low, max(high, low + _BIN) + _BIN / 2, _BIN)
    shares = [histogram(angle[chosen], edges) for chosen in (same, ~same)]
    named = (
        (shares[0], "same person", SAME, angle[same]),
        (shares[1], "different people", DIFFERENT, angle[~same]),
    )
    traces = [
        line(
            *steps(edges, share),
            f"{name}, mean {values.mean():.1f}°",
            colour,
            fill=0.22,
            hovertemplate="%{x:.0f}°: %{y:.1%}<extra></extra>",
        )
        for share, name, colour, values in named
    ]
    top = max(share.max() for share in shares)
    traces.append(vertical(boundary, 1.08 * top, f"threshold {boundary:.1f}°"))
    figure = make_figure(
        traces,
        xaxis=axis("angle between the two embeddings", ticksuffix="°"),
        yaxis=percent_axis("fraction of the pairs", rangemode="tozero"),
    )
    return Plot(
        titled("" if alone else run.name, f"angles of the pairs of {title}"),
        "Two hills that do not meet would be a perfect run. What lies left of the threshold under "
        "the orange hill is falsely accepted, what lies right of it under the blue one falsely "
        "rejected.",
        f"Histograms of the angles of {same.sum():,} same pairs, mean {angle[same].mean():.1f}°, "
        f"and {(~same).sum():,} different pairs, mean {angle[~same].mean():.1f}°; the threshold "
        f"is {boundary:.1f}°.",
        figure,
        wide=alone,
    )


def roc_plots(runs: Sequence[RunRecord], title: str) -> list[Plot]:
    """ROC and DET of a list: a curve a protocol for one run, a curve a run for several.

    Args:
      runs: of the report; at least one has the list.
      title: of the list.

    Returns:
      The ROC and the DET.
    """
    curves = _curves(runs, title)
    first_name, first_number, first = curves[0]
    thresholds = [
        (run.calibration, number)
        for number, run in enumerate(runs)
        if run.calibration is not None and run.calibration["pairs"] == title
    ]
    error = equal_error_rate(first)
    rates = tar_at_far(first, _FARS)
    smallest = min(float(curve.far[curve.far > 0][0]) for _, _, curve in curves)
    roc, det = [_chance(smallest)], []
    for place, (name, number, curve) in enumerate(curves):
        dash = DASHES[place % len(DASHES)]
        roc.append(line(*_thin(curve), name, number, line={"dash": dash, "shape": "hv"}))
        det.append(line(*_det(curve), name, number, line={"dash": dash}))
    shown = {far: tar for far in _FARS if (tar := rates[far_name(far)]) is not None}
    reached = {far: tar for far, tar in shown.items() if far >= smallest}
    if reached:
        roc.append(_points(list(reached), list(reached.values()), "operating points", first_number))
    det.append(
        _points([_probit(error)], [_probit(error)], f"equal error {error:.1%}", first_number)
    )
    for point, number in thresholds:
        where = f"threshold of {runs[number].name}" if len(runs) > 1 else "stored threshold"
        far_here, frr_here = point["false_accept_rate"], point["false_reject_rate"]
        if 0 < far_here < 1:
            roc.append(_points([far_here], [1 - frr_here], where, number, "x"))
        if 0 < far_here < 1 and 0 < frr_here < 1:
            det.append(_points([_probit(far_here)], [_probit(frr_here)], where, number, "x"))
    return [_roc(roc, title, first_name, shown), _det_plot(det, title, first_name, error)]


def _chance(smallest: float) -> go.Scatter:
    far = np.geomspace(smallest, 1, 60)
    dotted = {"dash": "dot", "width": 1}
    return line(far, far, "chance", "soft", line=dotted, showlegend=False)


def _roc(traces: list[go.Scatter], title: str, name: str, rates: dict[float, float]) -> Plot:
    said = ", ".join(f"{rate:.1%} at FAR {far_name(far)}" for far, rate in rates.items())
    figure = make_figure(
        traces,
        xaxis=axis(
            "false accept rate",
            type="log",
            tickvals=[10.0**-power for power in range(7)],
            ticktext=["1", "10⁻¹", "10⁻²", "10⁻³", "10⁻⁴", "10⁻⁵", "10⁻⁶"],
        ),
        yaxis=percent_axis("true accept rate", range=[0, 1.02]),
        legend={"orientation": "v", "x": 0.99, "xanchor": "right", "y": 0.02, "yanchor": "bottom"},
    )
    return Plot(
        f"ROC on {title}",
        "Higher and further left is better. Read it where you would work: a door that lets one "
        "stranger in a thousand pass is at 10⁻³. Circles are the first curve's at 10⁻¹, 10⁻², "
        "10⁻³; the leftmost steps rest on very few pairs.",
        f"Receiver operating characteristic on {title}; true accept rate of {name}: {said}.",
        figure,
        height=23,
    )


def _det_plot(traces: list[go.Scatter], title: str, name: str, error: float) -> Plot:
    ticks = {
        "tickvals": [_probit(rate) for rate in _RATES],
        "ticktext": [f"{100 * rate:g} %" for rate in _RATES],
        "tickangle": 0,
    }
    low, high = _probit(0.0007), _probit(0.85)
    figure = make_figure(
        traces,
        xaxis=axis("false accepts", range=[low, high], **ticks),
        yaxis=axis("false rejects", range=[low, high], **ticks),
        legend={"orientation": "v", "x": 0.99, "xanchor": "right", "y": 0.98, "yanchor": "top"},
    )
    return Plot(
        f"DET on {title}",
        "Both errors on normal scales: lower and further left is better, straight lines are "
        "Gaussian scores. The circle is where both errors are equal.",
        f"Detection error trade-off on {title}; the equal error rate of {name} is {error:.1%}.",
        figure,
        height=23,
    )


def _curves(runs: Sequence[RunRecord], title: str) -> list[tuple[str, int, RocCurve]]:
    """Name, tone and curve: of each protocol's scores that differ, or of each run's first."""
    curves = []
    for number, run in enumerate(runs):
        stored = run.pairs.get(title)
        if stored is None:
            continue
        if len(runs) > 1:
            protocol = next(iter(stored.scores))
            name = f"{run.name}, {protocol}"
            curves.append((name, number, roc_curve(stored.scores[protocol], stored.is_same)))
            continue
        for place, protocol in enumerate(_distinct(stored)):
            curve = roc_curve(stored.scores[protocol], stored.is_same)
            curves.append((protocol, place, curve))
    return curves


def _distinct(stored: StoredPairs) -> list[str]:
    """The protocols, without those that score the pairs as an earlier one does."""
    kept: list[str] = []
    for name, scores in stored.scores.items():
        if not any(np.allclose(scores, stored.scores[other], atol=1e-6) for other in kept):
            kept.append(name)
    return kept


def _thin(curve: RocCurve) -> tuple[NDArray, NDArray]:
    """A curve's best point at each FAR, and of these as many as a screen can tell apart."""
    last = (curve.far > 0) & (curve.far != np.append(curve.far[1:], np.inf))
    far, tar = curve.far[last], curve.tar[last]
    if len(far) <= _MOST_POINTS:
        return far, tar
    wanted = np.geomspace(far[0], 1, _MOST_POINTS)
    kept = np.unique(np.searchsorted(far, wanted).clip(0, len(far) - 1))
    return far[kept], tar[kept]


def _det(curve: RocCurve) -> tuple[NDArray, NDArray]:
    inside = (curve.far > 0) & (curve.far < 1) & (curve.tar > 0) & (curve.tar < 1)
    far, frr = curve.far[inside], 1 - curve.tar[inside]
    kept = np.unique(np.linspace(0, len(far) - 1, min(len(far), _MOST_POINTS)).astype(int))
    points = [(_probit(far[index]), _probit(frr[index])) for index in kept]
    x, y = np.array(points).reshape(-1, 2).T
    return x, y


def _points(
    x: Sequence[float], y: Sequence[float], name: str, colour: int, symbol: str = "circle"
) -> go.Scatter:
    return go.Scatter(
        x=list(x),
        y=list(y),
        name=name,
        mode="markers",
        marker={"size": 9, "symbol": symbol, "line": {"width": 1.5}},
        meta=tone(colour),
    )


def _probit(rate: float) -> float:
    return _PROBIT(min(max(float(rate), 1e-6), 1 - 1e-6))


def protocol_plot(runs: Sequence[RunRecord]) -> Plot | None:
    """The accuracy of every protocol that decides pairs, with its interval."""
    traces, said = [], []
    several = len({score.on for run in runs for score in run.scores if score.verifies}) > 1
    for number, run in enumerate(runs):
        scores = [score for score in run.scores if score.verifies][::-1]
        if not scores:
            continue
        spreads = [_interval(score) for score in scores]
        values = [score.numbers["accuracy_10_fold"] for score in scores]
        labels = [f"{s.protocol} · {s.on}" if several else s.protocol for s in scores]
        traces.append(
            go.Scatter(
                x=values,
                y=labels,
                name=run.name,
                mode="markers",
                marker={"size": 10},
                error_x={
                    "type": "data",
                    "array": [high - v for v, (_, high) in zip(values, spreads, strict=True)],
                    "arrayminus": [v - low for v, (low, _) in zip(values, spreads, strict=True)],
                    "thickness": 1.5,
                    "width": 4,
                },
                hovertemplate="%{y}: %{x:.2%}<extra></extra>",
                meta=tone(number),
            )
        )
        said += [f"{run.name}, {n}: {v:.1%}" for n, v in zip(labels, values, strict=True)]
    if not traces:
        return None
    figure = make_figure(
        traces,
        xaxis=axis("accuracy", tickformat=".3~p"),
        showlegend=len(traces) > 1,
    )
    return Plot(
        "One run, several accuracies" if len(runs) == 1 else "Accuracies",
        "The same embeddings under different rules. Bars are 95 % intervals over people where the "
        "list names people, else the protocol's own spread; differences smaller than the bars say "
        "nothing.",
        "; ".join(said) + ".",
        figure,
        wide=True,
        height=6 + 2 * len({label for trace in traces for label in trace.y}),
    )


def _interval(score: Score) -> tuple[float, float]:
    value = score.numbers["accuracy_10_fold"]
    if "intervals_95" in score.numbers:
        low, high = score.numbers["intervals_95"]["accuracy_10_fold"]
        return low, high
    spread = score.numbers.get("accuracy_std") or 0.0
    return value - spread, value + spread
