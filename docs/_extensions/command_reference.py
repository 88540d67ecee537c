"""The directive `command-reference`: what `sphereface --help` and its subcommands print."""

import contextlib
import io
import os
import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

_COLOR = re.compile(r"\x1b\[[0-9;]*m")


def help_of(*command: str) -> str:
    """Returns what the command prints when asked for help."""
    from sphereface_jax.cli import main

    said = io.StringIO()
    with _plain_terminal(), contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return _COLOR.sub("", said.getvalue()).strip()


@contextlib.contextmanager
def _plain_terminal() -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= {"COLUMNS": "92", "NO_COLOR": "1", "TERM": "dumb"}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def subcommands() -> list[str]:
    """Returns the names of the subcommands, in the order of the help."""
    usage = re.search(r"\{([a-z0-9,_-]+)\}", help_of())
    assert usage is not None
    return usage[1].split(",")


class CommandReference(SphinxDirective):
    """One section a subcommand."""

    def run(self) -> list[nodes.Node]:
        """Returns the sections."""
        return [_literal(help_of()), *map(self._section, subcommands())]

    def _section(self, name: str) -> nodes.section:
        title = f"sphereface {name}"
        section = nodes.section(ids=[nodes.make_id(title)], names=[title])
        self.state.document.note_explicit_target(section)
        section.extend([nodes.title(text=title), _literal(help_of(name))])
        return section


def _literal(text: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language="text")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Registers the directive."""
    app.add_directive("command-reference", CommandReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
