"""Hooks of the documentation (``mkdocs.yml``): files from outside of ``docs/`` become part of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BROUGHT_IN = ("CONTRIBUTING.md", "CHANGELOG.md", "examples/own_rule.py", "examples/own_remedy.py")
_ROLE = re.compile(r":(?:class|meth|attr|func|data|mod):<code>~?(?:[\w.]*\.)?(\w+)</code>")  # of docstrings
_LINK = re.compile(r"(\[[^\]\n]*\])\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add what the pages link to outside of ``docs/``."""
    from mkdocs.structure.files import File

    for name in BROUGHT_IN:
        files.append(File.generated(config, name, content=(ROOT / name).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links that are right in the repository into links within the documentation."""
    folder = (ROOT / "docs" / page.file.src_uri).parent
    if page.file.src_uri in BROUGHT_IN:
        folder = (ROOT / page.file.src_uri).parent
    depth = page.file.src_uri.count("/")

    def turned(link: re.Match[str]) -> str:
        text, target, anchor = link.groups()
        path = (folder / target).resolve()
        if not path.exists():
            return link.group()  # mkdocs says so
        inside = path.relative_to(ROOT).as_posix().removeprefix("docs/")
        if files.get_file_from_path(inside) is None:
            return text[1:-1]  # a file of the repository that is no part of the documentation
        return f"{text}({'../' * depth}{inside}{anchor or ''})"

    return _LINK.sub(turned, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Show names in docstrings without the markup that editors read."""
    return _ROLE.sub(r"<code>\1</code>", html).replace("<p>Example::</p>", "<p>Example:</p>")
