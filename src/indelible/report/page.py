"""What every HTML page of ours has in common: one file that asks nothing of the network and runs no script but our own.

Templates escape everything that came from outside; the only markup taken as it is are our own figures. A content
security policy says the same to the browser: no requests, and no script but the one whose digest it names.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from indelible.files import whole_file
from indelible.report.exhibit import Grid, Html, Part, Picture
from indelible.report.latex import latex
from indelible.report.spreadsheet import csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def render(template: str, parts: Iterable[Part], **content: Any) -> str:
    """A page out of one of our templates: the parts from top to bottom, and what else the template shows."""
    from indelible.report.drawing.style import inline_svg

    environment = Environment(
        loader=PackageLoader("indelible.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    numbers = count(1)

    def drawn(draw: Callable[[], Figure], description: str) -> Markup:
        return Markup(inline_svg(draw(), f"figure{next(numbers)}", description))

    def filled(part: Html) -> Markup:
        return Markup(environment.from_string(part.template).render(part.content))

    environment.filters.update(drawn=drawn, filled=filled, tex=latex, csv=plain_numbers)
    folder = files("indelible.report") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        style=Markup(style), script=Markup(script), script_digest=digest, parts=list(parts), **content
    )


def plain_numbers(part: Grid | Picture) -> str:
    """What is downloaded as CSV: numbers to six digits, or the cells of a table that has none."""
    data = part.data if part.data is not None or isinstance(part, Picture) else part.frame
    return "" if data is None else csv(data, number="%.6g")


def write_page(path: Path, page: str) -> Path:
    """Write the whole page or leave what there was; a StoreError if it cannot be written."""
    with whole_file(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8", newline="\n")
    return path
