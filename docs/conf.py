"""How Sphinx makes the documentation site from these pages and the docstrings: `make docs`."""

import os
import re
from importlib import import_module, metadata
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {
    "wattfed": "wattfed.server.cli",
    "wattfed-agent": "wattfed.client.agent.cli",
    "powerctl": "powerctl.cli",
}

SHOWN = {"CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md"}

project = "wattfed"
author = "the wattfed authors"
copyright = "the wattfed authors, Apache-2.0"
release = metadata.version("wattfed")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

html_theme = "furo"
html_static_path, html_css_files = ["_static"], ["site.css"]
html_title = f"wattfed {release}"
html_show_sphinx = False
html_show_sourcelink = html_copy_source = False

# pages are read in the repository too: plain Markdown, links by the anchors that GitHub gives
myst_heading_anchors = 3
highlight_language = "none"  # of indented blocks: commands and what they print
smartquotes = False  # `--` is part of an option

# docstrings: NumPy's sections, and `names` as in Markdown
default_role = "code"
napoleon_google_docstring = False
autodoc_typehints = "none"  # the sections say the types
autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    "exclude-members": "set_fit_request, set_predict_request",  # scikit-learn's own
}


def name_files_outside(folder, text):
    """Text of a folder, where a link to what is not on this site is the path of that file."""

    def named(link):
        path = os.path.relpath(folder / link[2], ROOT)
        if path in SHOWN:
            return f"[{link[1]}]({SHOWN[path]})"
        elsewhere = (ROOT / path).exists() and not path.startswith("docs")
        return f"{link[1]} (`{path}`)" if elsewhere else link[0]

    return re.sub(r"\[([^]]+)\]\(([^)#:]+)\)", named, text)


def helps(command, words, level=2):
    """Markdown of a command and those below it: each with what its --help prints."""
    context = click.Context(command, info_name=words, max_content_width=88, terminal_width=88)
    yield f"\n{'#' * level} {words}\n\n```text\n{command.get_help(context)}\n```\n"
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from helps(child, f"{words} {name}", 3)


def page_read(app, docname, source):
    """Before a page is parsed."""
    source[0] = name_files_outside(ROOT / "docs", source[0])
    if docname == "commands":
        for name, module in PROGRAMS.items():
            source[0] += "".join(helps(import_module(module).cli, name))


def file_included(app, path, parent, content):
    """Before a file of the repository is parsed as part of a page."""
    content[0] = name_files_outside((ROOT / "docs" / path).parent, content[0])


def setup(app):
    """Sphinx calls this when it begins."""
    app.connect("source-read", page_read)
    app.connect("include-read", file_included)
