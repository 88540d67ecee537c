"""The common ground of a report's plots: one dataclass, and traces that know tones, not colours.

The page has a light and a dark face. So a trace carries the name of a tone in its `meta`, and the
page's script gives it that tone's colour whenever the reader changes sides; style.css holds the
colours. Everything else of a look (fonts, grids, margins) is the script's too.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

SAME, DIFFERENT = 0, 1
NUM_TONES = 8
DASHES = ("solid", "dash", "dot", "dashdot")


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure of the report.

    Attributes:
      title: what is shown.
      caption: what to look for; plain text.
      alt: what the picture shows, for those who do not see it.
      figure: what plotly draws.
      wide: whether it takes the page's whole width.
      spins: whether it is a sphere that turns.
      height: in units of the text's size; None for what the page gives plots of its kind.
    """

    title: str
    caption: str
    alt: str
    figure: go.Figure
    wide: bool = False
    spins: bool = False
    height: float | None = None


def make_figure(traces: Sequence[Any], **layout: Any) -> go.Figure:
    """A figure without plotly's own theme.

    Args:
      traces: of plotly.
      **layout: of plotly.

    Returns:
      The figure.
    """
    return go.Figure(traces, go.Layout(template=go.layout.Template(), **layout))


def tone(name: int | str, *, fill: float | None = None) -> dict[str, Any]:
    """The `meta` of a trace: a number of a colour, or "ink", "soft", "line", "panel".

    Args:
      name: of the tone.
      fill: how opaque the area below a line is.

    Returns:
      What the page's script colours the trace by; numbers start again after `NUM_TONES`.
    """
    wrapped = name % NUM_TONES if isinstance(name, int) else name
    return {"tone": wrapped} if fill is None else {"tone": wrapped, "fill": fill}


def line(
    x: ArrayLike,
    y: ArrayLike,
    name: str,
    colour: int | str,
    *,
    fill: float | None = None,
    **more: Any,
) -> go.Scatter:
    """A line, or the outline of an area.

    Args:
      x: [N].
      y: [N].
      name: in the legend.
      colour: as `tone` takes it.
      fill: how opaque the area below it is; None: no area.
      **more: of plotly's trace; `line` adds to the look.

    Returns:
      The trace.
    """
    look = {"width": 2} | more.pop("line", {})
    return go.Scatter(
        x=np.asarray(x),
        y=np.asarray(y),
        name=name,
        mode="lines",
        line=look,
        fill=None if fill is None else "tozeroy",
        meta=tone(colour, fill=fill),
        **more,
    )


def vertical(x: float, top: float, name: str) -> go.Scatter:
    """A vertical line from zero, as a trace, so that the legend names it.

    Args:
      x: where.
      top: how high it reaches.
      name: in the legend.

    Returns:
      The trace, dashed.
    """
    return line([x, x], [0, top], name, "ink", line={"dash": "dash", "width": 1.5})


def histogram(values: ArrayLike, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """The fraction of the values in each bin.

    Args:
      values: of any shape.
      edges: [K + 1], rising.

    Returns:
      [K], of those between the edges; they add up to 1, or to 0 where there are none.
    """
    counts, _ = np.histogram(np.asarray(values), edges)
    return counts / max(counts.sum(), 1)


def steps(edges: NDArray[np.float64], heights: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """The outline of a histogram, down to zero on both sides.

    Args:
      edges: [K + 1].
      heights: [K].

    Returns:
      x and y, each [2K + 2].
    """
    return np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(heights, 2), [0.0]])


def percent_axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis of shares.

    Args:
      title: beside the axis.
      **more: of plotly's axis.

    Returns:
      The axis, of fractions written as percentages.
    """
    return axis(title, tickformat=".0%", **more)


def titled(run: str, title: str) -> str:
    """The title of a plot of one run out of several.

    Args:
      run: its name; "" where there is one only.
      title: of the plot.

    Returns:
      Both, or the title with a capital.
    """
    return f"{run}: {title}" if run else title[:1].upper() + title[1:]


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a title.

    Args:
      title: beside the axis.
      **more: of plotly's axis.

    Returns:
      The axis.
    """
    return {"title": {"text": title}, **more}
