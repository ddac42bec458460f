"""A hook of MkDocs: what a page says of the rest of the repository, which is not on the site.

On a git host such a link opens the file. The site has no address of the repository, so there it is the
file's name; one that is not there is a broken link.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: ``[words](../path#anchor)``, on one line.
LINK = re.compile(r"\[([^\]\n]+)\]\(\.\./([^)#\s]+)(?:#[^)\s]*)?\)")

log = logging.getLogger("mkdocs.hooks.docs_links")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page's text, without links that leave the site."""

    def named(link: re.Match[str]) -> str:
        words, path = link.groups()
        if not (ROOT / path).exists():
            log.warning("%s links to ../%s, which is not there", page.file.src_uri, path)
        name = f"`{path.rstrip('/')}`"
        return name if words.strip("`/") in path else f"{words} ({name})"

    return LINK.sub(named, markdown)
