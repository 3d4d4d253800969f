"""A study's settings: what is asked of which model, with which edits, tuned how.

A study file is YAML. It is read into the frozen, typed classes below once; nothing after this point meets an unknown
key or a word where a number belongs. What belongs to another room (an editor's options, the settings of tuning) stays
a plain mapping here and is checked by that room's own class when the plan is made (see plan.py), so that adding an
editor never touches this file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from indelible.analysis.claim import Claim, check_names
from indelible.errors import ConfigError, suggest
from indelible.models.bundled import MODELS
from indelible.study.grid import with_grid
from indelible.study.validation import validated

WORLD = "world"
ENCYCLOPEDIA = "encyclopedia"
NO_EDITOR = "none"
Options = dict[str, Any]
Protocol = Literal["batch", "isolated"]
_LATER: dict[str, Any] = {"explain": False, "as_published": False, "claims": []}
_LATER_IN_ARMS: dict[str, Any] = {"explain": None, "protocol": "batch"}


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FactsSettings(_Settings):
    """Which facts are edited and asked.

    Attributes:
        source: "world" (the built-in facts) or a file that facts.readers can read.
        schema_name: in YAML ``schema``: how the file is laid out, when it can't be told from its looks.
        columns: for CSV and JSONL with other names: field of a Fact -> the file's own column.
        strict: refuse a file with a row that cannot be used; False leaves such rows out.
        relations: take facts of these relations only; None takes all.
        redraw: draw new objects and neighbours by seed; False keeps those that the facts bring along. None draws for
            the built-in facts and keeps a file's.
        held_out: how many held-out wordings are asked of each fact; None asks all.
        neighbours: how many neighbours of each edited fact are asked; None asks all.
        bystanders: how many further facts' subjects closed-form editors are told to leave alone; 0 for the published
            methods.
        n_edits: facts to edit, all at once.
        n_intrinsic: facts that the model knows and that are left alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    source: str = WORLD
    schema_name: str | None = Field(default=None, alias="schema")
    columns: dict[str, str] | None = None
    strict: bool = True
    relations: tuple[str, ...] | None = None
    redraw: bool | None = None
    held_out: Annotated[int, Field(ge=0)] | None = None
    neighbours: Annotated[int, Field(ge=0)] | None = None
    bystanders: Annotated[int, Field(ge=0)] = 400
    n_edits: Annotated[int, Field(ge=1)] = 24
    n_intrinsic: Annotated[int, Field(ge=1)] = 60

    @field_validator("relations")
    @classmethod
    def _some_relation(cls, relations: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if relations is not None and not relations:
            raise ValueError("at least one relation is needed; leave the key out to take all")
        return relations


class ExamSettings(_Settings):
    """How often the retention curve gets a point.

    Attributes:
        every: training steps between two points; None for no curve, only its two ends.
    """

    every: Annotated[int, Field(ge=1)] | None = None


class ArmSettings(_Settings):
    """One way of editing and tuning, to be compared with the others.

    Attributes:
        name: what the arm is called in tables and figures.
        editor: a registered editor, or "none" for the control (the unedited model tuned alike).
        paraphrases: further wordings of each fact that take part in the edit.
        protocol: "batch", all facts in one edit of one model; or "isolated", each fact edited in a copy of its own,
            which is tuned and asked by itself (Wen & Zhang, arXiv 2507.14198): as many runs of tuning as edits.
        mask: which weights tuning leaves alone (see tuning.freeze).
        tuning: settings that differ from the study's.
        options: editor options that differ from the study's for that editor.
        explain: whether to find out which weights lost what tuning lost (see probing.mixtures); None as the study says.
    """

    name: Annotated[str, Field(min_length=1)]
    editor: str
    paraphrases: Annotated[int, Field(ge=0)] = 0
    protocol: Protocol = "batch"
    mask: str = "none"
    tuning: Options = {}
    options: Options = {}
    explain: bool | None = None


class StudyConfig(_Settings):
    """Everything that decides what a study computes.

    Attributes:
        name: names the run folder, when none is given.
        model: a bundled name, a hub id or a folder.
        seeds: the whole chain is run once for each.
        facts: see FactsSettings.
        corpus: texts for key covariances: "encyclopedia", or a UTF-8 text file with one text per line.
        editors: options for an editor in all arms that use it, by the editor's name.
        tuning: settings of tuning for all arms (see tuning.train.TuningSettings).
        exam: see ExamSettings.
        explain: whether to explain the losses of all arms that edit one model, where an arm says nothing. The weights
            that their tuning changed are kept in the run folder: as large as the model, for each arm and seed.
        arms: at least one.
        as_published: keep three defects of the published protocol (Wen & Zhang, arXiv 2507.14198), to see what they
            do: edits are judged by the first token, intrinsic facts by the answer's being anywhere in 50 generated
            ones; held-out rows are trained on; an edited fact's true object may stand in training lines. Without curves
            and explanations, which judge by the criterion of all other studies.
        claims: what is claimed beside the built-in claims (see analysis.claim); judged in the report.
    """

    name: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(min_length=1)]
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    facts: FactsSettings = FactsSettings()
    corpus: str = ENCYCLOPEDIA
    editors: dict[str, Options] = {}
    tuning: Options = {}
    exam: ExamSettings = ExamSettings()
    explain: bool = False
    as_published: bool = False
    arms: tuple[ArmSettings, ...]
    claims: tuple[Claim, ...] = ()

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
        names = [arm.name for arm in arms]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two arms are named {name!r}")
        return arms

    @model_validator(mode="after")
    def _one_criterion(self) -> Self:
        if self.as_published and self.exam.every is not None:
            raise ValueError("as_published has no exam.every: points of a curve are judged by another criterion")
        if self.as_published and (self.explain or any(arm.explain for arm in self.arms)):
            raise ValueError("as_published has no explain: mixtures are judged by another criterion")
        return self

    def to_yaml(self) -> str:
        """The settings as a study file that reads back as equal settings."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, mappings and scalars, keyed as in a study file.

        What came later stands there only where it is set, so that run folders older than those keys are of equal
        settings.
        """
        settings = self.model_dump(mode="json", by_alias=True)
        for part, later in ((settings, _LATER), *((arm, _LATER_IN_ARMS) for arm in settings["arms"])):
            for key, unset in later.items():
                if part[key] == unset:
                    del part[key]
        return settings


