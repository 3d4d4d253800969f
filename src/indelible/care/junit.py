"""What became of an edit's facts as JUnit XML, which CI systems show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

_NO_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""Characters that no XML file may hold."""


class Case(NamedTuple):
    """One fact: its prompt, what there is to say against it (nothing where it is as it should be), and whether that is
    a failure: what is lost within what is allowed is a skipped case."""

    name: str
    message: str
    fails: bool


def junit(suite: str, cases: Sequence[Case]) -> str:
    """A test suite of this name, as XML."""
    found = ElementTree.Element("testsuite", name=suite, tests=str(len(cases)))
    counts = {"failures": 0, "skipped": 0}
    for case in cases:
        shown = ElementTree.SubElement(found, "testcase", classname="facts", name=_clean(case.name))
        if case.message:
            counts["failures" if case.fails else "skipped"] += 1
            ElementTree.SubElement(shown, "failure" if case.fails else "skipped", message=_clean(case.message))
    for name, count in counts.items():
        found.set(name, str(count))
    ElementTree.indent(found)
    return ElementTree.tostring(found, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
