"""Facts edited as a user wants them edited: text for covariances, bystanders and earlier edits at hand, and asked.

Editors take all that they work with as arguments (see ``Editor.edit``); here it is brought together.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import reduce
from inspect import signature
from operator import add
from pathlib import Path
from typing import Any

from indelible.care.verify import verify_facts
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import WeightUpdate
from indelible.edits.editor import EDITORS, Editor
from indelible.errors import ConfigError, EditError, suggest
from indelible.facts.choose import check_edits, choose_bystanders
from indelible.facts.fact import Fact
from indelible.facts.world import world_facts
from indelible.models.bundled.fetch import cache_folder
from indelible.models.corpus import ENCYCLOPEDIA, corpus_texts
from indelible.models.load import LoadedModel, opened
from indelible.progress import Jobs
from indelible.validation import validated
from indelible.watching import shown


def edit(
    model: LoadedModel | str,
    facts: Sequence[Fact],
    editor: str | Editor = "memit",
    *,
    paraphrases: int = 0,
    earlier: Sequence[Edit] = (),
    bystanders: int = 400,
    corpus: str = ENCYCLOPEDIA,
    seed: int = 0,
    exam: bool = False,
    out: Path | str | None = None,
    jobs: Jobs = shown,
    **options: Any,
) -> Edit:
    """Edit facts in a model, as a value that is applied, saved and reverted by itself; the model is left as it was.

    Args:
        model: a causal language model in float32 that was loaded, or the name of one (see ``load``).
        facts: each with a new object.
        editor: an editor, or the name of one (see ``EDITORS``).
        paraphrases: further wordings of each fact to edit with.
        earlier: edits to go on from, in their order: put into the model for this one, which is made for what they
            leave. AlphaEdit leaves their facts alone; GRACE and IKE continue them.
        bystanders: how many built-in facts to draw whose subjects are left alone; 0 for the published methods.
        corpus: text for covariances: "encyclopedia", or a file with one text per line.
        seed: of all that is drawn.
        exam: also ask the facts under the edit, which then knows those that did not take (``Edit.not_taken``).
        out: file to save the edit in, at once when it is made, and again when its facts were asked.
        jobs: told how far the work is; by default bars are shown on a terminal and in a notebook.
        options: of the editor, e.g. ``layers=(3, 4, 5)``.

    Raises:
        UnknownNameError: for an editor that does not exist.
        ConfigError: for an option that it does not have, or a value that it cannot have.
        FactsError: if a fact has no new object, or one prompt gets two.
        EditError: if the earlier edits are no chain, or as ``Editor.edit``.
        FingerprintError: if an earlier edit was made for another model.
        DataError: if the corpus cannot be read.
        StoreError: if the edit cannot be saved.
    """
    # Of an editor, what it was given: the rest follows from that and from the options.
    given = editor.given() if isinstance(editor, Editor) else {}
    kind = type(editor) if isinstance(editor, Editor) else EDITORS.get(editor)
    for name in options:
        if name not in kind.model_fields:
            known = {*kind.model_fields, *signature(edit).parameters} - {"model", "facts", "editor", "options"}
            raise ConfigError(f"Unknown option {name!r}: neither edit nor {kind.name} has it.", suggest(name, known))
    made_by = validated(kind, {**given, **options}, "")
    check_edits(facts)
    _check_chain(earlier)
    around = made_by.uses_text and bystanders
    loaded = opened(model)
    again = {fact.id for fact in facts}
    # An adapter holds the facts that it continues, and what was found of those.
    answered = {id_: state for one in earlier for id_, state in one.answered.items() if id_ not in again}
    with ExitStack() as stack:
        for one in earlier:
            stack.enter_context(one.applied(loaded.model))
        with jobs("editing") as progress:
            done = made_by.edit(
                loaded.model,
                loaded.tokenizer,
                facts,
                paraphrases=paraphrases,
                earlier=_together(earlier),
                corpus=corpus_texts(corpus) if made_by.uses_text else (),
                bystanders=choose_bystanders(world_facts(), facts, [], bystanders, seed) if around else (),
                seed=seed,
                cache=cache_folder() / "covariances",
                progress=progress,
            )
        if out is not None:
            done.save(out)
        if exam:
            with jobs("asking") as progress, done.applied(loaded.model):
                asked = verify_facts(loaded.model, loaded.tokenizer, facts, context=done.context, progress=progress)
            answered |= {one.fact.id: one.state for one in asked}
    if answered:
        done = done.with_answers(answered)
        if out is not None:
            done.save(out)
    return done


def _check_chain(earlier: Sequence[Edit]) -> None:
    bases = [one.manifest.fingerprint for one in earlier if isinstance(one, WeightUpdate)]
    if len(set(bases)) < len(bases):
        raise EditError(
            "Two of the earlier deltas were made for the same model, so that they are no chain.",
            "Make one of them with `indelible compose`, and go on from that.",
        )


def _together(earlier: Sequence[Edit]) -> Edit | None:
    """All that is in the model: the sum of the updates, or the latest adapter, which holds those before it."""
    if earlier and not isinstance(earlier[-1], WeightUpdate):
        return earlier[-1]
    updates = [one for one in earlier if isinstance(one, WeightUpdate)]
    return reduce(add, updates) if updates else None