def preset_names() -> list[str]:
    """Names of the built-in studies."""
    folder = files("indelible.study") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(name_or_file: str, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a built-in study by name, or a study file.

    Relative paths inside a file are taken from the file's folder, those in overrides from the working folder.

    Args:
        name_or_file: "quick", or the path of a YAML file.
        overrides: assignments like "tuning.steps=5" or "arms.memit.paraphrases=2" that replace what the file says.

    Raises:
        ConfigError: the study cannot be found or read, or a setting is unknown or impossible.
    """
    if name_or_file in preset_names():
        text = (files("indelible.study") / "presets" / f"{name_or_file}.yaml").read_text(encoding="utf-8")
        return parse_config(text, f"built-in study {name_or_file!r}", Path.cwd(), overrides)
    path = Path(name_or_file)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
            raise ConfigError(f"There is no study file {name_or_file!r}.", "Check the path.") from None
        raise ConfigError(
            f"There is no built-in study {name_or_file!r} and no file of that name.",
            suggest(name_or_file, preset_names()),
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name_or_file} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{name_or_file} cannot be read: {error.strerror}.", "Give a readable YAML file.") from None
    return parse_config(text, name_or_file, path.parent, overrides)


def parse_config(text: str, where: str, folder: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Settings out of YAML text.

    Args:
        text: the YAML.
        where: what to call the text in messages.
        folder: relative paths in the text start here; those in overrides start at the working folder.
        overrides: see load_config.

    Raises:
        ConfigError: as load_config.
    """
    try:
        settings = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line} is not valid YAML: {error.problem}.", "Mend that line.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())}.", "Mend it.") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{where} holds no settings.", "Start it with `name:`, `model:` and `arms:`.")
    settings = _for_its_model(settings, overrides)
    # The grid's axes are set before it is written out, its arms after.
    to_arms = [override for override in overrides if override.startswith("arms.")]
    for override in (override for override in overrides if override not in to_arms):
        assign(settings, override)
    settings = with_grid(settings)
    for override in to_arms:
        assign(settings, override)
    config = validated(StudyConfig, settings, "")
    typed = {override.partition("=")[0] for override in overrides}
    return _with_absolute_paths(config, folder, typed)


