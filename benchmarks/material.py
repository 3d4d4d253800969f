"""What the benchmarks of editors share: facts, bystanders, questions, what is read off the answers, and perplexity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from torch.nn import functional

from indelible.edits.deltas.delta import Edit
from indelible.edits.editor import EDITORS, Editor
from indelible.exam.exam import answers_frame, known_facts, take_exam
from indelible.exam.questions import Question, questions_for
from indelible.facts.choose import choose_bystanders, choose_sets, in_turns
from indelible.facts.fact import Fact
from indelible.facts.read import read_facts
from indelible.models.bundled.fetch import cache_folder
from indelible.models.bundled.texts import encyclopedia_text, web_text
from indelible.models.fingerprint import Identity
from indelible.models.layout import Layout, find_layout
from indelible.models.load import LoadedModel, load
from indelible.models.trace import evaluation_mode
from indelible.study.design.config import load_config
from indelible.study.run.sources import candidate_facts

_ROW_TOKENS = 128


@dataclass(frozen=True)
class Bench:
    """A loaded model with what every benchmark needs of it."""

    loaded: LoadedModel
    layout: Layout
    identity: Identity

    @property
    def fingerprint(self) -> str:
        """The model's."""
        return self.identity.fingerprint

    @classmethod
    def of(cls, name: str) -> Bench:
        """Load the model of that name."""
        loaded = load(name)
        return cls(loaded, find_layout(loaded.model), Identity.of(loaded.model))

    def arguments(self, seed: int, bystanders: Sequence[Fact], editor: Editor) -> dict[str, Any]:
        """Keyword arguments of ``Editor.edit`` and ``Editor.edit_each``, as a study would give them."""
        return {
            "corpus": encyclopedia_text() if editor.uses_text else (),
            "bystanders": bystanders if editor.uses_text else (),
            "seed": seed,
            "cache": cache_folder() / "covariances",
            "layout": self.layout,
            "identity": self.identity,
        }

    def ask(self, questions: Sequence[Question]) -> pd.DataFrame:
        """The model's answers as it stands now."""
        return answers_frame(take_exam(self.loaded.model, self.loaded.tokenizer, questions))

    def ask_under(self, edit: Edit, questions: Sequence[Question]) -> pd.DataFrame:
        """The answers with an edit applied."""
        with edit.applied(self.loaded.model, known_fingerprint=self.fingerprint):
            return self.ask([replace(question, context=edit.context) for question in questions])

    def perplexity(self, tokens: int) -> float:
        """Of held-out web text, which no covariance was estimated from, in rows of 128 tokens."""
        stream: list[int] = []
        for text in reversed(web_text()):
            stream += self.loaded.tokenizer(text)["input_ids"]
            if len(stream) >= tokens:
                break
        rows = torch.tensor(stream[: len(stream) // _ROW_TOKENS * _ROW_TOKENS]).view(-1, _ROW_TOKENS)
        rows = rows[: max(1, tokens // _ROW_TOKENS)]
        model, total = self.loaded.model, 0.0
        with evaluation_mode(model), torch.no_grad():
            for batch in rows.split(4):
                batch = batch.to(model.device)
                logits = model(batch, use_cache=False).logits[:, :-1].float()
                total += float(functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum"))
        return float(torch.tensor(total / (len(rows) * (_ROW_TOKENS - 1))).exp())


@dataclass(frozen=True)
class Drawn:
    """Facts to edit, facts only to ask, and bystanders that no question is about."""

    edited: list[Fact]
    intrinsic: list[Fact]
    bystanders: list[Fact]

    def questions(self) -> list[Question]:
        """All that is asked."""
        return questions_for(self.edited, "edited") + questions_for(self.intrinsic, "intrinsic")


def editor_from(arm: str) -> Editor:
    """An editor as the command line names it, with the options that are not its defaults: ``rome:clamp=4,steps=20``."""
    name, _, options = arm.partition(":")
    pairs = (pair.partition("=") for pair in options.split(",") if pair)
    return EDITORS.get(name)(**{key: yaml.safe_load(value) for key, _, value in pairs})


def world_draw(bench: Bench, edits: int, intrinsic: int, seed: int, neighbours: int | None = None) -> Drawn:
    """Known world facts of the quick study's relations, with new objects and neighbours drawn by seed."""
    settings = load_config("quick").facts
    candidates = candidate_facts(settings)
    wanted = min(2 * (edits + intrinsic), len(candidates))
    known = known_facts(bench.loaded.model, bench.loaded.tokenizer, in_turns(candidates, seed), enough=wanted)
    edited, asked = choose_sets(known, edits, intrinsic, seed, pool=candidates)
    edited = [replace(fact, neighbours=fact.neighbours[:neighbours]) for fact in edited]
    return Drawn(edited, asked, choose_bystanders(candidates, edited, asked, settings.bystanders, seed))


def counterfact_draw(file: Path, edits: int, seed: int) -> Drawn:
    """CounterFact facts, known or not, with their own objects and neighbours; bystanders come from the same file."""
    facts = in_turns(list(read_facts(file, strict=False).facts), seed)
    edited: dict[str, Fact] = {}
    for fact in facts:
        if len(edited) < edits and fact.new_object is not None:
            edited.setdefault(fact.subject.casefold(), fact)
    chosen = list(edited.values())
    return Drawn(chosen, [], choose_bystanders(facts, chosen, [], load_config("quick").facts.bystanders, seed))


def isolated_answers(bench: Bench, edits: Iterator[Edit], drawn: Drawn) -> pd.DataFrame:
    """Each edited fact's questions asked of the model that carries its edit alone."""
    parts = []
    for fact, edit in zip(drawn.edited, edits, strict=True):
        parts.append(bench.ask_under(edit, questions_for([fact], "edited")))
    return pd.concat(parts, ignore_index=True)


def rates(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    """What an edit did, from the answers to the same questions before and after it.

    Locality and intrinsic are over questions that the unedited model answers.
    """
    assert list(before["prompt"]) == list(after["prompt"]), "the answers are not to the same questions"
    edited, intrinsic = after["fact_set"] == "edited", after["fact_set"] == "intrinsic"
    prompt, kept = after["kind"] == "prompt", before["success"]
    return {
        "generation": float(after[edited & prompt]["success"].mean()),
        "first_token": float(after[edited & prompt]["first_token"].mean()),
        "paraphrases": float(after[edited & (after["kind"] == "paraphrase")]["success"].mean()),
        "locality": float(after[(after["kind"] == "neighbour") & kept]["success"].mean()),
        "intrinsic": float(after[intrinsic & prompt & kept]["success"].mean()),
        "neighbours": float(((after["kind"] == "neighbour") & kept).sum()),
    }
