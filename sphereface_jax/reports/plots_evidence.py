"""Plots of evidence: are the likelihood ratios to be believed, and does length tell quality?"""

from collections.abc import Sequence

import numpy as np

from sphereface_jax.evaluation.likelihood import reliability
from sphereface_jax.reports.plot import Plot, line, make_figure, percent_axis, titled
from sphereface_jax.reports.run_record import RunRecord


def evidence_plots(runs: Sequence[RunRecord]) -> list[Plot]:
    """Reliability of each run that has likelihood ratios, and its error-versus-reject curve."""
    plots = []
    for run in runs:
        if run.likelihood is not None:
            plots.append(_reliability(run, alone=len(runs) == 1))
            if len(run.likelihood.rejected):
                plots.append(_rejects(run, alone=len(runs) == 1))
    return plots


def _reliability(run: RunRecord, *, alone: bool) -> Plot:
    evidence = run.likelihood
    assert evidence is not None
    found = reliability(evidence.held_out, evidence.is_same)
    cost, lowest = float(evidence.cllr), float(evidence.min_cllr)
    figure = make_figure(
        [
            line([0, 1], [0, 1], "as claimed", "ink", line={"dash": "dash", "width": 1.5}),
            line(found.claimed, found.observed, f"observed, Cllr {cost:.3f}", 0),
        ],
        xaxis=percent_axis("claimed probability of one person, at prior odds of 1"),
        yaxis=percent_axis("observed"),
    )
    title = str(evidence.title)
    return Plot(
        titled("" if alone else run.name, f"reliability on {title}"),
        "Likelihood ratios that can be believed lie on the dashed line: of pairs said to be one "
        "person with 80 %, 80 % are. Each fold of the list was judged by the others.",
        f"Observed against claimed probability in {len(found.claimed)} bins; Cllr {cost:.3f} bits, "
        f"{lowest:.3f} at best.",
        figure,
    )


def _rejects(run: RunRecord, *, alone: bool) -> Plot:
    evidence = run.likelihood
    assert evidence is not None
    rates = evidence.rejected_frr, evidence.rejected_far
    figure = make_figure(
        [
            line(evidence.rejected, rate, name, colour)
            for colour, (rate, name) in enumerate(
                zip(rates, ("false rejects", "false accepts"), strict=True)
            )
        ],
        xaxis=percent_axis("pictures refused, the shortest embeddings first"),
        yaxis=percent_axis("errors among the others", rangemode="tozero"),
    )
    last = float(np.nan_to_num(rates[0][-1]))
    return Plot(
        titled("" if alone else run.name, f"refusing short embeddings on {evidence.title}"),
        "Where false rejects fall, the length of an embedding tells good pictures from bad ones; "
        "where they do not, it says nothing.",
        f"False rejects go from {float(rates[0][0]):.1%} with every picture to {last:.1%} with "
        f"{1 - float(evidence.rejected[-1]):.0%} of them.",
        figure,
    )
