"""Reads the package's docstrings as they are written, as plain text, not as reStructuredText.

An indented block is kept as it stands, and a star, a bar or a trailing underscore means itself.
Runs before napoleon, which reads the sections of Google's style.
"""

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_SECTION = re.compile(r"(Args|Attributes|Example|Raises|References|Returns|Yields):$")
_CODE = re.compile(r"(`+[^`]*`+)")
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


def setup(app: Sphinx) -> ExtensionMetadata:
    """Hears of every docstring before napoleon does."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
