"""How the site is built: `make docs`, which takes every warning for an error.

Sphinx, because the losses' docstrings are made when the package is imported, and because MkDocs 1,
the other candidate, is no longer maintained. The pages are Markdown that GitHub shows too. Nothing
is fetched when the site is read: formulas are MathML, fonts are the reader's, search is local.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "sphereface_jax"
author = "The sphereface_jax authors"

extensions = [
    "command_reference",
    "docstrings",
    "mathml",
    "myst_parser",
    "package_reference",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "sphereface_jax"
html_show_search_summary = False  # would fetch pages, which browsers refuse without a server
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_style = "friendly"
pygments_dark_style = "monokai"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "code"
highlight_language = "text"
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
add_module_names = False
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
