"""The page of `sphereface clean`: pictures of what to drop, move, merge and split, to be judged.

It shows faces of the training set, so it says that it is local; nothing on it is loaded from
elsewhere.
"""

import html
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from sphereface_jax.data.images import encode_jpeg
from sphereface_jax.reports.html import escape, jpeg, section

_SIDE = 80
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:74rem;margin:1.5rem auto;padding:0 1rem;
color:#1c2024;background:#fff}
@media(prefers-color-scheme:dark){body{color:#e6e8ea;background:#15181b}}
.local{border:2px solid #b3261e;border-radius:.4rem;padding:.6rem .9rem}
.cards{display:flex;flex-wrap:wrap;gap:.8rem}
figure{margin:0;border:1px solid #8886;border-radius:.4rem;padding:.5rem;max-width:36rem}
.faces{display:flex;flex-wrap:wrap;gap:.2rem 1rem}.faces div{display:flex;gap:.2rem}
.faces img{width:80px;height:auto;display:block}
.faces p{margin:0;font-size:.8rem;opacity:.8;width:100%}
figcaption{font-size:.85rem;overflow-wrap:anywhere}
"""


class Card(NamedTuple):
    """A finding in pictures.

    Attributes:
      caption: what it is and the numbers.
      groups: for each side what it is and its images, uint8 [H, W, 3].
    """

    caption: str
    groups: Sequence[tuple[str, Sequence[np.ndarray]]]


class Part(NamedTuple):
    """The findings of one kind.

    Attributes:
      name: of the section.
      title: its heading.
      lead: what they are.
      cards: some of them.
      total: how many there are.
    """

    name: str
    title: str
    lead: str
    cards: Sequence[Card]
    total: int


def render_labels(title: str, summary: Sequence[str], parts: Sequence[Part]) -> str:
    """The page, as a whole HTML document.

    Args:
      title: what was looked at.
      summary: lines at the top.
      parts: a section each.

    Returns:
      HTML, with style and pictures inside.
    """
    body = []
    for part in parts:
        more = part.total - len(part.cards)
        lead = part.lead + (f" {more:,} more are in the table alone." if more > 0 else "")
        cards = f'<div class="cards">{"".join(map(_card, part.cards))}</div>'
        body.append(section(part.name, f"{part.title}: {part.total:,}", lead, cards))
    lines = "".join(f"<li>{escape(line)}</li>" for line in summary)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{html.escape(title)} – labels to check (local)</title><style>{_STYLE}</style>"
        f"</head><body><h1>{escape(title)}</h1>"
        '<p class="local"><b>Local.</b> This page shows faces of the training set. It stays beside '
        "the run; do not publish or pass it on.</p>"
        f"<ul>{lines}</ul>{''.join(body)}</body></html>\n"
    )


def _card(card: Card) -> str:
    groups = "".join(
        f"<section><p>{escape(name)}</p><div>{''.join(map(_picture, images))}</div></section>"
        for name, images in card.groups
    )
    return (
        f'<figure><div class="faces">{groups}</div>'
        f"<figcaption>{escape(card.caption)}</figcaption></figure>"
    )


def _picture(image: np.ndarray) -> str:
    height, width = image.shape[:2]
    small = cv2.resize(image, (_SIDE, max(round(_SIDE * height / width), 1)))
    return jpeg(encode_jpeg(small, 80), "")
