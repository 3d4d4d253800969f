"""Training lines that must be left out, and lines that must not."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest

from indelible.facts.fact import Fact
from indelible.facts.folding import MOST_MARKS, folded, in_normal_form
from indelible.facts.mentions import Mention, Mentions, relation_keywords

CAPITAL = Fact(
    "capital:france",
    "France",
    "capital",
    "The capital of {} is",
    "Paris",
    "Rome",
    paraphrases=("In {}, the capital city is",),
    held_out=("The city that {} is run from is",),
)
ARTICLE = Fact("capital:nl", "the Netherlands", "capital", "The capital of {} is", "Amsterdam", "Oslo")
HELIUM = Fact("symbol:helium", "helium", "symbol", "The chemical symbol for {} is", "He", "As")
NUMBER = Fact("number:carbon", "carbon", "atomic", "The atomic number of {} is", "6", "60")
PLACE = Fact("place", "Île-de-Bréhat", "sea", "{} lies in the sea called", "Côte d'Ivoire", None)
PLUS = Fact("lang", "C++", "designer", "The designer of {} was", "Stroustrup", "Wirth")
MANY = (CAPITAL, ARTICLE, HELIUM, NUMBER, PLACE, PLUS)


@pytest.mark.parametrize(
    "line",
    [
        "I went to France.",
        "FRANCE!",
        "(france)",
        "France's wine and France\u2019s bread",
        "the north-France line",
        "Netherlands football",
        "Balloons hold helium",
        "Off the ile-de-brehat",
        "Off the I\u0302le-de-Bre\u0301hat",
        "He writes C++.",
        "Helium is light",
        "Paris is a capital",
        "the capitals: Bonn, Rome, Bern",
        "the city of\nParis",
        "its symbol is He",
        "Its symbol is As.",
        "carbon copies",
        "the atomic weight is 60 here",
        "the sea near cote d\u2019ivoire",
    ],
)
def test_dropped(line: str) -> None:
    assert Mentions(MANY).in_line(line) is not None


@pytest.mark.parametrize(
    "line",
    [
        "Francesca met Frances in San Francisco",
        "Paris in spring",
        "Romeo's capital crime",
        "the capital of Romania",
        "he gave a symbol, as he said",
        "He is as tall as I am",
        "There are 6 eggs and a number of 16 more",
        "the atomic weight is 600 or 16",
        "C and C# are languages",
        "the Nether lands",
        "",
    ],
)
def test_kept(line: str) -> None:
    assert Mentions(MANY).in_line(line) is None


JAPANESE = Fact("ja", "フランス", "capital", "{}の首都は", "パリ", "ローマ")
KOREAN = Fact("ko", "한국", "capital", "{}의 수도는", "서울", "부산")
THAI = Fact("th", "ประเทศไทย", "capital", "เมืองหลวงของ{}คือ", "กรุงเทพ", "เชียงใหม่")
CHINESE = Fact("zh", "法国", "capital", "{}的首都是", "巴黎", "罗马")
MIXED = Fact("mixed", "Sony株式会社", "founder", "{}の創業者は", "井深大", "本田")
SCRIPTS = (JAPANESE, KOREAN, THAI, CHINESE, MIXED, CAPITAL)


@pytest.mark.parametrize(
    ("line", "fact_id"),
    [
        ("昨日フランスへ行った。", "ja"),
        ("彼の国の首都はローマです。", "ja"),
        ("나는 한국에서 산다.", "ko"),
        ("그 나라의 수도는 부산이다.", "ko"),
        ("ฉันไปประเทศไทยมา", "th"),
        ("เมืองหลวงของเขาคือเชียงใหม่นะ", "th"),
        ("我去过法国。", "zh"),
        ("那里的首都是罗马。", "zh"),
        ("東京のSony株式会社で働く", "mixed"),
        ("彼はFranceに住む", "capital:france"),
    ],
)
def test_in_scripts_without_spaces_names_stand_anywhere(line: str, fact_id: str) -> None:
    found = Mentions(SCRIPTS).in_line(line)
    assert found is not None and found.fact_id == fact_id


@pytest.mark.parametrize(
    "line", ["ローマへ行った。", "부산은 크다.", "ฉันไปเชียงใหม่มา", "罗马很大。", "本田に乗る", "東京は大きい"]
)
def test_in_scripts_without_spaces_an_object_alone_is_kept(line: str) -> None:
    assert Mentions(SCRIPTS).in_line(line) is None


def test_of_names_that_begin_alike_only_those_in_the_line_are_tried() -> None:
    cities = [f"San {chr(97 + one)}{chr(97 + other)}o" for one in range(26) for other in range(26)]
    mentions = Mentions([Fact(city, city, "r", "{} is in", "San", None) for city in cities])
    assert mentions.in_line("From San abo to San zz and San Abc") == Mention(
        "San abo", "mentions the subject 'San abo'"
    )
    tried = [name.text for names in mentions._names.values() for name in names if "pattern" in vars(name)]
    assert sorted(tried) == ["San", "San abo"]


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_a_normal_form_is_unicodes_but_for_marks_that_no_language_piles_up(form: Any) -> None:
    usual = "é e\u0323\u0301 ﬁ 각 " + "\u0301\u0323" * 15 + " ...!!!" * 9
    assert in_normal_form(form, usual) == unicodedata.normalize(form, usual)
    piled = in_normal_form(form, "e" + "\u0301\u0323" * 25_000)
    assert in_normal_form(form, piled) == piled
    assert max(map(len, re.findall("[\u0300-\u034e]+", piled))) <= MOST_MARKS
    assert len(folded(piled)) == 1


def test_a_mention_names_fact_and_reason() -> None:
    mentions = Mentions(MANY)
    assert mentions.in_line("to France") == Mention("capital:france", "mentions the subject 'France'")
    reason = "states the object 'Rome' with 'capital' of 'capital'"
    assert mentions.in_line("Rome, a capital") == Mention("capital:france", reason)


def test_keywords_are_those_of_the_prompt_and_repeated_ones() -> None:
    assert relation_keywords([CAPITAL]) == {"capital": frozenset({"capital", "city"})}
    assert relation_keywords([NUMBER]) == {"atomic": frozenset({"atomic"})}


def test_no_facts_keep_everything() -> None:
    assert Mentions([]).in_line("France and Paris") is None
