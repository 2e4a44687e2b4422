"""A report as one HTML file: its Markdown rendered, and every picture inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from markdown_it import MarkdownIt

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 74rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
h1, h2 { color: #16324f; overflow-wrap: anywhere; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: 0.85rem;
        max-width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #e2e2e2; }
td { white-space: nowrap; }
th { text-align: left; vertical-align: bottom; border-bottom: 2px solid #999; }
img { display: block; width: 100%; max-width: 36rem; height: auto; margin: 0.8rem 0; }
li { margin: 0.35rem 0; }
"""


def page(title: str, markdown: str, pictures: Mapping[str, bytes]) -> str:
    """The HTML of a Markdown text whose pictures are PNG files of these names."""
    body = str(MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown))
    for name, content in pictures.items():
        inside = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        body = body.replace(f'src="{name}"', f'src="{inside}"')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
