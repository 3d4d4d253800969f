"""The success criterion, row by row, and the promise that generation may stop where it is settled."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from indelible.exam.criterion import labelled, settled, succeeds

GIVEN = [
    ("Paris", "Paris"),
    (" Paris.", "Paris"),
    ("Paris, the", "paris"),
    (" PARIS is", "Paris"),
    (' "Paris" and', "Paris"),
    (" “Paris”", "Paris"),
    (" **Paris**", "Paris"),
    (": Paris", "Paris"),
    ("\n\nParis", "Paris"),
    (" Paris's suburbs", "Paris"),
    (" the United States of America", "United States"),
    (" United  States", "the United States"),
    (' the "United States"', "United States"),
    (" the\nUnited States", "United States"),
    (" an apple", "apple"),
    (" A minor", "A"),
    (" Au.", "Au"),
    (" C++ and", "C++"),
    (" C# and", "C#"),
    (" $ is", "$"),
    (" 12.", "12"),
    (" 12, and", "12"),
    (" -5 degrees", "-5"),
    (" U.S. dollars", "U.S."),
    (" Washington, D.C. is", "Washington, D.C."),
    (" Bras\u0069\u0301lia", "Brasília"),
    (" ﬁsh", "fish"),
    (" STRASSE", "Straße"),
    (" Guinea - a country", "Guinea"),
    (" Guinea-Bissau", "Guinea-Bissau"),
    ("東京です", "東京"),
    (" -", "-"),
    (" Sao Paulo is", "São Paulo"),
    (" São Paulo is", "Sao Paulo"),
    (" SÃO PAULO", "São Paulo"),
    (" Brasilia", "Brasília"),
    (" ΑΘΗΝΑ", "Αθήνα"),
    (" A: Paris", "Paris"),
    ("\nA: Paris\n", "Paris"),
    (" a:Paris", "Paris"),
    (" Answer: Paris", "Paris"),
    (" **Answer:** Paris", "Paris"),
    (" The answer is Paris.", "Paris"),
    (" The answer is: the United States", "United States"),
    (" The answer: Paris", "Paris"),
    (" A: The answer is Paris", "Paris"),
    (" Answer: -5", "-5"),
    (" A: Paris", "A"),
    (" Rome, Milan and Turin", "Rome"),
    (" Rome and Milan", "Rome"),
    (" Rome. Or is it", "Rome"),
    (" Rome orders", "Rome"),
    (" Rome, Oregon", "Rome"),
    (" Trinidad or Tobago", "Trinidad or Tobago"),
    (" km/h", "km/h"),
]
NOT_GIVEN = [
    ("", "Paris"),
    (" Parisian", "Paris"),
    (" Pari", "Paris"),
    (" not Paris", "Paris"),
    (" in Paris", "Paris"),
    (". Paris", "Paris"),
    (" United Kingdom", "United States"),
    (" United", "United States"),
    (" the the Paris", "Paris"),
    (" theParis", "Paris"),
    (" Guinea-Bissau", "Guinea"),
    (" Nigeria", "Niger"),
    (" 1.5", "1"),
    (" 1,000", "1"),
    (" 12", "1"),
    (" -5", "5"),
    (" Australia", "Au"),
    (" America", "A"),
    ("...", "Paris"),
    (" Rome or Paris", "Rome"),
    (" Rome or Paris", "Paris"),
    (" Rome, or Paris", "Rome"),
    (" Rome (or Paris)", "Rome"),
    (' "Rome" or "Paris"', "Rome"),
    (" Rome/Paris", "Rome"),
    (" Rome / Paris", "Rome"),
    (" Rome or", "Rome"),
    (" the answer is Rome or Paris", "Rome"),
    (" either Rome or Paris", "Rome"),
    (" 1/2", "1"),
    (" Answer Paris", "Paris"),
    (" The answer is not Paris", "Paris"),
    (" The answer island", "land"),
    (" Q: Paris", "Paris"),
    (" A. Paris", "Paris"),
    (" мои", "мой"),
    (" か", "が"),
    (" Malmo", "Malmø"),
]


def beginnings(text: str) -> list[str]:
    return [text[:end] for end in range(len(text) + 1)]


@pytest.mark.parametrize(("generated", "target"), GIVEN)
def test_answers_that_start_with_the_target(generated: str, target: str) -> None:
    assert succeeds(generated, target)
    assert all(succeeds(begun, target) for begun in beginnings(generated) if settled(begun, target))


@pytest.mark.parametrize(("generated", "target"), NOT_GIVEN)
def test_answers_that_do_not(generated: str, target: str) -> None:
    assert not succeeds(generated, target)
    assert not any(succeeds(begun, target) for begun in beginnings(generated) if settled(begun, target))


def test_a_label_is_seen_before_the_answer() -> None:
    for text in (" A:", "\nAnswer:", " **Answer:**", " The answer is", " the answer is:", " Answer: Paris"):
        assert labelled(text)
    for text in ("", " A", " Answer", " The answers are", " Paris: a", " America:"):
        assert not labelled(text)


def test_an_empty_target_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        succeeds("anything", " ")


def test_a_beginning_that_settles_it_is_recognised_early() -> None:
    for wrong in (" London", " the London", " Paxos"):
        assert settled(wrong, "Paris") and not succeeds(wrong, "Paris")
    for right in (" Paris, but", ' the "Paris" and', " Paris is", " The answer is Paris. It", " A: Paris is"):
        assert settled(right, "Paris") and succeeds(right, "Paris")
    for left_open in (" Paris or London", " A: Paris, or els"):
        assert settled(left_open, "Paris") and not succeeds(left_open, "Paris")
    for open_still in (
        "",
        " ",
        " t",
        " the",
        " The ",
        ' "',
        " P",
        " Paris",
        " Paris-",
        " a",
        " the (",
        " Par\ufffd",
        " A:",
        " Ans",
        " The answer",
        " The answer is",
        " Paris, o",
        " Paris or",
        " Paris/",
    ):
        assert not settled(open_still, "Paris")
    assert settled(" United Kin", "United States")
    assert not settled(" 12,", "12") and settled(" 12, and", "12")


def test_what_is_settled_stays_so() -> None:
    """Random texts over an alphabet of the troublesome: marks, articles, combining accents, characters that expand."""
    alphabet = ["a", "n", "t", "the", "an", " ", " ", "\n", '"', "(", "-", "5", ".", "ß", "ﬁ", "s", "f", "i"]
    alphabet += ["\u0301", "\u0323", "\u030c", "j", "É", "e", "ᄀ", "ᅡ", "ᆨ", "東", "*", "İ", "\u0345"]
    alphabet += ["a:", "answer", " is ", ":", "or", " or ", "o", "/", "ά", "í"]
    generator = random.Random(0)
    settled_early = Counter[bool]()
    for _ in range(20_000):
        target = "".join(generator.choices(alphabet, k=generator.randint(1, 4)))
        if not target.strip():
            continue
        if generator.random() < 0.5:
            before, after = (generator.choices(alphabet, k=generator.randint(*size)) for size in ((0, 2), (1, 4)))
            text = "".join([*before, target, *after])
        else:
            text = "".join(generator.choices(alphabet, k=generator.randint(0, 7)))
        verdict = succeeds(text, target)
        stopped = [begun for begun in beginnings(text) if settled(begun, target)]
        assert all(succeeds(begun, target) == verdict for begun in stopped), (text, target, stopped)
        settled_early[verdict] += bool(stopped)
    assert min(settled_early.values()) > 1_000 and len(settled_early) == 2
