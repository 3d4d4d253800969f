"""Conversations as turns, from the forms that data sets have, and as the prompt that a last turn answers.

Known forms: a list of messages (``role`` and ``content``, or ``from`` and ``value``; JSON text of it too), one such
message, and one string in which turns begin with ``Human:`` and ``Assistant:`` after a blank line (hh-rlhf).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HUMAN, ASSISTANT, SYSTEM = "Human", "Assistant", "System"

ROLES: Mapping[str, str] = {
    "human": HUMAN,
    "user": HUMAN,
    "prompter": HUMAN,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "bot": ASSISTANT,
    "model": ASSISTANT,
    "system": SYSTEM,
    "developer": SYSTEM,
}
"""Names of roles in data sets -> who speaks."""

_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


class TurnsError(ValueError):
    """Why a value is no conversation that can be used."""


@dataclass(frozen=True)
class Turn:
    """What one side says.

    Attributes:
        speaker: HUMAN, ASSISTANT or SYSTEM.
        text: without white space around it.
    """

    speaker: str
    text: str


def turns_of(value: Any) -> tuple[Turn, ...] | None:
    """The turns of a conversation, or None for a plain text.

    Raises:
        TurnsError: for a list or an object that is no conversation, or a role that is not known.
    """
    if isinstance(value, str):
        if value.lstrip().startswith(("[{", "[ {")):
            try:
                return turns_of(json.loads(value))
            except ValueError:
                return None  # a text that looks like JSON, or JSON that is no conversation
        return _marked(value)
    if isinstance(value, Mapping):
        return (_turn(value),)
    if isinstance(value, Sequence) and value:
        return tuple(_turn(message) for message in value)
    raise TurnsError(f"a {type(value).__name__} is no text and no conversation")


def as_prompt(turns: Sequence[Turn]) -> str:
    """What an assistant is to answer, as one text.

    A single question stands for itself, after the system's words if there are any. Of longer conversations all turns
    are named and the assistant's is left open, as in hh-rlhf.
    """
    while turns and turns[-1] == Turn(ASSISTANT, ""):
        turns = turns[:-1]  # was left open already
    said = [turn for turn in turns if turn.speaker != SYSTEM]
    if len(said) == 1:
        system = [turn.text for turn in turns if turn.speaker == SYSTEM]
        return "\n\n".join(filter(None, [*system, said[0].text]))
    return f"{as_text(turns)}\n\n{ASSISTANT}:" if said else ""


def as_text(turns: Sequence[Turn]) -> str:
    """A conversation as one text, each turn of the two sides with its speaker."""
    lines = [turn.text if turn.speaker == SYSTEM else f"{turn.speaker}: {turn.text}" for turn in turns]
    return "\n\n".join(filter(None, lines))


def split_answer(turns: Sequence[Turn]) -> tuple[tuple[Turn, ...], str]:
    """The turns before the assistant's last one, and what it says there; what follows it is left out.

    Raises:
        TurnsError: if the assistant does not speak.
    """
    for place in range(len(turns) - 1, -1, -1):
        if turns[place].speaker == ASSISTANT:
            return tuple(turns[:place]), turns[place].text
    raise TurnsError("no turn of the assistant in the conversation")


def _marked(text: str) -> tuple[Turn, ...] | None:
    marks = list(_MARK.finditer(text))
    if not any(mark[1] == ASSISTANT for mark in marks) or text[: marks[0].start()].strip():
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return tuple(Turn(mark[1], text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True))


def _turn(message: Any) -> Turn:
    if not isinstance(message, Mapping):
        raise TurnsError(f"a message must have a role and a content, not be {message!r:.60}")
    role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise TurnsError(f"the role {role!r} is not one of {', '.join(ROLES)}")
    if isinstance(content, Sequence) and not isinstance(content, str):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        content = "\n".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str):
        raise TurnsError(f"the content of a message is {content!r:.60}, not a text")
    return Turn(ROLES[role.lower()], content.strip())
