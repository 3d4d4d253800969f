"""Tables for papers: booktabs and nothing else, everything escaped, as wide as the text of LaTeX's article class.

A table that is wider is set as several, one below the other, that repeat its first column; long texts are wrapped.
Widths are reckoned from Computer Modern at 8 points (`\\footnotesize`), in which no figure is wider than 4.25 points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from textwrap import wrap

from indelible.report.exhibit import Grid

TEXT_WIDTH = 345.0
"""Points of the text of the article class at 10 points."""
CHARACTER, SEPARATION = 4.5, 6.0
"""Points of a character on average and a little more, and between two columns (twice \\tabcolsep)."""
LONGEST, NARROWEST = 30, 12
"""Characters of a column of text and of a heading before they are wrapped."""
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
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{one: rf"\{one}" for one in "&%$#_{}"},
    }
)
NUMBER = re.compile(r"^(?:[+<\N{MINUS SIGN}]?\s?\d|\N{EN DASH}$)")


def latex(grid: Grid) -> str:
    """A table as a float for papers, no wider than `TEXT_WIDTH`."""
    cells = grid.frame.astype(str).map(lambda cell: " ".join(cell.split()))
    columns = [_Column(str(name), cells.iloc[:, place].tolist()) for place, name in enumerate(cells)]
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}",
        f"\\caption{{{escaped(grid.label)}}}",
        f"\\label{{tab:{grid.file}}}",
    ]
    for number, own in enumerate(_pages(columns)):
        lines += ["", "\\medskip"] * bool(number)
        lines += _tabular(own)
    return "\n".join([*lines, "\\end{table}", ""])


def escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    return text.translate(TYPOGRAPHY)


class _Column:
    """One column: its cells and heading as LaTeX, how it is set, and how wide it comes out."""

    def __init__(self, name: str, cells: Sequence[str]) -> None:
        self.flush = len(cells) > 0 and all(NUMBER.match(cell) for cell in cells)
        longest = max(map(len, cells), default=0)
        width = longest if self.flush else min(longest, LONGEST)
        heading = wrap(name, max(width, NARROWEST), break_long_words=False) or [""]
        self.cells, side = [escaped(cell) for cell in cells], "r" if self.flush else "l"
        self.heading = escaped(heading[0])
        if len(heading) > 1:
            stacked = r" \\ ".join(map(escaped, heading))
            self.heading = rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{stacked}\end{{tabular}}"
        characters = max(width, *map(len, heading))
        wrapped = not self.flush and longest > LONGEST
        points = CHARACTER * characters
        self.setting = f"p{{{points:.0f}pt}}" if wrapped else side
        self.points = points + SEPARATION


def _pages(columns: Sequence[_Column]) -> Iterator[list[_Column]]:
    """Columns in tables that fit, each of which begins with the first."""
    first, *rest = columns
    page = [first]
    for column in rest:
        if len(page) > 1 and sum(one.points for one in page) + column.points > TEXT_WIDTH:
            yield page
            page = [first]
        page.append(column)
    yield page


def _tabular(columns: Sequence[_Column]) -> list[str]:
    settings = "".join(column.setting for column in columns)
    heading, *rows = zip(*([column.heading, *column.cells] for column in columns), strict=True)
    body = [_row(heading), "\\midrule", *map(_row, rows)]
    return [f"\\begin{{tabular}}{{{settings}}}", "\\toprule", *body, "\\bottomrule", "\\end{tabular}"]


def _row(cells: Sequence[str]) -> str:
    # At the start of a row a bracket would be read as an argument of the \\ before it, and an asterisk as part of it.
    return re.sub(r"^([\[*])", r"{\1}", " & ".join(cells) + r" \\")
