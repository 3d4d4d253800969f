"""Protections: what keeps edits while a model is fine-tuned, under any objective, tuner and trainer.

A protection sees the edited model before training, and of facts only what the edit saw: the prompts and the
paraphrases that were edited, never the wordings of an exam. It has up to three things to say, each optional: a penalty,
whose gradient is added to that of every optimizer step; a correction of the weights after every step; and what to do
with the weights when training is over. The first two are done by a callback of transformers, so that they work with the
Trainer and with trl's trainers alike::

    guarded = Guarded.of(model, tokenizer, edit.facts, edit.parameters)
    Trainer(model, ..., callbacks=[Guarding([KeyAnchor()], guarded)]).train()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from indelible.errors import ConfigError, suggest
from indelible.facts.wordings import editing_wordings
from indelible.models.tokens import encode_object, encode_prompt, subject_tokens
from indelible.registry import Registry
from indelible.tuning.tuners.tuner import QLORA
from indelible.validation import validated

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from indelible.edits.mending import Mending
    from indelible.facts.fact import Fact
    from indelible.models.layout import Layout

PROTECTIONS = Registry["type[Protection]"](
    "protection", "indelible.tuning.protections", group="indelible.protections", taken=["none"]
)

Weight = Annotated[float, Field(ge=0)]
NONE = "none"

WORDING_TOKENS = 10
"""Of a wording with its object, about."""


@dataclass(frozen=True)
class Wording:
    """One wording of an edited fact in tokens: the prompt's, the last of its subject's, and the new object's."""

    prompt: tuple[int, ...]
    subject: int
    target: tuple[int, ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """The prompt's and the object's."""
        return self.prompt + self.target


@dataclass(frozen=True)
class Guarded:
    """The edited model before it is tuned, and what the edit was made of.

    Attributes:
        model: holds the edit; a protection leaves it as it is.
        wordings: of all edited facts, in which they were edited.
        parameters: names of what the edit changed, or acts beside.
        others: facts that the model knew before and that no exam asks, to compare with.
        seed: of whatever is drawn.
        mending: how the edit's facts are edited again, for protections that do so; ``wordings`` are of its facts, in
            their order, as many of each.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    wordings: Sequence[Wording]
    parameters: Sequence[str]
    others: Sequence[Wording] = ()
    seed: int = 0
    mending: Mending | None = None

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        facts: Sequence[Fact],
        parameters: Sequence[str],
        *,
        context: str = "",
        paraphrases: int = 0,
        others: Sequence[Fact] = (),
        layout: Layout | None = None,
        seed: int = 0,
        mending: Mending | None = None,
    ) -> Self:
        """What is guarded of an edit of facts that the model holds: with the ``parameters`` and the ``context`` of the
        ``Edit``, and as many ``paraphrases`` as it was made with.

        Raises:
            EditError: if that many paraphrases cannot be made.
            LayoutError: if the model's layout cannot be found.
        """
        from indelible.models.layout import find_layout

        said = [
            wording_of(tokenizer, fact, template, fact.new_object or "", context)
            for fact in facts
            for template in (fact.prompt, *editing_wordings(fact, paraphrases))
        ]
        known = [wording_of(tokenizer, fact, fact.prompt, fact.true_object) for fact in others]
        return cls(model, tokenizer, layout or find_layout(model), said, tuple(parameters), known, seed, mending)

    @property
    def layers(self) -> list[int]:
        """The edited ones, ascending.

        Raises:
            ConfigError: if the edit lies in no layer, as facts in the context do.
        """
        found = {layer for name in self.parameters if (layer := self.layout.layer_of(name)) is not None}
        if not found:
            raise ConfigError("The edit lies in no layer of the model.", "Choose a protection that asks for none.")
        return sorted(found)


def wording_of(
    tokenizer: PreTrainedTokenizerBase, fact: Fact, template: str, answer: str, context: str = ""
) -> Wording:
    """One wording of a fact with an answer behind it."""
    text = context + fact.text(template)
    _, last = subject_tokens(tokenizer, context + template, fact.subject)
    return Wording(tuple(encode_prompt(tokenizer, text)), last, tuple(encode_object(tokenizer, text, answer)))


Penalty = Callable[[int], "Tensor | None"]
"""The penalty at an optimizer step, a scalar whose gradient is wanted; None where that step has none."""
Correction = Callable[["torch.optim.Optimizer"], None]
"""What is done to the weights after an optimizer step."""
Figure = Callable[[], float]
"""The held-out figure of the model as it stands, turned so that lower is better."""


class Protection(BaseModel, ABC):
    """Options of a protection; subclasses register themselves with ``@PROTECTIONS.register(name)``.

    With a dose of 0 a protection changes no bit of what training does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when the same options do something else than before, so that older results are not reused."""
    finishes: ClassVar[bool] = False
    """Whether it has something to do with the weights when training is over: those of qlora are quantised."""
    in_layers: ClassVar[bool] = False
    """Whether the edit has to lie in layers of the model."""
    tuners: ClassVar[tuple[str, ...]] = ()
    """Under which it works; empty for all."""
    mends: ClassVar[bool] = False
    """Whether it edits facts again, and wants to be told how (``Guarded.mending``)."""

    def __str__(self) -> str:
        """Its name, with the options that are not the usual ones: ``replay(share=0.4)``."""
        own = ", ".join(f"{key}={value}" for key, value in self.model_dump(exclude_defaults=True).items())
        return f"{self.name}({own})" if own else self.name

    def read(self, wordings: int) -> float:
        """Tokens that go forth and back for it with a step, on average, where so many wordings were edited, as far as
        can be said beforehand."""
        return 0.0

    def prepared(self, wordings: int) -> float:
        """Tokens that go forth alone for it before the first step, likewise."""
        return 0.0

    @property
    def written(self) -> int:
        """Tokens that the model writes for it before the first step."""
        return 0

    @property
    def looks(self) -> int:
        """How often it takes the held-out figure, at most."""
        return 0

    @property
    def needs_others(self) -> bool:
        """Whether it wants facts that the model knew before."""
        return False

    def lacking(
        self, model: PreTrainedModel, layout: Layout, layers: Sequence[int], frozen: Collection[str]
    ) -> str | None:
        """What it lacks where a mask freezes so much of a model with an edit in these layers; None where nothing."""
        return None

    def penalty(self, guarded: Guarded) -> Penalty | None:
        """Made before training; None for none."""
        return None

    def correction(self, guarded: Guarded) -> Correction | None:
        """Made before training, when it is known which parameters are trained; None for none."""
        return None

    def finish(self, guarded: Guarded, before: Mapping[str, Tensor], figure: Figure) -> None:
        """What becomes of the tuned weights; ``before`` are copies of those of the edited model."""


class Rehearsed(Protection, ABC):
    """A protection that looks at some things again and again while the model is trained.

    A pass costs as much as a hundred tokens before it has read any: it reads all weights and adds to all gradients.
    (On SmolLM2 and a CPU it takes 0.6 s; with 8 wordings of 11 tokens 1.3, with 8 rows of 49 3.2.) So there is one
    every few steps, which weighs as many times as much.

    Attributes:
        at_once: things (wordings, texts) drawn for a penalty, of each kind that it looks at.
        every: optimizer steps from one penalty to the next.
    """

    at_once: int = Field(8, ge=1)
    every: int = Field(4, ge=1)

    def read(self, wordings: int) -> float:
        """Those that are drawn, and once more for a pass's reading of all weights."""
        return 2 * self.at_once * self.length / self.every if self.strength else 0.0

    @property
    def length(self) -> int:
        """Tokens of a thing, about."""
        return WORDING_TOKENS

    @property
    @abstractmethod
    def strength(self) -> float:
        """What a penalty at every step would weigh beside the task's loss; 0 for none."""

    def things(self, guarded: Guarded) -> Sequence[Any]:
        """What is looked at: the edited wordings."""
        return guarded.wordings

    def kinds(self, guarded: Guarded) -> Sequence[Sequence[Any]]:
        """The same by kind, of each of which as many are drawn; one alone."""
        return [self.things(guarded)]

    def shown(self, guarded: Guarded, things: Sequence[Any]) -> Sequence[Any]:
        """What is kept of some of them from before training, one for each."""
        return things

    @abstractmethod
    def change(self, guarded: Guarded, things: Sequence[Any], kept: Sequence[Any]) -> Tensor:
        """What is to become small of them, a scalar with its gradient."""

    def penalty(self, guarded: Guarded) -> Penalty | None:
        """That of those that are drawn, amid so many steps: at the first nothing has changed yet, and what comes
        with the last has no steps left in which Adam follows it."""
        if not self.strength:
            return None
        import torch

        from indelible.models.batches import in_pieces
        from indelible.tuning.randomness import Drawn

        draws = []
        with torch.no_grad():
            for kind in self.kinds(guarded):
                pieces = in_pieces(kind, self.at_once)
                before = [pair for some in pieces for pair in zip(some, self.shown(guarded, some), strict=True)]
                draws.append(Drawn.of(before, guarded.seed))

        def changed(step: int) -> Tensor | None:
            if step % self.every != self.every // 2:
                return None
            things, kept = zip(*(pair for draw in draws for pair in draw.some(self.at_once)), strict=True)
            return self.strength * self.every * self.change(guarded, things, kept)

        return changed


class Anchored(Rehearsed, ABC):
    """A protection that holds what the model shows of some things where it was before training.

    Attributes:
        weight: of the penalty, beside the task's loss.
    """

    weight: Weight = 1.0

    @property
    def strength(self) -> float:
        """The weight."""
        return self.weight

    def prepared(self, wordings: int) -> float:
        """All that is looked at, once."""
        return wordings * self.length if self.strength else 0.0

    @abstractmethod
    def shown(self, guarded: Guarded, things: Sequence[Any]) -> Sequence[Any]:
        """What the model shows of them before training, as it is kept."""


def protections_from(text: str | Mapping[str, Mapping[str, Any]], path: str = "protect") -> tuple[Protection, ...]:
    """Protections as a study writes them: ``key-anchor+replay``, or names with their options; ``none`` for none.

    Raises:
        ConfigError: an unknown name or option, or a value that cannot be used.
    """
    if isinstance(text, str):
        text = {name: {} for name in "".join(text.split()).split("+")}
        if list(text) == [NONE]:
            return ()
    elif not isinstance(text, Mapping):
        raise ConfigError(f"{path!r} is {text!r}.", "Join names with a +, or map names to their options.")
    for name in text:
        if name == NONE:
            raise ConfigError(f"{path!r} names {NONE!r} beside others.", "Write it alone, or leave it out.")
        if name not in PROTECTIONS.names():
            raise ConfigError(f"Unknown protection {name!r} in {path!r}.", suggest(name, PROTECTIONS.names()))
    return tuple(validated(PROTECTIONS.get(name), own, f"{path}.{name}") for name, own in text.items())


def check_under(protections: Sequence[Protection], tuner: str, path: str = "protections") -> None:
    """ConfigError, which says where they stand, for a protection that does not work under a tuner."""
    for one in protections:
        if (one.tuners and tuner not in one.tuners) or (one.finishes and tuner == QLORA):
            others = " or ".join(one.tuners) or "lora"
            raise ConfigError(
                f"{path!r} has {one.name!r}, which does not work under the tuner {tuner!r}.",
                f"Tune with {others}, or choose another protection.",
            )
