"""Objectives: what the loss is taken on, one file each.

An objective turns an example into a row, builds the trainer that trains on such rows (transformers' own, or one of
trl's), and takes the downstream figures by which a run is judged before, during and after. Its own options stand in a
class of settings beside it, and it says which task it trains on by default and what it needs of users' own data.

Nothing here, and no objective's module, imports torch or a trainer before it is needed: names, options and figures are
read when a study is planned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

from indelible.errors import ConfigError, UnknownNameError, suggest
from indelible.registry import Registry
from indelible.tuning.settings import DEFAULT_OBJECTIVE, TuningSettings
from indelible.tuning.task import TASKS
from indelible.validation import validated

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from indelible.tuning.task import Example

NO_LOSS = -100
"""Label of a token without loss, as in torch's cross entropy."""

S = TypeVar("S", bound=TuningSettings)
"""The class of an objective's settings."""


@dataclass(frozen=True)
class Figure:
    """A downstream figure, by the name that stop rules and tables know, and the direction in which it improves."""

    name: str
    better: Literal["lower", "higher"]

    def reached(self, value: float, wanted: float) -> bool:
        """Whether a value is at least as good as the one wanted."""
        return value <= wanted if self.better == "lower" else value >= wanted

    def improves(self, value: float, best: float) -> bool:
        """Whether a value is better than the best so far."""
        return value < best if self.better == "lower" else value > best


@dataclass(frozen=True)
class Work:
    """How many sequences of up to ``max_tokens`` tokens go through the model for one row: what tuning costs.

    Each time that a step is taken on the row, ``trained`` go forth and back and ``sampled`` are written by the model
    itself; ``referred`` go forth once before training; at each look at the held-out figures, ``judged`` go forth and
    ``answered`` are written.
    """

    trained: int = 1
    sampled: int = 0
    referred: int = 0
    judged: int = 1
    answered: int = 0

    @property
    def readings(self) -> int:
        """How often a row is read in a pass over all: once, or with each answer that is sampled."""
        return self.sampled or 1

    @property
    def writes(self) -> bool:
        """Whether the model writes anything by itself."""
        return bool(self.sampled or self.answered)


class Row(Protocol):
    """What an objective makes of an example. Rows are JSON-able and hold token ids."""

    @property
    def tokens(self) -> int:
        """How many are read, at least, when the row is trained on."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """The row in the form that the objective's trainer expects."""
        ...


@dataclass(frozen=True)
class Features:
    """A row of one sequence: t token ids and t labels. ``labels[i]`` is ``input_ids[i]`` where predicting that token
    bears loss, else NO_LOSS, as the first always is: nothing stands before it."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.input_ids) == len(self.labels), (len(self.input_ids), len(self.labels))
        assert self.labels[0] == NO_LOSS, self.labels[0]

    @classmethod
    def answering(cls, given: Sequence[int], wanted: Sequence[int], *more: Any) -> Self:
        """Loss on what is wanted after what is given; ``more`` are fields of a subclass."""
        return cls((*given, *wanted), (NO_LOSS,) * len(given) + tuple(wanted), *more)

    @property
    def tokens(self) -> int:
        """All."""
        return len(self.input_ids)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What is given."""
        return self.input_ids[: self.labels.count(NO_LOSS)]

    def as_dict(self) -> dict[str, Any]:
        """``input_ids`` and ``labels``."""
        return {"input_ids": list(self.input_ids), "labels": list(self.labels)}


Judge = Callable[[Collection[str]], Mapping[str, float]]
"""Takes the downstream figures of these names, at least, of a model as it stands: in evaluation mode, and leaving
random state as it was."""


@dataclass(frozen=True)
class Run(Generic[S]):
    """What a trainer and the figures are made from.

    Attributes:
        model: the model that is tuned, adapters included.
        trainee: what the trainer trains: the model, or something around it (see ``Objective.trainee``).
        tokenizer: a copy of the model's, with a padding token.
        train, heldout: rows.
        folder: for whatever a trainer would write.
        seed: of the order of rows, and of dropout.
        steps, expected: optimizer steps at most, and those that the learning rate's schedule reckons with.
        padding, cache: whether the model may write after prompts of unequal length together, and read on a cache.
        whole: whether its logits have to be taken whole (see training.scoring).
        losses: summed loss and tokens of each row that the loss was last taken of.
    """

    model: PreTrainedModel
    trainee: nn.Module
    tokenizer: PreTrainedTokenizerBase
    settings: S
    train: Sequence[Any]
    heldout: Sequence[Any]
    folder: str = ""
    seed: int = 0
    steps: int = 0
    expected: int = 0
    padding: bool = True
    cache: bool = True
    whole: bool = False
    losses: list[tuple[float, int]] = field(default_factory=list)

    @property
    def pad(self) -> int:
        """Token id to pad with."""
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)


