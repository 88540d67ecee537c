"""Reads the package's docstrings as they are written, as plain text, not as reStructuredText.

An indented block is kept as it stands, and a star, a bar or a trailing underscore means itself.
Runs before napoleon, which reads the sections of Google's style. The value of a constant is left
out where it is longer than a line.
"""

import re
from typing import Any

from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_SECTION = re.compile(r"(Args|Attributes|Example|Raises|References|Returns|Yields):$")
_CODE = re.compile(r"(`+[^`]*`+)")
_LONGEST_VALUE = 60
_MARKUP = re.compile(r"[*|]|(?<=\w)_(?!\w)")


def escape(line: str) -> str:
    """Takes the meaning from what reStructuredText would read as markup, code aside."""
    if line.lstrip().startswith((">>>", "...")):
        return line
    parts = _CODE.split(line)
    parts[::2] = [_MARKUP.sub(r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def as_rst(lines: list[str]) -> list[str]:
    """Returns a docstring's lines with its text escaped and its indented blocks literal."""
    result: list[str] = []
    section, is_literal = "", False
    for line in lines:
        if found := _SECTION.match(line):
            section = found[1]
        indented, after_blank = line.startswith("  "), not result or not result[-1]
        if not section and indented and after_blank and not is_literal:
            result += ["::", ""]
        is_literal = not section and (indented or (is_literal and not line))
        result.append(line if is_literal or section == "Example" else escape(line))
    return result


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrites a docstring in place."""
    del app, what, name, obj, options
    lines[:] = as_rst(lines)


def shorten(app: Sphinx, domain: str, kind: str, content: addnodes.desc_content) -> None:
    """Takes a long value out of a constant's signature."""
    del app, domain
    if kind != "data" or content.parent is None:
        return
    for value in list(content.parent.findall(addnodes.desc_annotation)):
        text = value.astext()
        if text.lstrip().startswith("=") and len(text) > _LONGEST_VALUE:
            value.parent.remove(value)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Hears of every docstring before napoleon does."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("object-description-transform", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
