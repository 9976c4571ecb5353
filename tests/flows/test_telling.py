"""Names on Prefect's pages, which are Markdown: shown as they are, whatever they are."""

from __future__ import annotations

import html
import re

import pytest
from markdown_it import MarkdownIt

from flows.telling import as_code, as_text

NAMES = [
    "a|b",
    "a`b",
    "``a`",
    "a\nb",
    "<img src=x onerror=alert(1)>",
    "*a* _b_ ~~c~~",
    "a\\",
    "a\\|b",
    "[a](javascript:b)",
    "&lt;a&gt;",
    "Zelle \u00e4",
    "a\u202eb",
    "caf\udce9",
]


def shown(page: str) -> str:
    return html.unescape(re.sub("<[^>]*>", "", page)).strip()


def plain(name: str) -> str:
    """Give what is left of a name where what nobody could see, or send, is written out."""
    return name.replace("\n", "\\n").replace("\u202e", "\\u202e").replace("\udce9", "\\udce9")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is_and_ends_no_cell_and_no_code(name: str) -> None:
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    page = markdown.render(f"| acquisition | state |\n|---|---|\n| {as_text(name)} | done |")
    assert [shown(cell) for cell in re.findall("<td>(.*?)</td>", page, re.DOTALL)] == [plain(name), "done"]
    page = markdown.render(f"- {as_code(name)}: {as_text(name)}")
    assert "<img" not in page
    assert "<a" not in page
    assert shown(page) == f"{plain(name)}: {plain(name)}"
