"""What became of an edit's facts as JUnit XML, which CI systems show."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from indelible.care.verify import Verification, Verified

_NO_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""Characters that no XML file may hold."""


def junit(found: Verification, require: float | None = None) -> str:
    """A test suite with a case per fact.

    The suite fails where ``found`` does not pass, and there alone: a fact that is weakened or gone although what is
    required is met is a skipped case, as one that was not taken. Each says what the model wrote.

    Args:
        require: as for ``Verification.passes``.
    """
    passes = found.passes(require)
    suite = ElementTree.Element("testsuite", name="indelible verify", tests=str(len(found.facts)))
    kinds = dict.fromkeys(("failure", "skipped"), 0)
    for one in found.facts:
        case = ElementTree.SubElement(suite, "testcase", classname="facts", name=_clean(one.fact.text()))
        if one.state == "present":
            continue
        lost = one.state == "gone" or (one.state == "weakened" and require is not None)
        kind = "failure" if lost and not passes else "skipped"
        kinds[kind] += 1
        ElementTree.SubElement(case, kind, message=_clean(_in_words(one)))
    suite.set("failures", str(kinds["failure"]))
    suite.set("skipped", str(kinds["skipped"]))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _in_words(one: Verified) -> str:
    return f"{one.state}: {one.fact.new_object!r} is expected, the model says {one.answer.generated.strip()!r}"


def _clean(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
