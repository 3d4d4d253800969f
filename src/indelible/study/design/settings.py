"""A study's settings: what is asked of which model, with which edits, tuned how.

A study file is YAML, read into the frozen, typed classes below once. What belongs to another room (an editor's options,
the settings of tuning) stays a plain mapping here and is checked by that room's own class when the plan is made (see
arms.py), so that adding an editor never touches this file.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from indelible.claims.claim import Claim, check_names
from indelible.documents import LARGEST
from indelible.errors import ConfigError
from indelible.models.corpus import ENCYCLOPEDIA
from indelible.validation import Name

WORLD = "world"
N_EDITS = 24
MOST_RUNS = 10_000
NO_EDITOR = "none"
Options = dict[str, Any]
DRAWN = ("known", "any")
"""Which facts may be drawn to be edited; anything else is a file that names them."""
Protocol = Literal["batch", "isolated", "task-vector"]


class _Settings(BaseModel):
    # A .nan stays what it is, so that it is refused where it is read, and is not taken for a null.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class FactsSettings(_Settings):
    """Which facts are edited and asked.

    Attributes:
        edited: which facts are edited. A file (see facts.read), or a delta, whose facts are meant: all of it that bring
            a new object, as they are, whether or not the model knows them. Or facts are drawn by seed from ``source``:
            "known", those that the model answers; "any", also others, as CounterFact and zsRE are published. None
            draws known ones, and any where the study is ``as_published``.
        intrinsic: beside a file of edits, where the intrinsic facts are drawn from: "world" (the built-in facts) or
            another file; None: the facts of the file without a new object, or where it has none the built-in ones.
        source: where all facts are drawn from if no file names the edited ones: "world", or a file.
        schema_name: in YAML ``schema``: how ``edited`` or ``source`` is laid out, when it can't be told from its looks.
        columns: for CSV and JSONL with other names: field of a Fact -> the file's own column.
        strict: refuse a file with a row that cannot be used; False leaves such rows out.
        relations: take facts of these relations only; None takes all.
        redraw: draw new objects and neighbours by seed; False keeps those that the facts bring along. None draws for
            the built-in facts and keeps a file's. What ``edited`` names is never redrawn.
        held_out: how many held-out wordings are asked of each fact; None asks all.
        neighbours: how many neighbours of each edited fact are asked; None asks all.
        bystanders: how many further facts' subjects closed-form editors are told to leave alone; 0 for the published
            methods. One relation of the edited facts gives none, so that its neighbours show what is not preserved.
            They may buy locality with durability: under tuning at one seed, MEMIT kept 22 of 34 held-out wordings with
            400 of them, and 29 of 38 without; compare both before you rely on either.
        n_edits: facts to edit, all at once. None: all that a file names; 24 where they are drawn.
        n_intrinsic: facts that the model knows and that are left alone; a third each with a probability below 0.5, up
            to 0.8 and above, as far as there are any, so that edits have facts to be compared with that start alike.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    edited: str | None = None
    intrinsic: str | None = None
    source: str = WORLD
    schema_name: str | None = Field(default=None, alias="schema")
    columns: dict[str, str] | None = None
    strict: bool = True
    relations: tuple[str, ...] | None = None
    redraw: bool | None = None
    held_out: Annotated[int, Field(ge=0)] | None = None
    neighbours: Annotated[int, Field(ge=0)] | None = None
    bystanders: Annotated[int, Field(ge=0)] = 400
    n_edits: Annotated[int, Field(ge=1)] | None = None
    n_intrinsic: Annotated[int, Field(ge=1)] = 60

    @property
    def file(self) -> str | None:
        """The file that names the edited facts; None where they are drawn."""
        return None if self.edited in (None, *DRAWN) else self.edited

    @property
    def edits(self) -> int:
        """How many facts are edited, where it is known without reading a file."""
        return N_EDITS if self.n_edits is None else self.n_edits

    @property
    def redraws(self) -> bool:
        """Whether new objects and neighbours are drawn."""
        return self.file is None and (self.source == WORLD if self.redraw is None else self.redraw)

    @model_validator(mode="after")
    def _drawn_or_named(self) -> Self:
        if self.file is None and self.intrinsic is not None:
            raise ValueError("intrinsic stands beside a file of edits; without one, source has all facts")
        if self.file is not None:
            if "." not in self.file and "/" not in self.file:
                raise ValueError(f"edited is {self.file!r}: write known, any, or the name of a file with its suffix")
            if self.source != WORLD or self.redraw:
                raise ValueError("a file of edits is taken as it is: leave source and redraw out (see intrinsic)")
        return self

    @field_validator("relations")
    @classmethod
    def _some_relation(cls, relations: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if relations is not None and not relations:
            raise ValueError("at least one relation is needed; leave the key out to take all")
        return relations


class ExamSettings(_Settings):
    """What is asked, and how often.

    Attributes:
        every: training steps between two points of the retention curve; None for no curve, only its two ends.
        also: kinds of questions that are asked beside prompts, paraphrases and neighbours, of the base, the edited and
            the tuned model, of edited and intrinsic facts: "chat" (in the model's chat format), "reversal" (from object
            to subject), "negation", "two-choice" (which of two statements is right), "consequence" (one hop from the
            fact, of built-in ones), "old-object" (what can still be had of the replaced object). See docs/exam.md.
    """

    every: Annotated[int, Field(ge=1)] | None = None
    also: tuple[str, ...] = ()

    @field_validator("also")
    @classmethod
    def _kinds_differ(cls, also: tuple[str, ...]) -> tuple[str, ...]:
        for name in also:
            if also.count(name) > 1:
                raise ValueError(f"{name!r} is listed twice")
        return also


class ArmSettings(_Settings):
    """One way of editing and tuning, to be compared with the others.

    Attributes:
        name: what the arm is called in tables and figures.
        editor: a registered editor, or "none" for the control (the unedited model tuned alike).
        paraphrases: further wordings of each fact that take part in the edit.
        delta: file of an edit that was made before, with that editor and as many paraphrases, to be taken as it is. It
            stays whole; of its facts so many are asked as the study says.
        protocol: "batch", all facts in one edit of one model; "isolated", each fact edited in a copy of its own,
            which is tuned and asked by itself (Wen & Zhang, arXiv 2507.14198): as many runs of tuning as edits; or
            "task-vector", the same with one run: what tuning adds to the weights of the unedited model (its task
            vector, Ilharco et al., arXiv 2212.04089) is put under each edit. A cheap probe of what "isolated" would
            give, for choosing which arms to run in earnest; training never saw the edits, and there is no curve.
        mask: which weights tuning leaves alone (see tuning.freezing).
        protect: what keeps the edits while the model is tuned (see tuning.protection): "key-anchor+replay", or names
            with their options, {replay: {share: 0.3}}.
        tuning: settings that differ from the study's.
        options: editor options that differ from the study's for that editor.
        explain: whether to find out which weights lost what tuning lost (see why.mixtures); None as the study says.
    """

    name: Name
    editor: str
    paraphrases: Annotated[int, Field(ge=0)] = 0
    delta: str | None = None
    protocol: Protocol = "batch"
    mask: str = "none"
    protect: str | dict[str, Options] = "none"
    tuning: Options = {}
    options: Options = {}
    explain: bool | None = None


class Share(_Settings):
    """What one worker takes of a cluster.

    Attributes:
        cpus: cores, which are also torch's threads.
        gpus: of accelerators; 0.5 puts two workers on one. None: one where the cluster has any.
        memory: GiB that are set aside for it. None: what full fine-tuning of the model takes.
    """

    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0)] | None = None
    memory: Annotated[float, Field(gt=0)] | None = None


