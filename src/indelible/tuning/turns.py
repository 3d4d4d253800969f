"""Conversations as turns, from the forms that data sets have, and as the prompt that a last turn answers.

Known forms: one message or a list of them (``role`` and ``content``, or ``from`` and ``value``; JSON text of it too),
and one string in which turns begin with ``Human:`` and ``Assistant:`` after a blank line (hh-rlhf). A plain text passes
through everything here as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

HUMAN, ASSISTANT, SYSTEM = "Human", "Assistant", "System"

ROLES = {
    **dict.fromkeys(("human", "user", "prompter"), HUMAN),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), ASSISTANT),
    **dict.fromkeys(("system", "developer"), SYSTEM),
}
"""Names of roles in data sets -> who speaks."""

_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


class Turn(NamedTuple):
    """What one side (HUMAN, ASSISTANT or SYSTEM) says, without white space around it."""

    speaker: str
    text: str


Turns = tuple[Turn, ...]


def turns_of(value: Any) -> Turns | None:
    """The turns of a conversation, or None for anything else; ValueError for a list or an object that is no
    conversation, or a role that is not known."""
    if isinstance(value, str):
        if not value.lstrip().startswith(("[{", "[ {")):
            return _marked(value)
        try:
            return turns_of(json.loads(value))
        except (ValueError, RecursionError):
            return None  # a text that looks like JSON, or JSON that is no conversation
    if isinstance(value, Mapping):
        return (_turn(value),)
    return tuple(map(_turn, value)) if isinstance(value, list) and value else None


def as_prompt(said: str | Turns) -> str:
    """What an assistant is to answer, as one text: a single question as it is, after the system's words if there are
    any; longer conversations with all turns named and the assistant's left open, as in hh-rlhf."""
    if isinstance(said, str):
        return said
    while said and said[-1] == (ASSISTANT, ""):
        said = said[:-1]  # was left open already
    spoken = [turn.text for turn in said if turn.speaker != SYSTEM]
    if len(spoken) == 1:
        system = [turn.text for turn in said if turn.speaker == SYSTEM]
        return "\n\n".join(filter(None, [*system, *spoken]))
    return f"{as_text(said)}\n\n{ASSISTANT}:" if spoken else ""


def as_text(said: str | Turns) -> str:
    """A conversation as one text, each turn of the two sides with its speaker."""
    if isinstance(said, str):
        return said
    lines = [turn.text if turn.speaker == SYSTEM else f"{turn.speaker}: {turn.text}" for turn in said]
    return "\n\n".join(filter(None, lines))


def split_answer(said: str | Turns) -> tuple[Turns, str] | None:
    """The turns before the assistant's last one, and what it says there; None where it does not speak. What follows the
    answer is left out. A plain text is all answer."""
    if isinstance(said, str):
        return (), said
    spoken = [place for place, turn in enumerate(said) if turn.speaker == ASSISTANT]
    return (said[: spoken[-1]], said[spoken[-1]].text) if spoken else None


def _marked(text: str) -> Turns | None:
    marks = list(_MARK.finditer(text))
    if not any(mark[1] == ASSISTANT for mark in marks) or text[: marks[0].start()].strip():
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return tuple(Turn(mark[1], text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True))


def _turn(message: Any) -> Turn:
    if not isinstance(message, Mapping):
        raise ValueError(f"a message must have a role and a content, not be {message!r:.60}")
    role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise ValueError(f"the role {role!r} is not one of {', '.join(ROLES)}")
    if isinstance(content, list):  # of typed parts; those that are no texts go
        content = "\n".join(part["text"] for part in content if isinstance(part, dict) and part.get("text"))
    if not isinstance(content, str):
        raise ValueError(f"the content of a message is {content!r:.60}, not a text")
    return Turn(ROLES[role.lower()], content.strip())
