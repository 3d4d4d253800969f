"""Prose out of wikitext and reStructuredText: what stays, what goes, and in which words."""

from __future__ import annotations

import pytest

from indelible.models.bundled.restructured import document_prose
from indelible.models.bundled.wikitext import article_prose, articles

REST = "and this sentence goes on for as long as a paragraph has to."


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("The '''albedo''' of ''snow'' is high,", "The albedo of snow is high,"),
        ("See [[Snow|fresh snow]], [[ice]]s,", "See fresh snow, ices,"),
        ("Snow [[File:a.jpg|thumb|[[Ice]] on a lake]]melts,", "Snow melts,"),
        ("Snow<ref name=a>{{cite|x=[[y]]}}</ref> melts<ref name=b/>,", "Snow melts,"),
        ("It is {{convert|10|to|20|km|mi|abbr=on}} wide,", "It is 10 to 20 km wide,"),
        ("''{{lang|la|albus}}'' ({{IPAc-en|a}}; {{small|white}}) it is,", "albus (white) it is,"),
        ("It ({{respell|al|BEE|doh}}) is high{{citation needed|date={{x}}}} ,", "It is high,"),
        ("A [http://a.b/c source] says &quot;so&quot;&nbsp;now,", 'A source says "so" now,'),
        ("* Of {{as of|2015}} it is so,", "Of As of 2015 it is so,"),
        ("The <small>snow</small> lies<!-- not -->,", "The snow lies,"),
    ],
)
def test_wikitext_in_plain_words(markup: str, plain: str) -> None:
    assert list(article_prose(f"{markup} {REST}")) == [(0, f"{plain} {REST}")]


def test_of_an_article_only_paragraphs_stay_each_in_its_section() -> None:
    article = f"""{{{{Infobox|name = {{{{nested}}}} | text = {REST}}}}}
First {REST}
{{|
| A table {REST}
{{|
| in it another {REST}
|}}
|}}
== One ==
Too short.
Of no end {REST[:-1]}
Formula <math>x</math> {REST}
=== Deeper ===
Second {REST}
== References ==
=== Deeper ===
Not {REST}
== Two ==
: indented {REST}
Third {REST}
<gallery>
Picture {REST}
</gallery>"""
    assert list(article_prose(article)) == [(0, f"First {REST}"), (1, f"Second {REST}"), (3, f"Third {REST}")]


def test_articles_of_a_dump() -> None:
    def page(title: str, space: int = 0, more: str = "") -> str:
        return (
            f"<page><title>{title}</title><ns>{space}</ns>{more}<revision><text>{title} text</text></revision></page>"
        )

    pages = page("A") + page("Talk:A", 1) + page("B", more='<redirect title="A"/>') + page("List of As")
    dump = (
        f'<mediawiki xmlns="http://any/"><siteinfo/>{pages}{page("C (disambiguation)")}{page("D &amp; E")}</mediawiki>'
    )
    assert list(articles(dump.encode())) == [("A", "A text"), ("D & E", "D & E text")]


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("Use ``a_b`` of :class:`~one.two.Three` in\n:setting:`DEBUG`,", "Use a_b of Three in DEBUG,"),
        ("See :ref:`the guide <some-guide>` and `a page <https://a.b>`_,", "See the guide and a page,"),
        ("It is **very** *new* -- and `so`_ on,", "It is very new -- and so on,"),
        ("* In version 1.6 it was 2 * 3,", "In version 1.6 it was 2 * 3,"),
    ],
)
def test_restructured_text_in_plain_words(markup: str, plain: str) -> None:
    assert list(document_prose(f"{markup} {REST}")) == [(0, f"{plain} {REST}")]


def test_of_a_document_only_paragraphs_stay_each_in_its_section() -> None:
    document = f"""
=====
Title
=====

.. _target:

First {REST}

Here is code::

    code {REST}

    more {REST}

.. code-block:: python
    :linenos:

    code {REST}

Second
======

.. note::

    A note {REST}

.. method:: Class.name()
    :async:

    A description
    {REST}

    * An item {REST}
      continues {REST}
    * Another {REST}

See :doc:`/other/page` {REST}

+-----+
| not |
+-----+
"""
    assert list(document_prose(document)) == [
        (1, f"First {REST}"),
        (2, f"A note {REST}"),
        (2, f"A description {REST}"),
        (2, f"An item {REST} continues {REST}"),
        (2, f"Another {REST}"),
    ]
