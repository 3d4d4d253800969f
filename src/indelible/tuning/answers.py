"""What a free completion gives as its answer, and whether two answers are the same."""

from __future__ import annotations

import re

_LEAD_IN = re.compile(
    r"^(?:so |thus |therefore |hence )?,?\s*(?:the )?(?:(?:final|correct) )?answer(?: is|:)\s*:?\s*", re.I
)
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_AROUND = " \t.,;:!?*_`\"'\u2018\u2019\u201c\u201d"

_CLAUSE_END = re.compile(r"[,.;:!?(]")

WORKED = "####"
"""What stands before the result of a worked answer in GSM8K (Cobbe et al. 2021)."""


def given_answer(completion: str) -> str:
    """The answer in a completion: its first line with words, without a lead-in ("The answer is") and without quotes,
    emphasis and punctuation around it. A minus sign stays."""
    for line in completion.splitlines():
        bare = _LEAD_IN.sub("", line.strip(_AROUND)).strip(_AROUND)
        if bare:
            return bare
    return ""


def final_answer(text: str) -> str:
    """The result of a worked answer: what follows ``####``, else the answer that is given."""
    return given_answer(text.rpartition(WORKED)[2])


def same_answer(completion: str, answer: str) -> float:
    """1.0 where a completion gives the same result as the right answer, else 0.0.

    Where the result is a number, the last number of the completion's answer counts, by its value ("5 + 37 = 42.0" gives
    "42"); else the words do, whatever their case and white space.
    """
    said, right = final_answer(completion), final_answer(answer)
    if (wanted := _value(right)) is not None:
        numbers = _NUMBER.findall(said)
        return float(bool(numbers) and _value(numbers[-1]) == wanted)
    return float(bool(right) and " ".join(said.split()).casefold() == " ".join(right.split()).casefold())


def found_answer(completion: str, answer: str) -> float:
    """1.0 where the answer found in a completion is the right one, else 0.0, never a part: as ``same_answer``, but what
    stands before a punctuation mark is found, too ("No, because ..." gives "No"; "Nobody" and "No one" do not)."""
    whole = same_answer(completion, answer)
    if whole or _value(final_answer(answer)) is not None:
        return whole
    return same_answer(_CLAUSE_END.split(final_answer(completion))[0], answer)


def _value(text: str) -> float | None:
    """The number that a text is, without thousands separators, a currency or a percent sign."""
    bare = text.strip().strip("$€£%").strip()
    return float(bare.replace(",", "")) if _NUMBER.fullmatch(bare) else None
