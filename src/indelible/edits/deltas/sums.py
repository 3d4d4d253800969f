"""Which updates may be added up, and what their sum says of itself.

Two updates of one model are *side by side*; one that was made for what another leaves makes a *chain* with it. Anything
else has nothing to do with each other and is refused. All of it is read from manifests.
"""

from __future__ import annotations

from collections.abc import Sequence

from indelible.edits.deltas.manifest import WeightManifest
from indelible.errors import EditError, FingerprintError
from indelible.facts.fact import Fact


def joined(first: WeightManifest, second: WeightManifest, parameters: Sequence[str]) -> WeightManifest:
    """The manifest of the sum of two updates of weights, which has no seal, given the parameters of the sum.

    Raises:
        FingerprintError: if they are neither side by side nor a chain.
        EditError: if both edit one fact side by side, or mean different facts by one id.
    """
    chain = _follows(first, second)
    facts = _joined_facts(first.facts, second.facts, chain)
    again = {fact.id for fact in second.facts}
    states = {id_: state for id_, state in first.answered.items() if id_ not in again} | second.answered
    arrived = {id_: share for id_, share in first.arrived.items() if id_ not in again} | second.arrived
    return first.but(
        made=first.made + second.made,
        parameters=tuple(parameters),
        facts=facts,
        answered={fact.id: states[fact.id] for fact in facts if fact.id in states},
        arrived={fact.id: arrived[fact.id] for fact in facts if fact.id in arrived},
        bystanders=tuple(dict.fromkeys(first.bystanders + second.bystanders)),
        # What was made after the last of a chain can follow the chain's sum, too.
        leaves=_leaves(second) if chain else (),
        seal=None,
    )


def _follows(first: WeightManifest, second: WeightManifest) -> bool:
    """Whether the second update was made for what the first one leaves; False if both were made for one model."""
    base, then, left = first.fingerprint, second.fingerprint, _leaves(first)
    if then == base:
        return False
    if then in left:
        return True
    raise FingerprintError(
        f"The second update was made for the model {then[:12]}, which is neither that of the first ({base[:12]}) nor"
        f" what the first one leaves ({', '.join(one[:12] for one in left) or 'not known: it is not sealed'}).",
        "Give updates of one model, or a chain in its order.",
    )


def _leaves(manifest: WeightManifest) -> tuple[str, ...]:
    """Fingerprints of the models that an update may be said to leave."""
    sealed = () if manifest.seal is None else (manifest.seal.result,)
    return (*sealed, *manifest.leaves)


def _joined_facts(first: Sequence[Fact], second: Sequence[Fact], chain: bool) -> tuple[Fact, ...]:
    """The facts of both; of one that a chain edits twice, what the later edit says."""
    kept = list(first)
    for fact in second:
        for earlier in first:
            meant = (fact.subject, fact.relation) == (earlier.subject, earlier.relation)
            if fact.id == earlier.id and not meant:
                raise EditError(
                    f"Both updates have a fact {fact.id!r}, of {earlier.subject!r} ({earlier.relation}) and of"
                    f" {fact.subject!r} ({fact.relation}).",
                    "Give every fact an id of its own.",
                )
            if meant and not chain:
                raise EditError(
                    f"Both updates edit {fact.subject!r} ({fact.relation}).",
                    "Make the second edit on the model that the first one left, or leave that fact out.",
                )
            if meant:
                kept = [one for one in kept if one is not earlier]
    return (*kept, *second)
