"""How Sphinx builds these pages. Warnings are errors: ``tox -e docs``."""

from importlib.metadata import version as installed_version

project = "sglang-plugins"
author = "The sglang-plugins authors"
copyright = "The sglang-plugins authors, Apache-2.0"  # noqa: A001 - the name Sphinx reads
release = version = installed_version("sglang-plugins")

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nitpicky = True
highlight_language = "text"

html_theme = "furo"
html_title = "sglang-plugins"
html_static_path = ["_static"]
