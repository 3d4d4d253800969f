"""Which weights lost a fact: the exam on mixtures of the edited and the tuned model, group of parameters by group.

Tuning changes all kinds of weights at once. So parameters are split by where they lie relative to the edit, and the
model is asked for every subset of these groups: the subset has its tuned weights, the rest its edited ones. Nothing is
trained; what the answers say about each group is for `why.shares` to work out.

The groups: embeddings and layers *below* the edit; the edited *projections* themselves; what lies *beside* them, the
rest of the layers from the first to the last edited one; the layers *above*, with the final norm that reads them; the
output *head*. Where the head is tied to the input embedding, that one tensor acts both below and above the edit and can
only be exchanged for both: it is a group of its own, *tied*, so that no other group's share depends on where it would
have been counted, and so that the freeze masks (which freeze it whole) are still unions of groups.

An edit that changes no weight but acts beside one has no projections: that weight belongs to the rest of its layer. One
that acts in no layer (facts in the context) has the three groups *embeddings*, *layers* and *head* (or *tied*).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from indelible.errors import EditError, ModelError
from indelible.exam.exam import answers_frame, take_exam
from indelible.exam.proof import Ways
from indelible.exam.questions import Question
from indelible.models.layout import Layout
from indelible.progress import Progress
from indelible.why.shares import LABELS, NO_GROUP

Groups = Mapping[str, tuple[str, ...]]
"""Names of parameters by group, each parameter once, as ``model.named_parameters()`` lists it."""

GROUPS = tuple(LABELS)
COLUMNS = ("fact_set", "fact_id", "subject", "relation", "mixture", "success", "first_token", "log_prob")


def parameter_groups(
    model: nn.Module, layout: Layout, edited: Sequence[str], *, changes_weights: bool = True
) -> dict[str, tuple[str, ...]]:
    """Split a model's parameters by where they lie relative to an edit (see above).

    Args:
        edited: names of the parameters that the edit changes, or acts beside; none if it acts in no layer.
        changes_weights: whether it changes them.

    Returns:
        Groups in the order of GROUPS, without empty ones; every parameter is in exactly one.

    Raises:
        EditError: if an edited parameter is not in the model, or all of them lie outside its layers.
    """
    names: dict[int, list[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
    known = {name: aliases[0] for aliases in names.values() for name in aliases}
    if missing := [name for name in edited if name not in known]:
        raise EditError(f"The edited parameter {missing[0]!r} is not in this model.", "Give the model that was edited.")
    layers = {layer for name in edited if (layer := layout.layer_of(name)) is not None}
    if edited and not layers:
        raise EditError(
            f"The edit changes no layer ({edited[0]}), so nothing lies below or above it.", "Nothing can be explained."
        )
    changed = {known[name] for name in edited} if changes_weights else set()
    span = (min(layers), max(layers)) if layers else None
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    for aliases in names.values():
        group = "projections" if aliases[0] in changed else _place(layout, aliases, span)
        found[group].append(aliases[0])
    return {group: tuple(members) for group, members in found.items() if members}


def _place(layout: Layout, aliases: Sequence[str], span: tuple[int, int] | None) -> str:
    """The group of a parameter, by all names that it has; ``span`` is the first and the last edited layer."""
    head = any(name.startswith(f"{layout.head}.") for name in aliases)
    first = any(name.startswith(tuple(f"{module}." for module in layout.embeddings)) for name in aliases)
    if head:
        return "tied" if first else "head"
    if first:
        return "embeddings" if span is None else "below"
    if span is None:
        return "layers"
    layer = next((layer for name in aliases if (layer := layout.layer_of(name)) is not None), None)
    if layer is None or layer > span[1]:
        return "above"
    return "below" if layer < span[0] else "beside"


def changed_weights(model: nn.Module, tuned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the tuned weights (by any name of their parameters; what is left out did not change) that differ from
    the edited model's, by the names that ``model.named_parameters()`` lists.

    Raises:
        ModelError: if a name or shape is not the model's, a tied tensor has two values, or nothing differs.
    """
    listed = {id(tensor): name for name, tensor in model.named_parameters()}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found: dict[str, Tensor] = {}
    for name, weight in tuned.items():
        own = parameters.get(name)
        if own is None or own.shape != weight.shape or own.dtype != weight.dtype:
            what = "no such parameter" if own is None else f"it has {tuple(own.shape)} there, in {own.dtype}"
            raise ModelError(
                f"The tuned {name!r}, {tuple(weight.shape)} in {weight.dtype}, does not fit the edited model: {what}.",
                "Give two models of one architecture, adapters merged.",
            )
        first = listed[id(own)]
        if first in found and not torch.equal(found[first], weight):
            raise ModelError(
                f"{name!r} and {first!r} are one tensor in the edited model, but differ in the tuned one.",
                "Give two models that are tied alike.",
            )
        found[first] = weight
    found = {name: weight for name, weight in found.items() if not torch.equal(weight, parameters[name].cpu())}
    if not found:
        raise ModelError("Tuning changed no weight of the edited model.", "Give a model that was tuned after the edit.")
    return found


@contextmanager
def exchanging(model: nn.Module, tuned: Mapping[str, Tensor]) -> Iterator[Callable[[Collection[str]], None]]:
    """Exchange weights of the edited model for tuned ones (`changed_weights`), back and forth, inside the block.

    Nothing is copied but the tuned weights once, where they are on another device: parameters are pointed from one
    tensor to the other. After the block each points to its own again, whatever happened. Yields a function that is told
    which of these parameters shall have their tuned weights now; the others have the edited ones.
    """
    parameters = {name: model.get_parameter(name) for name in tuned}
    edited = {name: parameter.data for name, parameter in parameters.items()}
    other = {name: weight.to(edited[name].device) for name, weight in tuned.items()}

    def exchange(names: Collection[str]) -> None:
        for name, parameter in parameters.items():
            parameter.data = other[name] if name in names else edited[name]

    try:
        yield exchange
    finally:
        exchange(())


def mixture_exams(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    groups: Groups,
    tuned: Mapping[str, Tensor],
    *,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Ask the model, which holds the edit and is left as it was, bit for bit, in every mixture of groups.

    One row per question × mixture with COLUMNS: ``mixture`` names the groups with tuned weights in the order of GROUPS,
    joined by ``+``; NO_GROUP is the edited model. With g groups in which any weight differs there are 2^g mixtures, and
    neighbouring ones in the table differ by one group.

    Raises:
        ModelError: as ``changed_weights``.
        FactsError: as ``take_exam``.
    """
    changed = changed_weights(model, tuned)
    by_group = {group: members for group in GROUPS if (members := changed.keys() & set(groups.get(group, ())))}
    mixtures = in_gray_order(list(by_group))
    frames, ways = [], Ways()
    with exchanging(model, changed) as exchange:
        for done, mixture in enumerate(mixtures, 1):
            exchange({name for group in mixture for name in by_group[group]})
            frame = answers_frame(take_exam(model, tokenizer, questions, ways=ways))
            frame["mixture"] = "+".join(mixture) or NO_GROUP
            frames.append(frame[list(COLUMNS)])
            if progress is not None:
                progress(done, len(mixtures), f"mixtures; last: {frame['mixture'].iloc[0]}")
    return pd.concat(frames, ignore_index=True)


def in_gray_order(groups: Sequence[str]) -> list[tuple[str, ...]]:
    """All subsets, the empty one first, each differing from the one before by one group (a binary Gray code)."""
    numbers = [number ^ number >> 1 for number in range(2 ** len(groups))]
    return [tuple(group for place, group in enumerate(groups) if number >> place & 1) for number in numbers]
