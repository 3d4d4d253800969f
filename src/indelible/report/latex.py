"""Tables as LaTeX for papers: booktabs, nothing else, everything escaped."""

from __future__ import annotations

import re

from indelible.numbers.words import Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
}
_NUMBER = re.compile(r"^(?:[+<\N{MINUS SIGN}]?\s?\d|\N{EN DASH}$)")


def latex_table(table: Table, *, caption: str, label: str) -> str:
    """A floating table. Needs the package booktabs, and UTF-8 input, as LaTeX has by default.

    Args:
        table: what it shows; columns in which every cell begins like a number are set flush right.
        caption: above it.
        label: to refer to it by.
    """
    numeric = [
        bool(table.rows) and all(_NUMBER.match(row[place]) for row in table.rows) for place in range(len(table.columns))
    ]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{{''.join('r' if flush else 'l' for flush in numeric)}}}",
        r"\toprule",
        " & ".join(map(escaped, table.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(map(escaped, row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that LaTeX prints as it stands, on one line."""
    flat = "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))
    # At the start of a row a bracket would be read as an argument of the \\ before it, and an asterisk as part of it.
    return f"{{{flat[0]}}}{flat[1:]}" if flat.startswith(("[", "*")) else flat
