"""The pairs that a run is most wrong about, as pairs of faces."""

import re
from collections.abc import Sequence

from sphereface_jax.evaluation.pairs import to_degrees
from sphereface_jax.reports.html import absent, escape, jpeg
from sphereface_jax.reports.plots_errors import threshold_of
from sphereface_jax.reports.run_record import RunRecord
from sphereface_jax.reports.stored import StoredPairs

_SUFFIX = re.compile(r"\.(jpe?g|png|bmp|webp|pgm)$", re.IGNORECASE)


def hard_pairs(runs: Sequence[RunRecord], *, faces: bool) -> list[str]:
    """The hardest pairs of every list of every run, or why there are none to see.

    Args:
      runs: of the report.
      faces: whether pictures of people may be shown.

    Returns:
      HTML, one piece per list; or the sentence that says why there is none.
    """
    if not any(run.pairs for run in runs):
        command = f"`sphereface evaluate {runs[0].folder} --pairs pairs.txt --images DIR`"
        return [absent(f"No pairs were decided yet. {command} finds the hardest ones.")]
    if not faces:
        return [absent("This page was made with `--no-faces`: pictures of people are left out.")]
    parts = []
    for run in runs:
        for title, stored in run.pairs.items():
            said = title if len(runs) == 1 else f"{run.name}, {title}"
            parts += _of_list(run, title, stored, said)
    return parts


def _of_list(run: RunRecord, title: str, stored: StoredPairs, said: str) -> list[str]:
    if not len(stored.pictures):
        return [absent(f"{said}: its pairs were not of single images, so there is none to show.")]
    threshold = threshold_of(run, title)
    accepted = stored.cosine > threshold
    kinds = (
        ("False accepts", "different people above the threshold", accepted & ~stored.is_same),
        ("False rejects", "one person at or below the threshold", ~accepted & stored.is_same),
    )
    parts = []
    for name, meaning, wrong in kinds:
        cards = [
            _card(stored, place, pair)
            for place, pair in enumerate(stored.hardest.tolist())
            if wrong[pair]
        ]
        title_line = f"{name} on {said}: {meaning}, {int(wrong.sum()):,} in all"
        if cards:
            shown = f'<ul class="pairs">{"".join(cards)}</ul>'
            parts.append(f"<h3>{escape(title_line)}</h3>{shown}")
        else:
            parts.append(absent(f"{name} on {said}: none at a cosine of {threshold:.4f}."))
    return parts


def _card(stored: StoredPairs, place: int, pair: int) -> str:
    left, right = stored.names[2 * place], stored.names[2 * place + 1]
    cosine = float(stored.cosine[pair])
    angle = float(to_degrees(cosine))
    faces = jpeg(stored.pictures[2 * place], left) + jpeg(stored.pictures[2 * place + 1], right)
    names = " · ".join(escape(_readable(name)) for name in (left, right))
    return (
        f'<li><div class="two">{faces}</div><b>{angle:.1f}° <small>cos {cosine:.3f}</small></b>'
        f"<span>{names}</span></li>"
    )


def _readable(name: str) -> str:
    """Who and which image: the last part of its path where that says both, else the last two."""
    folder, _, image = name.rpartition("/")
    person, image = folder.rpartition("/")[2], _SUFFIX.sub("", image)
    return (image if image.startswith(person) else f"{person} {image}").replace("_", " ")
