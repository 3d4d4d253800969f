"""Which updates may be added up, and what their sum says of itself.

Two updates of one model are *side by side*; one that was made for what another leaves makes a *chain* with it. Anything
else has nothing to do with each other and is refused. All of it is read from manifests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from indelible.errors import EditError, FingerprintError

_MADE_BY = ("editor", "options", "paraphrases", "seed", "versions")


def joined(first: Mapping[str, Any], second: Mapping[str, Any], parameters: Sequence[str]) -> dict[str, Any]:
    """The manifest of the sum of two updates of weights, which has no seal.

    Args:
        first: manifest of one.
        second: manifest of the other.
        parameters: those of the sum.

    Raises:
        FingerprintError: if they are neither side by side nor a chain.
        EditError: if both edit one fact side by side, or mean different facts by one id.
    """
    chain = _follows(first, second)
    parts = [*_parts(first), *_parts(second)]
    facts = _joined_facts(first["facts"], second["facts"], chain)
    return {
        **{key: first[key] for key in ("format", "kind", "fingerprint", "model") if key in first},
        "editor": " + ".join(dict.fromkeys(part["editor"] for part in parts)),
        "parts": parts,
        "parameters": list(parameters),
        "facts": facts,
        "answered": _joined_answers(first, second, facts),
        "bystanders": list(dict.fromkeys([*first["bystanders"], *second["bystanders"]])),
        # What was made after the last of a chain can follow the chain's sum, too.
        "leaves": _leaves(second) if chain else [],
    }


def _follows(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether the second update was made for what the first one leaves; False if both were made for one model."""
    base, then, left = first["fingerprint"], second["fingerprint"], _leaves(first)
    if then == base:
        return False
    if then in left:
        return True
    raise FingerprintError(
        f"The second update was made for the model {then[:12]}, which is neither that of the first ({base[:12]}) nor"
        f" what the first one leaves ({', '.join(one[:12] for one in left) or 'not known: it is not sealed'}).",
        "Give updates of one model, or a chain in its order.",
    )


def _leaves(manifest: Mapping[str, Any]) -> list[str]:
    """Fingerprints of the models that an update may be said to leave."""
    sealed = [manifest["seal"]["result"]] if "seal" in manifest else []
    return [*sealed, *manifest.get("leaves", ())]


def _joined_facts(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], chain: bool
) -> list[Mapping[str, Any]]:
    """The facts of both; of one that a chain edits twice, what the later edit says."""
    kept = list(first)
    for fact in second:
        for earlier in first:
            named = fact["id"] == earlier["id"]
            meant = (fact["subject"], fact["relation"]) == (earlier["subject"], earlier["relation"])
            if named and not meant:
                raise EditError(
                    f"Both updates have a fact {fact['id']!r}, of {earlier['subject']!r} ({earlier['relation']}) and of"
                    f" {fact['subject']!r} ({fact['relation']}).",
                    "Give every fact an id of its own.",
                )
            if meant:
                if not chain:
                    raise EditError(
                        f"Both updates edit {fact['subject']!r} ({fact['relation']}).",
                        "Make the second edit on the model that the first one left, or leave that fact out.",
                    )
                kept = [one for one in kept if one is not earlier]
    return [*kept, *second]


def _joined_answers(
    first: Mapping[str, Any], second: Mapping[str, Any], facts: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """How each fact was answered under the edit that it comes from."""
    again = {fact["id"] for fact in second["facts"]}
    states = {id_: state for id_, state in first.get("answered", {}).items() if id_ not in again}
    states |= second.get("answered", {})
    return {fact["id"]: states[fact["id"]] for fact in facts if fact["id"] in states}


def _parts(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What made an update: one entry for each edit in it."""
    return list(manifest.get("parts") or [{key: manifest[key] for key in _MADE_BY}])