def _for_its_model(settings: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The settings with what ``by_model`` says for the study's own model laid over them.

    A table of settings that were published for some models, by their exact names, so that another model is one word.

    Raises:
        ConfigError: ``by_model`` is no mapping of mappings.
    """
    table = settings.pop("by_model", {})
    if not isinstance(table, dict) or not all(isinstance(own, dict) for own in table.values()):
        raise ConfigError(f"'by_model' is {table!r}.", "Map names of models to settings.")
    chosen = {"model": settings.get("model")}
    for override in overrides:
        if override.startswith("model="):
            assign(chosen, override)
    return _laid_over(settings, table.get(chosen["model"], {}))


def _laid_over(settings: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The settings with others in the place of theirs, mapping by mapping."""
    merged = dict(settings)
    for key, value in other.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _with_absolute_paths(config: StudyConfig, folder: Path, typed: Collection[str]) -> StudyConfig:
    """The same settings with file names that hold from any folder, so that a run's config.yaml can be run again.

    Args:
        config: the settings.
        folder: of the study file.
        typed: keys that were typed into a shell, which knows its own folder only.
    """

    def path(key: str, name: str) -> Path:
        here = any(key == one or key.startswith(f"{one}.") for one in typed)
        return ((Path.cwd() if here else folder) / Path(name).expanduser()).resolve()

    changes: dict[str, Any] = {}
    if config.facts.source != WORLD:
        source = str(path("facts.source", config.facts.source))
        changes["facts"] = config.facts.model_copy(update={"source": source})
    if config.corpus != ENCYCLOPEDIA:
        changes["corpus"] = str(path("corpus", config.corpus))
    changes["tuning"] = _with_absolute_data(config.tuning, "tuning", path)
    changes["arms"] = tuple(
        arm.model_copy(update={"tuning": _with_absolute_data(arm.tuning, f"arms.{arm.name}.tuning", path)})
        for arm in config.arms
    )
    if config.model not in MODELS and (model := path("model", config.model)).is_dir():
        changes["model"] = str(model)
    return config.model_copy(update=changes)


def _with_absolute_data(tuning: Options, key: str, path: Callable[[str, str], Path]) -> Options:
    """Settings of tuning in which a data file is named for good; a hub dataset's name stays as it is."""
    data = tuning.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("source"), str):
        return tuning
    file = path(f"{key}.data.source", data["source"])
    return {**tuning, "data": {**data, "source": str(file)}} if file.is_file() else tuning


def assign(settings: dict[str, Any], override: str) -> None:
    """Carry out one "a.b.c=value" on nested mappings; list items go by number or by their ``name``.

    Raises:
        ConfigError: if it assigns nothing, or nothing can be set there.
    """
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {override!r} assigns nothing.", "Write it as key=value, e.g. steps=5.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: {text!r} is not valid YAML.", "Quote it.") from None
    place: Any = settings
    *parents, last = path.split(".")
    for part in parents:
        place = _item(place, part, override)
    if isinstance(place, list):
        place[_index(place, last, override)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ConfigError(f"--set {override!r}: nothing can be set inside a single value.", "Check the key's path.")


def _item(place: Any, part: str, override: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, override)]
    if isinstance(place, dict):
        if place.get(part) is None:
            place[part] = {}
        return place[part]
    raise ConfigError(f"--set {override!r}: nothing can be set inside {part!r}.", "Check the key's path.")


def _index(items: list[Any], part: str, override: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(items):
        return int(part)
    known = [str(name) for name in names if name is not None]
    raise ConfigError(f"--set {override!r}: there is no {part!r} in that list.", suggest(part, known))
