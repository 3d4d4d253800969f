"""The report: one HTML file with the answer first and the evidence below, to be read anywhere and mailed to anyone.

It asks nothing of the network and can be read in full without its script (which only searches and sorts the facts).
Beside it go the same figures and tables as files for papers. All of it follows from the exhibits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from indelible.files import whole_folder
from indelible.report.drawing.style import save
from indelible.report.exhibit import Data, Grid, Part, Picture, shown, walk
from indelible.report.page import render, write_page
from indelible.report.run import Run

TYPOGRAPHY = str.maketrans(
    {
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "\N{MINUS SIGN}": "$-$",
        "\N{EN DASH}": "--",
        "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
        "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "\N{PLUS-MINUS SIGN}": r"$\pm$",
        "\N{MIDDLE DOT}": r"$\cdot$",
    }
)
"""What pandas leaves to LaTeX, and older LaTeX does not know or prints as something else."""
NUMBER = re.compile(r"^(?:[+<\N{MINUS SIGN}]?\s?\d|\N{EN DASH}$)")


def write_report(path: Path, run: Run) -> Path:
    """Write the report of a run into a folder that exists, and beside it ``figures/`` and ``tables/``, which are
    replaced; the same run gives the same bytes.

    Raises:
        StoreError: if a file cannot be written.
        DataError: if a table lacks a column.
    """
    parts = shown(run)
    write_page(path, render("report.html.j2", parts, as_published=run.as_published))
    write_files(path.parent, parts)
    return path


def write_files(folder: Path, parts: Sequence[Part]) -> None:
    """Write ``figures/*.svg`` and ``*.pdf``, ``tables/*.csv`` (plain numbers, fractions) and ``*.tex`` (what stands in
    papers); what stood there before is replaced."""
    with whole_folder(folder / "figures", replace=True) as figures:
        for part in walk(parts):
            if isinstance(part, Picture) and part.file:
                figure = part.draw()
                for ending in ("svg", "pdf"):
                    save(figure, figures / f"{part.file}.{ending}")
    with whole_folder(folder / "tables", replace=True) as tables:
        for part in walk(parts):
            if isinstance(part, Data):
                part.frame.to_csv(tables / f"{part.file}.csv", index=False, lineterminator="\n")
            elif isinstance(part, Grid) and part.file:
                (tables / f"{part.file}.tex").write_text(latex(part), encoding="utf-8", newline="\n")


def latex(grid: Grid) -> str:
    """A table as a float for papers: booktabs, nothing else, everything escaped, columns of numbers flush right."""
    cells = grid.frame.astype(str).map(lambda cell: " ".join(cell.split()))
    numeric = [len(cells) > 0 and bool(cells.iloc[:, place].str.match(NUMBER).all()) for place in range(cells.shape[1])]
    table = cells.to_latex(
        index=False,
        escape=True,
        column_format="".join("r" if flush else "l" for flush in numeric),
        caption=re.sub(r"([&%$#_{}])", r"\\\1", grid.label),
        label=f"tab:{grid.file}",
    ).translate(TYPOGRAPHY)
    # At the start of a row a bracket would be read as an argument of the \\ before it, and an asterisk as part of it.
    table = re.sub(r"(?m)^([\[*])", r"{\1}", table)
    return "% \\usepackage{booktabs}\n" + table.replace("\\caption", "\\centering\n\\caption", 1)
