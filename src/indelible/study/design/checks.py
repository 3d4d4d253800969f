"""What can be found wrong with a study before its first step, so that nobody learns of it minutes later.

The facts are checked as soon as they are read, what depends on the model as soon as it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.errors import ConfigError, EditError, FactsError, LayoutError
from indelible.facts.choose import check_edits
from indelible.facts.fact import Fact
from indelible.facts.wordings import editing_wordings
from indelible.models.layout import Layout
from indelible.numbers.words import counted
from indelible.study.design.arms import Arm
from indelible.study.design.settings import FactsSettings
from indelible.tuning.freezing.mask import about_edit, frozen_parameters

COVARIANCE_TOKENS = "covariance_tokens"


def checked_facts(candidates: Sequence[Fact], arms: Sequence[Arm], settings: FactsSettings) -> FactsSettings:
    """The settings with the number of facts to edit, once the facts are read.

    Raises:
        FactsError: if there are fewer facts than are asked for, or two edits contradict each other.
        ConfigError: naming arm and fact, if one that may be edited has fewer wordings than an arm edits with.
    """
    settings = _counted(candidates, settings)
    arm = max(arms, key=lambda arm: arm.paraphrases)
    for fact in candidates if arm.paraphrases else ():
        if settings.redraws or fact.new_object is not None:
            try:
                editing_wordings(fact, arm.paraphrases)
            except EditError as error:
                raise ConfigError(f"'arms.{arm.name}.paraphrases': {error.what}", error.fix) from None
    return settings


def _counted(candidates: Sequence[Fact], settings: FactsSettings) -> FactsSettings:
    if settings.file is None:
        there = len({fact.subject.casefold() for fact in candidates})
        if settings.edits + settings.n_intrinsic > there:
            raise FactsError(
                f"'facts' wants {settings.edits} edited and {settings.n_intrinsic} intrinsic facts, each of a subject"
                f" of its own; {settings.source} has {counted(there, 'subject')}.",
                f"Set n_edits and n_intrinsic to {there} together at most, or, to edit the facts of a file as they are,"
                " name it as facts.edited.",
            )
        return settings.model_copy(update={"n_edits": settings.edits})
    named = [fact for fact in candidates if fact.new_object is not None]
    check_edits(named)
    if settings.edits > len(named) and settings.n_edits is not None:
        raise FactsError(
            f"'facts.n_edits' is {settings.n_edits}, but {settings.file} has {counted(len(named), 'fact')} with a new"
            " object.",
            f"Set it to {len(named)} or less, or leave it out to edit them all.",
        )
    there = len({fact.subject.casefold() for fact in candidates if fact.new_object is None})
    if settings.n_intrinsic > there:
        raise FactsError(
            f"'facts.n_intrinsic' is {settings.n_intrinsic}, but there are only {counted(there, 'subject')} beside the"
            f" {len(named)} edits.",
            f"Set it to {there} or less, or take others with facts.intrinsic (world has the built-in facts)."
            if there
            else "Take others with facts.intrinsic: world has the built-in facts.",
        )
    return settings.model_copy(update={"n_edits": settings.n_edits or len(named)})


def check_with_model(
    arms: Sequence[Arm],
    model: PreTrainedModel,
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Callable[[], list[str]],
) -> None:
    """Raise a ConfigError, naming the arm, if its layers do not exist or have nothing to edit, its mask leaves nothing
    to its protections, or its covariances cannot have full rank.

    ``corpus`` gives the texts for covariances; it is called only when an arm needs them.
    """
    wanted: dict[str, int] = {}
    least = 2 * layout.key_width
    for arm in arms:
        if arm.editor is None:
            continue
        try:
            layers = arm.editor.layers_in(layout)
            edited = arm.editor.parameters_in(model, layout)
        except (ConfigError, LayoutError) as error:
            raise ConfigError(f"'arms.{arm.name}.options': {error.what}", error.fix) from None
        if arm.protections and (edited or not about_edit(arm.mask)):  # left to tracing, they are not known yet
            frozen = frozen_parameters(arm.mask, model, layout, edited)
            for one in arm.protections:
                if (lacking := one.lacking(model, layout, layers, frozen)) is not None:
                    raise ConfigError(
                        f"'arms.{arm.name}.protect' is {one.name!r} under the mask {arm.mask!r}: {lacking}.",
                        "Freeze less, or choose another protection.",
                    )
        given = getattr(arm.editor, COVARIANCE_TOKENS, 0)
        if given is not None and 0 < given < least:
            raise ConfigError(
                f"'arms.{arm.name}.options.{COVARIANCE_TOKENS}' is {given}, too few for {layout.key_width} key "
                "dimensions.",
                f"Give at least {least}.",
            )
        if given != 0 and arm.delta is None:
            wanted[arm.name] = least if given is None else given
    if not wanted:
        return
    name, most = max(wanted.items(), key=lambda entry: entry[1])
    found = 0
    for text in corpus():
        found += len(tokenizer(text)["input_ids"])
        if found >= most:
            return
    raise ConfigError(
        f"The corpus has {found} tokens, and the covariances of arm {name!r} want {most}.",
        f"Give more text, or lower {COVARIANCE_TOKENS} (at least {least} for this model).",
    )
