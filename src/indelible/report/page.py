"""What every HTML page of ours has in common: one file that asks nothing of the network and runs no script but our own.

Templates escape everything that came from outside; the only markup taken as it is are our own figures. A content
security policy says the same to the browser: no requests, and no script but the one whose digest it names.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from indelible.errors import StoreError
from indelible.numbers.words import percent


@dataclass(frozen=True)
class Picture:
    """A figure as it stands on a page.

    Attributes:
        title: the words above it; may be empty.
        markup: the SVG element.
    """

    title: str
    markup: Markup


def render(template: str, content: Mapping[str, Any]) -> str:
    """A page out of one of our templates.

    Args:
        template: its file name.
        content: what it shows.
    """
    environment = Environment(
        loader=PackageLoader("indelible.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = percent
    folder = files("indelible.report") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        style=Markup(style), script=Markup(script), script_digest=digest, **content
    )


def write_page(path: Path, page: str) -> Path:
    """Write the whole page or leave what there was, and nothing else beside it.

    Raises:
        StoreError: if the file cannot be written.
    """
    try:
        _replace(path, page)
    except OSError as error:
        raise StoreError(
            f"The report {path} cannot be written: {error.strerror or error}.", "Is the folder writable, the disk full?"
        ) from error
    return path


def _replace(path: Path, page: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(page)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
