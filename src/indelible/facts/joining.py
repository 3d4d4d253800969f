"""Whether an answer follows its prompt after a space: that hangs on the prompt's end, and on the script.

A text goes on without a space after white space, after an opening mark, and in scripts that set none between words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# These set none beside other scripts either; those only among themselves.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH KATAKANA", "BOPOMOFO")
_UNSPACED_AMONG_THEMSELVES = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "BALINESE")
# Opening brackets, initial quotation marks, underscores; and single marks that lead to a word.
_OPENING_KINDS = ("Ps", "Pi", "Pc")
_OPENING = "¿¡@/\\"
# Of code: a dotted path of names (no "U.S." or "Ph.D."), a scope, a hash before its word or number; and a sign of
# equality or an arrow that is itself set without a space.
_GOES_ON = re.compile(r"[^\W\d]\w+(\.[^\W\d]\w+)+\.$|::$|(^|\s)#$|[^\s=<>!:-][=<>!:-]*[=>]$")


def joined(prompt: str, answer: str) -> str:
    """The prompt and its answer as they are written one after the other."""
    return prompt + joint(prompt, answer) + answer.strip()


def joint(prompt: str, answer: str) -> str:
    """What stands between the two: a space, or nothing."""
    answer = answer.strip()
    if not (prompt and answer) or prompt[-1].isspace() or _opens(prompt):
        return ""
    last = next((letter for letter in reversed(prompt) if unicodedata.category(letter)[0] in "LM"), prompt[-1])
    if any(unicodedata.name(one, "").startswith(_UNSPACED) for one in (last, prompt[-1])):
        return ""
    return "" if is_unspaced(last) and is_unspaced(answer[0]) else " "


def is_unspaced(character: str) -> bool:
    """Whether it belongs to a script that sets no spaces between words."""
    return unicodedata.name(character, "").startswith(_UNSPACED + _UNSPACED_AMONG_THEMSELVES)


@cache
def runs_on(character: str) -> bool:
    """Whether it belongs to a script whose words have no ends to be seen: without spaces, or (Korean) with particles
    joined on."""
    return is_unspaced(character) or unicodedata.name(character, "").startswith("HANGUL")


def _opens(prompt: str) -> bool:
    """Whether the prompt ends in a mark that belongs to what follows."""
    rest, last = prompt[:-1], prompt[-1]
    kind = unicodedata.category(last)
    if last in '"`':  # opens and closes: every second one on a line
        return prompt.rpartition("\n")[2].count(last) % 2 == 1
    if last == "'":  # an apostrophe too, after a letter
        return not rest or rest[-1].isspace() or rest[-1] in "=:," or _opens(rest)
    if kind == "Sc":  # a currency before its figure, not behind it
        return not rest.rstrip()[-1:].isdigit()
    if _GOES_ON.search(prompt[-80:]):
        return True
    if kind == "Pd":  # a hyphen inside a word
        return not rest[-1:].isspace() and rest != ""
    return last in _OPENING or kind in _OPENING_KINDS
