"""A loaded model in use from Python: asked about facts, and tuned."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from indelible.errors import FactsError
from indelible.exam.exam import answers_frame, take_exam
from indelible.exam.kind import PLAIN, check_kinds
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact
from indelible.models.load import LoadedModel, opened
from indelible.progress import Jobs
from indelible.tuning import train
from indelible.tuning.objective import tuning_settings
from indelible.tuning.protection import Guarded, Protection
from indelible.tuning.settings import TuningSettings
from indelible.watching import shown

if TYPE_CHECKING:
    import pandas as pd
    from transformers import TrainerCallback


def ask(
    model: LoadedModel | str, facts: Iterable[Fact], *, also: Sequence[str] = (), jobs: Jobs = shown
) -> pd.DataFrame:
    """Ask a model about facts: own prompts, held-out wordings and neighbours, as a study asks them.

    Args:
        model: that was loaded, or the name of one (see ``load``).
        facts: those with a new object are asked as edited ones, for that; the others for their true object.
        also: further kinds of questions: "chat", "reversal", "negation", "two-choice", "consequence", "old-object".
        jobs: told how far the asking is; by default a bar is shown on a terminal and in a notebook.

    Returns:
        one row per question, fact by fact, see ``answers_frame``: among others ``fact_id``, ``kind`` ("prompt",
        "paraphrase", "neighbour", ...), ``prompt``, ``target``, ``generated``, ``success``.

    Raises:
        FactsError: for what is no fact, or cannot be asked (see ``take_exam``).
        UnknownNameError: for a kind that there is not.
        ModelError: if the tokenizer lacks what a kind needs, such as a chat template.
    """
    facts, kinds = list(facts), (*PLAIN, *also)
    for fact in facts:
        if not isinstance(fact, Fact):
            raise FactsError(f"{fact!r} is no fact.", "Give facts: those that read_facts returns, or Fact(...).")
    loaded = opened(model)
    check_kinds(also, loaded.tokenizer)
    edited, intrinsic = ([fact for fact in facts if (fact.new_object is not None) is new] for new in (True, False))
    questions = questions_for(edited, "edited", kinds=kinds, tokenizer=loaded.tokenizer)
    questions += questions_for(intrinsic, "intrinsic", kinds=kinds, tokenizer=loaded.tokenizer)
    order = {fact.id: place for place, fact in enumerate(facts)}
    questions.sort(key=lambda question: order[question.fact_id])
    with jobs("asking") as progress:
        return answers_frame(take_exam(loaded.model, loaded.tokenizer, questions, progress=progress))


def fine_tune(
    model: LoadedModel,
    settings: TuningSettings | Mapping[str, Any] | None = None,
    *,
    frozen: Collection[str] = frozenset(),
    facts: Sequence[Fact] = (),
    seed: int = 0,
    callbacks: Sequence[TrainerCallback] = (),
    protections: Sequence[Protection] = (),
    guarded: Guarded | None = None,
    jobs: Jobs = shown,
    **options: Any,
) -> train.TuningResult:
    """Fine-tune a loaded model in place; see ``tuning.train.fine_tune`` for what is not said here.

    Args:
        settings, options: how to train, as a study's ``tuning`` has it: ``fine_tune(loaded, objective="text", steps=20,
            data={"source": "train.jsonl"})``.
        facts: that no training example may speak of.
        jobs: told how far training is; by default a bar is shown on a terminal and in a notebook.

    Raises:
        ConfigError: for an option that does not exist, naming the nearest, or cannot be used; and others, as there.
    """
    if not isinstance(settings, TuningSettings):
        settings = tuning_settings({**(settings or {}), **options})
    elif options:
        settings = tuning_settings({**settings.model_dump(exclude_unset=True), **options})
    loaded = opened(model)
    with jobs("tuning") as progress:
        return train.fine_tune(
            loaded.model,
            loaded.tokenizer,
            settings,
            frozen=frozen,
            facts=facts,
            seed=seed,
            callbacks=callbacks,
            protections=protections,
            guarded=guarded,
            progress=progress,
        )