class Objective(ABC, Generic[S]):
    """What the loss is taken on. Instances register themselves with ``OBJECTIVES.register(name)(...)``."""

    name: ClassVar[str]
    """As it is registered."""
    default_task: ClassVar[str]
    """Name of the task that it trains on when none is named."""
    needs: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Fields of users' own data (see own_data) that are enough for it, best first; without any it takes tasks alone. A
    prompt alone has to be a conversation with an answer."""
    asks: ClassVar[bool] = False
    """Whether "Answer:" follows those prompts of users' own data that do not end with a colon."""
    figures: ClassVar[tuple[Figure, ...]]
    """What it is judged by; the first is its utility, which arms are compared at."""
    settings: ClassVar[type[TuningSettings]] = TuningSettings
    """The options of a run, its own among them."""
    trainer_name: ClassVar[str] = "Trainer"
    """The class that trains: transformers' Trainer, or one of trl's."""
    decides: ClassVar[Mapping[str, str]] = {}
    """Arguments of that trainer that it decides itself, and what to do instead of passing them through."""
    version: ClassVar[int] = 1
    """Raised when the same settings give other rows or figures than before, so that older results are not reused."""

    def check_task(self, settings: TuningSettings) -> None:
        """ConfigError if the examples of a named task, of which the first is looked at, are not enough for it."""
        named = settings.task
        if named in (None, self.default_task) or settings.data is not None or not self.needs:
            return
        if any(_fields(named).issuperset(one) for one in self.needs):
            return
        fit = [name for name in TASKS.names() if any(_fields(name).issuperset(one) for one in self.needs)]
        raise ConfigError(
            f"The task {named!r} has no {' and '.join(self.needs[0])}, which the objective {self.name!r} needs.",
            f"Name another: {', '.join(fit)}.",
        )

    @abstractmethod
    def rows(
        self, tokenizer: PreTrainedTokenizerBase, example: Example, settings: S, labels: Sequence[str]
    ) -> Sequence[Row]:
        """Rows of at most ``settings.max_tokens`` tokens; none when the example does not fit or has nothing to learn.
        ``labels`` are the task's label words, where it has any.

        Raises:
            DataError: if the example lacks what the objective needs.
        """

    def arguments(self, settings: S) -> Mapping[str, Any]:
        """What it sets in its trainer's arguments, as far as the settings decide it."""
        return {}

    def trainee(self, model: PreTrainedModel, settings: S, labels: Sequence[str]) -> nn.Module:
        """What the trainer trains: the model itself, unless an objective puts something around it."""
        return model

    def trainer(self, run: Run[S]) -> Any:
        """A trainer that is ready to train ``run.trainee`` on ``run.train``, as ``made_trainer`` makes them (see
        tuning.training). None: the usual one for rows that are Features."""
        return None

    def shared(self, settings: S) -> bool:
        """Whether several processes can train together: with the usual trainer, which knows how to divide Features."""
        return type(self).trainer is Objective.trainer

    def judge(self, run: Run[S]) -> Judge | None:
        """What takes the figures on ``run.heldout``, made before training. None: the usual one for rows that are
        Features, which knows ``loss`` and ``perplexity``."""
        return None

    def work(self, settings: S) -> Work:
        """What one row costs."""
        return Work()

    def figure(self, name: str) -> Figure:
        """The figure of that name; UnknownNameError if the objective has none."""
        found = {figure.name: figure for figure in self.figures}
        if name not in found:
            raise UnknownNameError("figure", name, found)
        return found[name]


OBJECTIVES: Registry[Objective[Any]] = Registry(
    "objective", "indelible.tuning.objectives", group="indelible.objectives"
)


def tuning_settings(options: Mapping[str, Any], path: str = "tuning") -> TuningSettings:
    """Options of one run, checked once and for all, by the class of settings that their objective has.

    Args:
        options: as they are written in a study, flat: ``{"objective": "preference", "beta": 0.2}``.
        path: where they stand there, for messages.

    Raises:
        ConfigError: an unknown name or key, or a value that cannot be used.
    """
    name = str(options.get("objective", DEFAULT_OBJECTIVE))
    if name not in OBJECTIVES.names():
        raise ConfigError(f"Unknown objective {name!r} in {path!r}.", suggest(name, OBJECTIVES.names()))
    objective = OBJECTIVES.get(name)
    for key in options.keys() - objective.settings.model_fields.keys():
        if owners := [other for other in OBJECTIVES if key in OBJECTIVES.get(other).settings.model_fields]:
            raise ConfigError(
                f"'{path}.{key}' is an option of the objective {' or '.join(map(repr, owners))}, not of {name!r}.",
                "Remove it, or choose that objective.",
            )
    settings = validated(objective.settings, options, path)
    for asked, value in settings.stop_at.items():
        try:
            figure = objective.figure(asked)
        except UnknownNameError as error:
            raise ConfigError(f"{error.what.rstrip('.')} in '{path}.stop_at'.", error.fix) from None
        if isinstance(value, str) and not figure.improves(float(value.rstrip("%")), 0.0):
            raise ConfigError(
                f"{path}: stop_at {asked} {value} is no improvement ({figure.better} is better).",
                "Change one of these settings.",
            )
    return settings


def own_options(options: Mapping[str, Any], objective: str, used: Collection[str]) -> dict[str, Any]:
    """Of options that hold for all arms of a study, those that an arm's objective can have. What none of the objectives
    that are used knows stays, so that it is found to be unknown."""
    own = OBJECTIVES.get(objective).settings.model_fields
    others = {one for name in used for one in OBJECTIVES.get(name).settings.model_fields}
    return {key: value for key, value in options.items() if key in own or key not in others}


@cache
def _fields(task: str) -> frozenset[str]:
    """What the examples of a task have, as users' own data name it; nothing of a task without examples."""
    source = TASKS.get(task)
    example = next(iter(source(0)), None)
    if example is None:
        return frozenset()
    told: dict[str, object] = {
        "text": example.text,
        "prompt": example.prompt,
        "answer": example.prompt and example.answer,
        "label": source.labels,
        "chosen": example.rejected,
        "rejected": example.rejected,
    }
    return frozenset(name for name, value in told.items() if value)
