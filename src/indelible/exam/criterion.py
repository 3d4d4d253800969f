"""When does a generated answer count as knowing the fact?

The model continues the prompt freely and greedily; nothing of the answer is shown to it. The answer counts when that
continuation *starts with the whole target*, compared as a reader would: letter case, quotation marks and a leading
article do not matter, but words are whole ("Paris" is not found in "Parisian", nor "Guinea" in "Guinea-Bissau").
Feeding the target's tokens one by one instead ("teacher forcing") counts answers that the model would never give.

The functions are pure, so that the criterion can be read, tested, and quoted apart from any model.
"""

from __future__ import annotations

import unicodedata

from indelible.facts.joining import is_unspaced

# What may stand around an answer without changing it: quotes, brackets, markup, and marks that lead up to an answer.
_OPENING = "\"'`´“”„‘’‚«»‹›*_~|()[]{}<>,:-–—‐¿¡"  # noqa: RUF001 -- these very characters are meant
# A target may also end its sentence; a generation that *begins* by ending the sentence has not answered it.
_CLOSING = _OPENING + ".;!?"
_ARTICLES = ("the ", "an ", "a ")


def succeeds(generated: str, target: str) -> bool:
    """Whether a free continuation starts with the whole target.

    Both texts are compared after Unicode NFKC, case folding, and folding of white space. Quotation marks, brackets and
    other marks around either are dropped, and so is a leading *the*, *a* or *an*; each text may also be taken with
    its article, so that a target "A" is still found in "A minor". The target must end where a word ends: not before a
    letter or digit, not before a hyphen that goes on with one ("Guinea" in "Guinea-Bissau"), and, when it ends in a
    digit, not before a decimal ("1" in "1.5" or "1,000"). Accents count: "Brasilia" is not "Brasília".

    Raises:
        ValueError: if the target has no text.
    """
    wanted = _target_forms(target)
    forms = _forms(_fold(generated))
    return any(given.startswith(form) and _word_ends(form, given[len(form) :]) for given in forms for form in wanted)


def appears(generated: str, target: str) -> bool:
    """Whether the whole target occurs anywhere in a text, compared as in ``succeeds``.

    A weaker criterion, by which one study judges what its model knew from pre-training (Wen & Zhang, arXiv 2507.14198),
    and not its edits; see ``as_published`` in a study's settings. Raises as ``succeeds`` does.
    """
    text = _fold(generated)
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
    composed = unicodedata.normalize("NFKC", generated.rstrip("\ufffd"))  # a character may lack some of its bytes yet
    while composed and unicodedata.combining(composed[-1]):
        composed = composed[:-1]
    certain = _fold(composed[:-1])  # a mark that follows can still change the last letter
    bare = certain.lstrip(" " + _OPENING)
    if not bare or any(article.startswith(bare) for article in _ARTICLES):
        return False
    pairs = [(given, form) for given in _forms(certain) for form in _target_forms(target)]
    possible = [(given, form) for given, form in pairs if given.startswith(form) or form.startswith(given)]
    return not possible or any(
        given.startswith(form) and len(given) >= len(form) + 2 and _word_ends(form, given[len(form) :])
        for given, form in possible
    )


def _fold(text: str) -> str:
    """NFKC, case-folded, white space folded to single blanks; NFKC once more, as case folding may undo it."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def _forms(folded: str) -> set[str]:
    """The text as it is, without marks in front, and without its article."""
    bare = _without_opening(folded)
    article = next((article for article in _ARTICLES if bare.startswith(article)), "")
    return {folded, bare, _without_opening(bare.removeprefix(article))}


def _without_opening(text: str) -> str:
    bare = text.lstrip(" " + _OPENING)
    negative = bare[:1].isdigit() and text.removesuffix(bare).endswith("-")  # "-5" is another number than "5"
    return "-" + bare if negative else bare


def _target_forms(target: str) -> set[str]:
    folded = _fold(target)
    if not folded:
        raise ValueError("the target is empty; every generation would start with it")
    # A target of nothing but marks ("-") is compared as it stands.
    return {form for form in (form.rstrip(" " + _CLOSING) for form in _forms(folded)) if form} or {folded}


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
