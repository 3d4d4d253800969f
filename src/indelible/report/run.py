"""A finished run as its report sees it: the tables, and what several exhibits need, worked out once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from indelible.claims.rulings import Ruling
from indelible.claims.verdict import Verdict, verdict, with_unlike_criteria
from indelible.numbers.answers import Answers
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import CONTROL_EDITOR, MEASURES, FactSet
from indelible.numbers.summary import summarise
from indelible.report.transcript import transcript

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One run, as exhibits look at it.

    Attributes:
        answers: made of its tidy rows; with the draws from which all intervals come.
        runs: its run table.
        settings: of the study.
        provenance: of the run: versions, fingerprints, commit, hardware, times.
        rulings: on the claims put to the study.
        tables: further tables of the run folder by name, e.g. "shares" and "drift" where arms were explained.
        predicted: steps, predicted and taken seconds of the kinds of steps whose time was predicted.
        changed: the settings that are not what they would be without a word; None where that is not known.
        unfinished: in a sentence what is not done yet; "" where the study is finished.
    """

    name: str
    answers: Answers
    runs: pd.DataFrame
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    rulings: Sequence[Ruling] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    predicted: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    changed: Mapping[str, Any] | None = None
    unfinished: str = ""

    @cached_property
    def arms(self) -> list[str]:
        """In order of appearance in the run table."""
        return self.answers.arms(self.runs)

    @cached_property
    def summary(self) -> list[dict[str, Any]]:
        """What summary.json holds: one line per arm."""
        return summarise(self.answers, self.runs)

    @property
    def measured(self) -> list[dict[str, Any]]:
        """Lines of the arms that have a gap."""
        return [line for line in self.summary if line["gap"] is not None]

    @property
    def editors(self) -> list[str]:
        """Editors of the study, in order of appearance, without the control's."""
        return list(dict.fromkeys(str(line["editor"]) for line in self.summary if line["editor"] != CONTROL_EDITOR))

    @cached_property
    def transcripts(self) -> pd.DataFrame:
        """What was asked and said (`transcript`) in every arm, one below the other, with its name in the column arm."""
        of_arms = {arm: transcript(self.answers.arm(arm)) for arm in self.arms}
        return pd.concat(of_arms, names=["arm"]).reset_index("arm") if of_arms else pd.DataFrame()

    def distinct(self, fact_set: FactSet) -> int:
        """Facts of a set, each counted once however many seeds and arms ask it."""
        rows = self.answers.rows
        return int(rows.loc[rows["fact_set"] == fact_set, "fact_id"].nunique()) if len(rows) else 0

    @cached_property
    def same_edits(self) -> bool:
        """Whether more seeds bring no more edits: all have the same, as where a file names them."""
        rows = self.answers.rows
        own = rows.loc[rows["fact_set"] == "edited", ["seed", "fact_id"]].groupby("seed") if len(rows) else ()
        of_seeds = [set(ids["fact_id"].unique()) for _, ids in own]
        if len(of_seeds) > 1:
            return all(ids == of_seeds[0] for ids in of_seeds)
        facts = self.settings.get("facts") or {}
        return facts.get("edited") not in (None, "known", "any") and facts.get("n_edits") is None

    @property
    def plain(self) -> str | None:
        """The arm that speaks for the study: the first with edits and nothing done to keep them, else the first with
        edits; None without one that was measured."""
        bare = [
            line
            for line in self.measured
            if (line["paraphrases"], line["mask"], line["protect"]) == (0, "none", "none")
        ]
        return next((str(line["arm"]) for line in [*bare, *self.measured]), None)

    def estimate(self, arm: str, measure: str) -> Estimate:
        """A measure in one arm."""
        return self.answers.replicates.of(arm, MEASURES.get(measure))

    @property
    def as_published(self) -> bool:
        """Whether edits and intrinsic facts were judged by two criteria, as the published study does."""
        return bool(self.settings.get("as_published"))

    @cached_property
    def verdict(self) -> Verdict:
        """The answer in words."""
        found = verdict(self.summary)
        return with_unlike_criteria(found) if self.as_published else found


def flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as (dotted name, text); lists of plain values on one line, lists of mappings numbered from 1."""
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            if any(isinstance(item, Mapping) for item in value):
                yield from flat({str(number): item for number, item in enumerate(value, 1)}, f"{name}.")
            else:
                yield name, ", ".join(map(str, value)) or "none"
        else:
            yield name, "none" if value is None or value == {} else str(value)
