"""The exam: questions in, answers out, the same for edited and intrinsic facts and in every phase.

Each distinct prompt is read once however many questions share it, and what prompts begin with alike is, too, where the
model can be read so. No result depends on which other questions are asked or on how many are asked at a time (but for
rounding).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from indelible.errors import ConfigError, FactsError, SpellingError
from indelible.exam.batching import sit
from indelible.exam.criterion import succeeds
from indelible.exam.kind import KINDS
from indelible.exam.proof import Ways
from indelible.exam.questions import Question, own_prompts
from indelible.exam.sitting import LABEL_TOKENS, Outcome, Sitting, Tokens, Transcript, first_line
from indelible.facts.fact import Fact
from indelible.models.batches import most_tokens, turning_points
from indelible.models.tokens import check_vocabulary, encode_object, encode_prompt
from indelible.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

LEAST_NEW_TOKENS = 4
# A quotation mark or an article in front of the answer, and the word that shows where the answer ends.
SPARE_NEW_TOKENS = 2
KNOWN_FACTS_CHUNK = 256

_OF_QUESTION = ("fact_set", "fact_id", "subject", "relation", "kind", "wording", "prompt", "target", "rival")
_OF_ANSWER = ("generated", "success", "first_token", "log_prob", "probability", "margin", "rank")


@dataclass(frozen=True)
class Answer:
    """What a model gave to one question.

    Attributes:
        generated: its free, greedy continuation of the prompt, up to the end of the line or the budget of tokens.
        success: the criterion: the continuation starts with the whole target (see ``criterion.succeeds``), or that of
            the question's kind.
        first_token: whether the target's first token is the most probable next token; neither this nor success implies
            the other (see ``criterion``).
        log_prob: natural log-probability of the target after the prompt, summed over its tokens (teacher-forced).
        rival_log_prob: the same for the rival; NaN without a rival.
        rank: place of the target's first token among all next tokens, from 1.
    """

    question: Question
    generated: str
    success: bool
    first_token: bool
    log_prob: float
    rival_log_prob: float
    rank: int

    @property
    def probability(self) -> float:
        """Probability of the whole target after the prompt."""
        return math.exp(self.log_prob)

    @property
    def margin(self) -> float:
        """By how much the target's log-probability exceeds the rival's, in nats; NaN without a rival."""
        return self.log_prob - self.rival_log_prob


@dataclass(frozen=True)
class Held:
    """A fact as a model holds it: whether it answers the fact's own prompt by the success criterion, and how probable
    the whole true object is there."""

    fact: Fact
    known: bool
    probability: float


@dataclass(frozen=True)
class _Asked:
    """A question in tokens, the target before the rival, and how many may be written in answer to it."""

    question: Question
    prompt: Tokens
    answers: tuple[Tokens, ...]
    budget: int

    @property
    def length(self) -> int:
        """Tokens that the model must take in all."""
        return len(self.prompt) + max(self.budget + LABEL_TOKENS, *map(len, self.answers))

    def turns(self, points: Iterable[int]) -> int | None:
        """The first of some lengths that the prompt keeps within and an answer might not."""
        return next((point for point in points if len(self.prompt) <= point < self.length), None)


def take_exam(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    batch_size: int | None = None,
    max_new_tokens: int | None = None,
    progress: Progress | None = None,
    ways: Ways | None = None,
) -> list[Answer]:
    """Put the questions to a causal language model; one answer per question, in their order.

    The model is read in evaluation mode, without gradients or autocast, in the precision of its stored weights; it is
    left as it was found, training flags included, and no random number is drawn.

    Args:
        model: a transformers causal language model, on any device.
        batch_size: prompts read at a time, at most; by default as many as suit the device.
        max_new_tokens: write so many tokens after each prompt, across ends of lines, of which ``success`` judges the
            first; by default, per question, two more than the longer of its target and its rival, and at least four,
            beside a label in front of the answer, and up to the end of the line.
        progress: called with the number of distinct prompts done, their total, and a note.
        ways: kept by callers who ask one model again and again, so that a way of reading it is sought once.

    Raises:
        FactsError: if a prompt or an answer has no tokens, a target several lines, or a prompt is too long, or so near
            to where the model begins to count positions otherwise (LongRoPE) that its answer would cross that place.
        ModelError: if the model has no embedding of a token, or cannot be read as in plain passes in any way.
        ConfigError: if ``batch_size`` or ``max_new_tokens`` is not positive.
    """
    for name, given in {"batch_size": batch_size, "max_new_tokens": max_new_tokens}.items():
        if given is not None and given < 1:
            raise ConfigError(f"{name} is {given}.", "Give a number of at least 1, or None.")
    asked = _fitting(model, tokenizer, questions, max_new_tokens)
    sittings = _sittings(asked)
    transcript = Transcript(model, tokenizer, whole=max_new_tokens is not None)
    outcomes: dict[Tokens, Outcome] = {}
    for sitting, outcome in sit(model, transcript, sittings, ways or Ways(), batch_size):
        outcomes[sitting.prompt] = outcome
        if progress is not None:
            progress(len(outcomes), len(sittings), "prompts")
    return _judged([_answer(transcript, item, outcomes[item.prompt]) for item in asked])


def check_questions(model: Any, tokenizer: Any, questions: Sequence[Question]) -> None:
    """Raise what ``take_exam`` would raise of these questions before it puts the first."""
    _fitting(model, tokenizer, questions, None)


def known_facts(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    *,
    enough: int | None = None,
    context: str = "",
    progress: Progress | None = None,
    ways: Ways | None = None,
) -> list[Fact]:
    """The facts, in the given order, that the model answers by the success criterion when asked with their own prompt.

    They are exactly those whose answer would be a success in ``take_exam`` (the first ``enough`` of them); asking is
    quicker here, because writing ends as soon as the verdict is settled. A fact whose prompt is too long for the model,
    or whose object its tokenizer cannot spell, is one that it does not know.

    Args:
        enough: stop when so many are found; all candidates by default.
        context: put before each prompt.
        progress: called with the number of facts asked, their total, and how many are known.
        ways: as for ``take_exam``.

    Raises:
        FactsError: if a prompt or an answer has no tokens.
    """
    known: list[Fact] = []
    ways = ways or Ways()
    for start in range(0, len(facts), KNOWN_FACTS_CHUNK):
        chunk = facts[start : start + KNOWN_FACTS_CHUNK]
        held = how_held(model, tokenizer, chunk, context=context, ways=ways)
        known += [one.fact for one in held if one.known]
        if progress is not None:
            progress(start + len(chunk), len(facts), f"{len(known)} known")
        if enough is not None and len(known) >= enough:
            return known[:enough]
    return known


def how_held(
    model: Any, tokenizer: Any, facts: Sequence[Fact], *, context: str = "", ways: Ways | None = None
) -> list[Held]:
    """How a model holds each fact that it can be asked about, in their order: for its true object, by its own prompt.

    Left out are facts without a true object, those whose prompt is too long for the model, and those whose object its
    tokenizer cannot spell. Arguments and
    errors are those of ``known_facts``.
    """
    longest, turns = most_tokens(model), turning_points(model)
    transcript = Transcript(model, tokenizer)
    fitting = []
    facts = [fact for fact in facts if fact.true_object]
    for fact, question in zip(facts, own_prompts(facts, "intrinsic", context=context), strict=True):
        with suppress(SpellingError):  # what cannot be spelled is not answered
            (item,) = _in_tokens(model, tokenizer, [question], None)
            if item.length <= longest and item.turns(turns) is None:
                fitting.append((fact, item))
    sittings = _sittings([item for _, item in fitting], until_settled=True)
    outcomes = {sitting.prompt: outcome for sitting, outcome in sit(model, transcript, sittings, ways or Ways())}
    held = []
    for fact, item in fitting:
        outcome = outcomes[item.prompt]
        known = succeeds(transcript.text(outcome.written, item.budget), fact.true_object)
        held.append(Held(fact, known, math.exp(outcome.scores[item.answers[0]].log_prob)))
    return held


def answers_frame(answers: Sequence[Answer]) -> pd.DataFrame:
    """Tidy rows, one per answer: the question, what was generated, and every number of the exam."""
    import pandas as pd

    questions, given = attrgetter(*_OF_QUESTION), attrgetter(*_OF_ANSWER)
    rows = [(*questions(answer.question), *given(answer)) for answer in answers]
    return pd.DataFrame(rows, columns=[*_OF_QUESTION, *_OF_ANSWER])


def _in_tokens(model: Any, tokenizer: Any, questions: Sequence[Question], max_new_tokens: int | None) -> list[_Asked]:
    """The questions in tokens; each distinct text is encoded once."""

    prompt_of = cache(lambda text: tuple(encode_prompt(tokenizer, text)))
    answer_of = cache(lambda text, answer: tuple(encode_object(tokenizer, text, answer)))
    asked = []
    for question in questions:
        texts = [question.target] if question.rival is None else [question.target, question.rival]
        if not all(text.strip() for text in texts):
            raise FactsError(f"Fact {question.fact_id!r} has an empty answer.", "Give it an object, or leave it out.")
        if "\n" in question.target.strip():
            has = f"Fact {question.fact_id!r} has an answer of several lines"
            raise FactsError(f"{has}; a model's is judged to the end of its line.", "Give its first line.")
        prompt, answers = prompt_of(question.text), tuple(answer_of(question.text, text) for text in texts)
        check_vocabulary(model, [*prompt, *chain(*answers)])
        budget = max(LEAST_NEW_TOKENS, max(map(len, answers)) + SPARE_NEW_TOKENS)
        asked.append(_Asked(question, prompt, answers, max_new_tokens or budget))
    return asked


def _fitting(model: Any, tokenizer: Any, questions: Sequence[Question], max_new_tokens: int | None) -> list[_Asked]:
    """The questions in tokens; a FactsError where one is too long to be put."""
    asked = _in_tokens(model, tokenizer, questions, max_new_tokens)
    longest, turns = most_tokens(model), turning_points(model)
    for item in asked:
        whole = ", with the facts that stand before it" if item.question.context else ""
        has = f"Fact {item.question.fact_id!r} has a prompt of {len(item.prompt)} tokens{whole}"
        if item.length > longest:
            raise FactsError(f"{has}; the model takes {longest} in all.", "Shorten the prompt, or leave the fact out.")
        if (turn := item.turns(turns)) is not None:
            counts = f"the model counts positions otherwise beyond {turn}, which an answer to it would cross"
            raise FactsError(f"{has}; {counts}.", "Shorten or lengthen the prompt, or leave the fact out.")
    return asked


def _sittings(asked: Sequence[_Asked], *, until_settled: bool = False) -> list[Sitting]:
    """Each distinct prompt once, with the answers to score; ``until_settled``: only the targets, and no more is written
    than tells whether they are given."""
    sittings: dict[Tokens, Sitting] = {}
    for item in asked:
        sitting = sittings.setdefault(item.prompt, Sitting(item.prompt, targets=[] if until_settled else None))
        sitting.budget = max(sitting.budget, item.budget)
        sitting.answers.update(dict.fromkeys(item.answers[:1] if until_settled else item.answers))
        if sitting.targets is not None:
            sitting.targets.append(item.question.target)
    return list(sittings.values())


def _judged(answers: list[Answer]) -> list[Answer]:
    """The answers with the verdicts of kinds that have their own, over all that was asked of a fact."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, answer in enumerate(answers):
        question = answer.question
        alike.setdefault((question.kind, question.fact_set, question.fact_id), []).append(place)
    for (kind, *_), places in alike.items():
        if (verdicts := KINDS.get(kind).verdicts) is not None:
            for place, success in zip(places, verdicts([answers[place] for place in places]), strict=True):
                answers[place] = replace(answers[place], success=success)
    return answers


def _answer(transcript: Transcript, item: _Asked, outcome: Outcome) -> Answer:
    generated = transcript.text(outcome.written, item.budget)
    success = succeeds(first_line(generated), item.question.target)
    score, *rivals = [outcome.scores[answer] for answer in item.answers]
    rival = rivals[0].log_prob if rivals else math.nan
    return Answer(item.question, generated, success, score.first_token, score.log_prob, rival, score.rank)
