"""mkdocs' hooks: the reference made from the code, and files of the repository that pages link to."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import reference

ROOT = Path(__file__).parents[1]
BESIDE = ("studies/*.yaml", "examples/*", "findings/*", "benchmarks/*.py", "*.md", "LICENSE", "CITATION.cff")
"""What pages link to outside docs/: on the site it stands under files/, as text."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages, and copies of the files beside docs/."""
    for name, made in reference.PAGES.items():
        files.append(File.generated(config, name, content=made()))
    for pattern in BESIDE:
        for path in ROOT.glob(pattern):
            if path.is_file():
                # As text, so that a browser shows it, and mkdocs takes no Markdown for a page.
                name = f"files/{path.relative_to(ROOT)}.txt"
                files.append(File.generated(config, name, content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Links that leave docs/, which hold in the repository, lead to the copies."""
    folder = posixpath.dirname(page.file.src_uri)

    def led(found: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join("docs", folder, found[1]))
        if place.startswith("docs/"):
            return found[0]
        return f"]({posixpath.relpath(f'docs/files/{place}.txt', posixpath.join('docs', folder))})"

    return re.sub(r"\]\((\.\./[^)#]*)\)", led, markdown)
