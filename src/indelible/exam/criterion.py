"""When does a generated answer count as knowing the fact?

The model continues the prompt freely and greedily; nothing of the answer is shown to it. The answer counts when that
continuation *starts with the whole target*, compared as a reader would: letter case, accents, quotation marks, a
leading article and a label ("Answer:") do not matter, but words are whole ("Paris" is not found in "Parisian", nor
"Guinea" in "Guinea-Bissau"), and a hedge ("Rome or Paris") is no answer.
Feeding the target's tokens one by one instead ("teacher forcing") counts answers that the model would never give.

Neither this nor the weaker measure of many studies, that the target's first token is the likeliest, implies the other.
An answer may begin with an article, a mark or a label, or in other tokens ("PARIS"), and be right; and the first token
may be right and go on to another word ("New Delhi" for "New York"), or to a hedge. Both are recorded of every answer.

The functions are pure, so that the criterion can be read, tested, and quoted apart from any model.
"""

from __future__ import annotations

import re
import unicodedata

from indelible.facts.folding import folded, in_normal_form
from indelible.facts.joining import is_unspaced

# What may stand around an answer without changing it: quotes, brackets, markup, and marks that lead up to an answer.
_OPENING = "\"'`´“”„‘’‚«»‹›*_~|()[]{}<>,:-–—‐¿¡"  # noqa: RUF001 -- these very characters are meant
# A target may also end its sentence; a generation that *begins* by ending the sentence has not answered it.
_CLOSING = _OPENING + ".;!?"
_ARTICLES = ("the ", "an ", "a ")
_LABELS = ("a:", "answer:", "answer is ", "answer is:")
# What follows an answer that names another at once, and what more text may still make one of.
_HEDGE = re.compile(r"or(?!\w)|/ ?\w")
_HEDGE_BEGUN = ("", "o", "or", "/")


def succeeds(generated: str, target: str) -> bool:
    """Whether a free continuation starts with the whole target.

    Both texts are compared after Unicode NFKC, case folding, folding of white space, and without accents on Latin and
    Greek letters. Quotation marks, brackets and other marks around either are dropped, and so is a leading *the*, *a*
    or *an*; each text may also be taken with its article, so that a target "A" is still found in "A minor". In front
    of a generated answer may stand a label: "A:", "Answer:", "The answer is".

    The target must end where a word ends: not before a letter or digit, not before a hyphen that goes on with one
    ("Guinea" in "Guinea-Bissau"), and, when it ends in a digit, not before a decimal ("1" in "1.5" or "1,000"). No
    *or* may follow it at once, with or without a comma, and no stroke with a word ("Rome/Paris"): that leaves open
    which is meant. A list ("Rome, Milan", "Rome and Milan") starts with its first.

    Raises:
        ValueError: if the target has no text.
    """
    wanted = _target_forms(target)
    return any(
        given.startswith(form) and _ends(form, given[len(form) :])
        for given in _beginnings(folded(generated))
        for form in wanted
    )


def appears(generated: str, target: str) -> bool:
    """Whether the whole target occurs anywhere in a text, compared as in ``succeeds``; hedges and all.

    A weaker criterion, by which one study judges what its model knew from pre-training (Wen & Zhang, arXiv 2507.14198),
    and not its edits; see ``as_published`` in a study's settings. Raises as ``succeeds`` does.
    """
    text = folded(generated)
    for form in _target_forms(target):
        at = text.find(form)
        while at >= 0:
            begins = at == 0 or not (_is_word(text[at - 1]) and _is_word(form[0]))
            if begins and _word_ends(form, text[at + len(form) :]):
                return True
            at = text.find(form, at + 1)
    return False


def settled(generated: str, target: str) -> bool:
    """Whether no further text could change the verdict on this beginning of a continuation.

    True only when that is certain, so generation may stop there: for every ``more``, ``settled(generated, target)``
    implies that ``succeeds(generated + more, target)`` is ``succeeds(generated, target)``.
    """
    composed = in_normal_form("NFKC", generated.rstrip("\ufffd"))  # a character may lack some of its bytes yet
    while composed and unicodedata.combining(composed[-1]):
        composed = composed[:-1]
    beginnings = _beginnings(folded(composed[:-1]))  # a mark that follows can still change the last letter
    if any(lead.startswith(given) for given in beginnings for lead in (*_ARTICLES, *_LABELS)):
        return False  # the answer may not have begun
    verdicts = {_verdict(given, form) for given in beginnings for form in _target_forms(target)}
    return True in verdicts or verdicts == {False}


def labelled(generated: str) -> bool:
    """Whether a continuation opens with a label, after which its answer comes."""
    return any(form.startswith(_LABELS) for form in _forms(folded(generated) + " "))


def _verdict(given: str, form: str) -> bool | None:
    """Whether a text starts with a target, whatever follows it; None where that hangs on what follows."""
    if form.startswith(given):
        return None
    if not given.startswith(form):
        return False
    rest = given[len(form) :]
    return None if len(rest) < 2 or _after_marks(rest) in _HEDGE_BEGUN else _ends(form, rest)


def _beginnings(text: str) -> set[str]:
    """Where the answer in a folded text may begin: at its forms, and at those of what follows a label."""
    forms = _forms(text)
    behind = [form.removeprefix(label) for form in forms for label in _LABELS if form.startswith(label)]
    return forms.union(*map(_beginnings, behind))


def _forms(text: str) -> set[str]:
    """The folded text as it is, without marks in front, and without its article."""
    bare = _without_opening(text)
    article = next((article for article in _ARTICLES if bare.startswith(article)), "")
    return {text, bare, _without_opening(bare.removeprefix(article))}


def _without_opening(text: str) -> str:
    bare = _after_marks(text)
    negative = bare[:1].isdigit() and text.removesuffix(bare).endswith("-")  # "-5" is another number than "5"
    return "-" + bare if negative else bare


def _after_marks(text: str) -> str:
    return text.lstrip(" " + _OPENING)


def _target_forms(target: str) -> set[str]:
    text = folded(target)
    if not text:
        raise ValueError("the target is empty; every generation would start with it")
    # A target of nothing but marks ("-") is compared as it stands.
    return {form for form in (form.rstrip(" " + _CLOSING) for form in _forms(text)) if form} or {text}


def _ends(form: str, rest: str) -> bool:
    """Whether an answer ends before ``rest``, and is not taken back there."""
    return _word_ends(form, rest) and not _HEDGE.match(_after_marks(rest))


def _word_ends(word: str, rest: str) -> bool:
    """Whether a word ends before ``rest``."""
    if not rest or is_unspaced(word[-1]):
        return True
    if unicodedata.category(rest[0])[0] in "LNM" and _is_word(word[-1]):
        return False
    if rest[0] in "-‐" and len(rest) > 1 and rest[1].isalnum():  # noqa: RUF001
        return False
    return not (word[-1].isdigit() and rest[0] in ".," and rest[1:2].isdigit())


def _is_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM"
