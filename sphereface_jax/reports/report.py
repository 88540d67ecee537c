"""The report: one HTML page that shows all there is to see of a run, or several side by side.

It holds everything it needs, plotly.js included (4.8 MB), and asks the network for nothing: the
page's content security policy forbids it. Data come in as `RunRecord`s; `summary` and `sections`
choose what to say, the `plots_*` modules draw, `page/` is the look.
"""

import html
import importlib.resources
from collections.abc import Sequence
from datetime import datetime
from string import Template

from plotly.offline import get_plotlyjs, get_plotlyjs_version

from sphereface_jax.reports import sections
from sphereface_jax.reports.html import escape
from sphereface_jax.reports.run_record import RunRecord
from sphereface_jax.reports.summary import subtitle, summary

_CONTENTS = {
    "sphere": "Sphere",
    "training": "Training",
    "decisions": "Same or different",
    "protocols": "Protocols",
    "mistakes": "Hardest pairs",
    "people": "People",
    "configuration": "Configuration",
}


def render_report(runs: Sequence[RunRecord], *, faces: bool = True, version: str = "") -> str:
    """The page of one run or several.

    Args:
      runs: what is known of each; the first is the page's own.
      faces: whether to show the pictures of faces that evaluations kept.
      version: of this package, for the foot of the page.

    Returns:
      A whole HTML document.

    Raises:
      ValueError: for no runs.
    """
    if not runs:
        raise ValueError("runs: expected one run or more, got none")
    body = [
        sections.sphere(runs, faces=faces),
        sections.training(runs),
        sections.decisions(runs),
        sections.protocols(runs),
        sections.mistakes(runs, faces=faces),
        sections.people(runs),
        sections.configuration(runs),
    ]
    names = " · ".join(run.name for run in runs)
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in _CONTENTS.items())
    return Template(_page("page.html")).substitute(
        title=f"{html.escape(names)} – sphereface report",
        heading=escape(names),
        subtitle=escape(subtitle(runs)),
        summary=summary(runs),
        contents=links,
        sections="\n".join(body),
        colophon=_colophon(runs, version),
        style=_page("style.css"),
        script=_page("page.js"),
        plotly=get_plotlyjs(),
    )


def _page(name: str) -> str:
    folder = importlib.resources.files("sphereface_jax.reports") / "page"
    return (folder / name).read_text("utf-8")


def _colophon(runs: Sequence[RunRecord], version: str) -> str:
    folders, now = " ".join(run.folder for run in runs), datetime.now()
    return escape(
        f"Made by sphereface_jax {version} on {now:%d %B %Y, %H:%M}, from the files of {folders} "
        f"alone; `sphereface report {folders}` makes it again. Drawn by plotly.js "
        f"{get_plotlyjs_version()}, which is inside this file; nothing is loaded from elsewhere."
    )
