"""The block `modules`: every public module of some packages, from their docstrings.

    ```{modules} sphereface_jax.heads sphereface_jax.losses
    ```

A module that is added to a package is on its page with the next build.
"""

import pkgutil
import re

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_BLOCK = re.compile(r"^```\{modules\} (.+)\n```$", re.M)
_SECTION = """\
## {name}

```{{eval-rst}}
.. automodule:: {name}
```
"""


def modules_of(name: str) -> list[str]:
    """Returns a module's name, and those of the public modules below it."""
    module = __import__(name, fromlist=["_"])
    below = pkgutil.walk_packages(getattr(module, "__path__", []), prefix=f"{name}.")
    return [name, *(found.name for found in below if "._" not in found.name)]


def expand(text: str) -> str:
    """Returns a page's text with its blocks in full."""

    def sections(block: re.Match[str]) -> str:
        modules = [module for name in block[1].split() for module in modules_of(name)]
        return "\n".join(_SECTION.format(name=module) for module in modules)

    return _BLOCK.sub(sections, text)


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Expands the blocks of a page that was just read."""
    del app, page
    source[0] = expand(source[0])


def setup(app: Sphinx) -> ExtensionMetadata:
    """Hears of every page."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
