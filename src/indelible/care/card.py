"""What a shared edit says of itself: the README.md of a folder with an adapter or an edited model, as the hub shows it.

Everything in it comes out of the edit's manifest and what was measured; facts are escaped, for anyone may have written
them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import yaml

from indelible.edits.deltas.manifest import Manifest
from indelible.exam.exam import Answer
from indelible.numbers.words import counted

CARD = "README.md"
SHOWN = 20
_KINDS: dict[str, str] = {
    "prompt": "edited facts that are answered (efficacy)",
    "paraphrase": "held-out wordings that are answered (generalization)",
    "neighbour": "neighbours that are answered as is true (locality)",
}
_TAGS = ["model-editing", "knowledge-editing", "indelible"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def card(
    manifest: Manifest, *, library: str, use: str, revert: str, answers: Sequence[Answer] = (), note: str = ""
) -> str:
    """The card of a folder, in Markdown.

    Args:
        manifest: of the edit.
        library: that loads the folder: "peft" or "transformers".
        use, revert: how it is loaded, and how the edit is taken out again, in Markdown.
        answers: of an exam of the edited facts, taken of what is in the folder; without, the card says how many were
            answered right after the edit, where the manifest knows it.
        note: what else a reader has to know.
    """
    base, editors = manifest.model.name or "a model", manifest.editor
    head: dict[str, object] = {"library_name": library, "tags": _TAGS + ["lora"] * (library == "peft")}
    if _HUB_ID.fullmatch(base):
        head["base_model"] = base
    facts = manifest.facts
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip("\n"),
        "---",
        "",
        f"# {_text(base)}, {counted(len(facts), 'fact')} edited with {_text(editors)}",
        "",
        f"This model says some things otherwise than {_text(base)}, on purpose: facts were edited into its weights.",
        "",
        "| what | value |",
        "| --- | --- |",
        f"| base model | {_text(base)} ({_text(manifest.model.architecture)}) |",
        f"| its fingerprint | `{manifest.fingerprint[:12]}` |",
        f"| editor | {_text(editors)} |",
        f"| edited facts | {len(facts)} |",
        *(f"| {label} | {value} |" for label, value in _measured(manifest, answers)),
        "",
        *([note, ""] if note else []),
        "## Use",
        "",
        use,
        "",
        "## Take the edit out",
        "",
        revert,
        "",
    ]
    if facts:
        lines += ["## Facts", "", "| prompt | before | now |", "| --- | --- | --- |"]
        lines += [
            f"| {_text(fact.text())} | {_text(fact.true_object)} | {_text(fact.new_object or '')} |"
            for fact in facts[:SHOWN]
        ]
        lines += ["", f"{SHOWN} of {len(facts)} facts are shown.", ""] if len(facts) > SHOWN else [""]
    return "\n".join(lines)


def _measured(manifest: Manifest, answers: Sequence[Answer]) -> list[tuple[str, str]]:
    """What was measured, and how often it was so, of how many."""
    if not answers:
        states = list(manifest.answered.values())
        told = f"{states.count('present')} of {len(states)}"
        return [(_KINDS["prompt"], told)] if states else [(_KINDS["prompt"], "not measured")]
    found = []
    for kind, label in _KINDS.items():
        verdicts = [answer.success for answer in answers if answer.question.kind == kind]
        if verdicts:
            found.append((label, f"{sum(verdicts)} of {len(verdicts)}"))
    return found


def _text(text: str) -> str:
    """A text that nothing in Markdown or HTML is made of."""
    plain = html.escape(" ".join(text.split()))
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", plain)
