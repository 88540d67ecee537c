"""The few shapes of HTML that a report is made of; everything from outside is escaped here."""

import base64
import html
from collections.abc import Sequence
from typing import Any

from sphereface_jax.reports.plot import Plot


def escape(text: object) -> str:
    """Text as HTML shows it; words in backquotes become code, so it cannot be an attribute."""
    parts = html.escape(str(text)).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if odd % 2 else part for odd, part in enumerate(parts))


def section(name: str, title: str, lead: str, *content: str) -> str:
    """A section of the page, with the sentence that says what it is about.

    Args:
      name: its `id`.
      title: its heading, plain text.
      lead: the sentence, plain text; "" for none.
      *content: HTML; empty pieces are left out.

    Returns:
      HTML.
    """
    said = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    body = "\n".join(part for part in content if part)
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">'
        f"{escape(title)}</h2>{said}\n{body}\n</section>"
    )


def absent(text: str) -> str:
    """What stands where something was not measured."""
    return f'<p class="absent">{escape(text)}</p>'


def plots(chosen: Sequence[Plot], *, small: bool = False) -> str:
    """Figures, as many in a row as there is room for; more where they are small.

    Args:
      chosen: in their order.
      small: whether more of them go in a row.

    Returns:
      HTML, "" where there are none.
    """
    shown = "".join(map(plot_figure, chosen))
    return f'<div class="plots{" small" * small}">{shown}</div>' if chosen else ""


def plot_figure(plot: Plot, beside: str = "") -> str:
    """One figure.

    Args:
      plot: what is shown.
      beside: HTML that goes with its caption.

    Returns:
      HTML, with the figure's JSON inside.
    """
    classes = "plot" + " wide" * plot.wide + " sphere" * plot.spins
    height = "" if plot.height is None else f' style="height:{plot.height:g}rem"'
    button = '<button class="spin" type="button">Pause</button>' if plot.spins else ""
    return (
        f'<figure class="{classes}"><div class="plot-head"><h3>{escape(plot.title)}</h3>{button}'
        f'</div><div class="canvas"{height} role="img" aria-label="{html.escape(plot.alt)}"></div>'
        f'<script type="application/json">{embed_json(plot.figure.to_json())}</script>'
        f"<figcaption>{escape(plot.caption)}{beside}</figcaption></figure>"
    )


def embed_json(text: str) -> str:
    """JSON that may stand in a script element: nothing in it can end the element."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str) -> str:
    """A table whose first column names the rows.

    Args:
      headings: of the columns.
      rows: of cells.
      caption: what it shows.

    Returns:
      HTML.
    """
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    lines = []
    for row in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        lines.append(f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    label = html.escape(caption)
    return (
        f'<p class="table-title">{escape(caption)}</p><div class="scroll" tabindex="0" '
        f'role="region" aria-label="{label}"><table aria-label="{label}"><thead><tr>{head}</tr>'
        f"</thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def details(summary: str, content: str) -> str:
    """Content that waits behind a line.

    Args:
      summary: the line, plain text.
      content: HTML.

    Returns:
      HTML.
    """
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def facts(values: Sequence[tuple[str, str]]) -> str:
    """Names and values, side by side."""
    pairs = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values
    )
    return f'<dl class="facts">{pairs}</dl>'


def cards(values: Sequence[tuple[str, str, str]]) -> str:
    """The headline numbers: what, how much, and under which rule."""
    items = "".join(
        f'<div class="card"><dt>{escape(name)}</dt><dd><b>{escape(value)}</b>'
        f"<span>{escape(note)}</span></dd></div>"
        for name, value, note in values
    )
    return f'<dl class="cards">{items}</dl>'


def jpeg(encoded: bytes, alt: str) -> str:
    """A picture inside the page.

    Args:
      encoded: the picture, as JPEG.
      alt: what it shows, plain text.

    Returns:
      HTML.
    """
    data = base64.b64encode(encoded).decode("ascii")
    return f'<img alt="{html.escape(alt)}" src="data:image/jpeg;base64,{data}">'