class SlurmSettings(_Settings):
    """What a SLURM cluster is asked for (``indelible study FILE --on slurm``).

    Attributes:
        nodes: machines.
        cpus: cores of each machine.
        gpus: accelerators of each machine.
        memory: of each machine, as sbatch takes it: "128G". None leaves it to the cluster.
        time: limit, as sbatch takes it: "08:00:00". None leaves it to the cluster.
        partition, account: None leaves them to the cluster.
        each: what one worker takes: {cpus: 8, gpus: 1, memory: 24}; see Share.
        sbatch: further lines of options, e.g. "--qos=long".
        setup: lines of shell that come before, e.g. "source /shared/venv/bin/activate".
    """

    nodes: Annotated[int, Field(ge=1)] = 1
    cpus: Annotated[int, Field(ge=1)] = 8
    gpus: Annotated[int, Field(ge=0)] = 0
    memory: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    each: Share = Share()
    sbatch: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()

    @field_validator("memory", "time", "partition", "account", "sbatch", "setup")
    @classmethod
    def _on_one_line(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if any("\n" in one or "\r" in one for one in ([value] if isinstance(value, str) else value or ())):
            raise ValueError("it stands on one line of a script")
        return value


class StudyConfig(_Settings):
    """Everything that decides what a study computes, and what a SLURM cluster is asked for.

    Attributes:
        name: names the run folder, when none is given.
        model: a bundled name, a hub id or a folder.
        trust_remote_code: whether code that the model brings along may be run.
        seeds: the whole chain is run once for each.
        facts: see FactsSettings.
        corpus: texts for key covariances: "encyclopedia", or a UTF-8 text file with one text per line.
        editors: options for an editor in all arms that use it, by the editor's name.
        tuning: settings of tuning for all arms (see tuning.settings.TuningSettings).
        exam: see ExamSettings.
        explain: whether to explain the losses of all arms that edit one model, where an arm says nothing. The weights
            that their tuning changed are kept in the run folder: as large as the model, for each arm and seed.
        arms: at least one.
        as_published: keep what this package corrects in the published protocol (Wen & Zhang, arXiv 2507.14198), to see
            what it does: edits are judged by the first token, intrinsic facts by the answer's being anywhere in 50
            generated tokens, whole lines or not; facts are edited that the model does not know; intrinsic facts are
            drawn whatever their probability; held-out rows are trained on; an edited fact's true object may stand in
            training lines. Without curves and explanations, which judge by the criterion of all other studies. These
            differences remain: editors have their own defaults (each one's ``published`` option is its code's);
            bystanders are preserved unless there are 0; relations take turns when facts are drawn, subjects never
            occur twice, and which facts are known is judged by our own criterion, as everywhere; training lines that
            speak of a fact are found by our rules (facts.mentions); the text to train on is this package's.
        claims: what is claimed beside the built-in claims (see claims.claim); judged in the report.
        most_runs: how many runs of tuning there may be, over all arms, seeds and copies, so that a slip in a grid is
            said and not begun.
        slurm: see SlurmSettings; no result depends on it.
    """

    name: Name
    model: Annotated[str, Field(min_length=1)]
    trust_remote_code: bool = False
    seeds: tuple[Annotated[int, Field(ge=0, le=LARGEST)], ...] = (0,)
    facts: FactsSettings = FactsSettings()
    corpus: str = ENCYCLOPEDIA
    editors: dict[str, Options] = {}
    tuning: Options = {}
    exam: ExamSettings = ExamSettings()
    explain: bool = False
    as_published: bool = False
    arms: tuple[ArmSettings, ...]
    claims: tuple[Claim, ...] = ()
    most_runs: Annotated[int, Field(ge=1)] = MOST_RUNS
    slurm: SlurmSettings = SlurmSettings()

    @field_validator("claims")
    @classmethod
    def _names_of_claims_differ(cls, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
        check_names(claims)
        return claims

    @field_validator("name")
    @classmethod
    def _name_fits_a_folder(cls, name: str) -> str:
        if set(name) & set("/\\ \t\n") or name.startswith("."):
            raise ValueError("it names a folder, so it can hold no slash, space or leading dot")
        return name

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise ValueError("at least one seed is needed")
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is listed twice")
        return seeds

    @field_validator("arms")
    @classmethod
    def _names_differ(cls, arms: tuple[ArmSettings, ...]) -> tuple[ArmSettings, ...]:
        if not arms:
            raise ValueError("at least one arm is needed")
        for name, times in Counter(arm.name for arm in arms).items():
            if times > 1:
                raise ValueError(f"{times} arms are named {name!r}")
        return arms

    @model_validator(mode="after")
    def _one_criterion(self) -> Self:
        if self.as_published and self.exam.every is not None:
            raise ValueError("as_published has no exam.every: points of a curve are judged by another criterion")
        if self.as_published and self.exam.also:
            raise ValueError("as_published has no exam.also: the published protocol asks prompts alone")
        if self.as_published and (self.explain or any(arm.explain for arm in self.arms)):
            raise ValueError("as_published has no explain: mixtures are judged by another criterion")
        return self

    def to_yaml(self) -> str:
        """The settings as a study file that reads back as equal settings."""
        return in_yaml(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """What results depend on, in plain lists, mappings and scalars, keyed as in a study file."""
        return self.model_dump(mode="json", by_alias=True, exclude={"slurm"})


def in_yaml(settings: dict[str, Any]) -> str:
    """Settings as a study file."""
    text: str = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    # the one line break that PyYAML writes as it is and reads as another
    return text if "\x85" not in text else yaml.safe_dump(settings, sort_keys=False)


def check_runs(runs: int, most: int, what: str) -> None:
    """Raise a ConfigError for more runs of tuning than a study may have: they are counted before they are written
    out."""
    if runs > most:
        raise ConfigError(f"{what} {runs:,} runs of tuning, and there may be {most:,}.", "Raise most_runs, or do less.")


def changed_settings(settings: Any) -> dict[str, Any] | None:
    """A study's settings without those that are what they would be without a word; None where this version cannot read
    them."""
    try:
        return StudyConfig.model_validate(settings).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    except ValueError:
        return None
