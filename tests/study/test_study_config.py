"""Study files: what they may say, and what is said about those that may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from indelible.edits.editors.memit import Memit
from indelible.errors import ConfigError
from indelible.study.design.arms import resolve_arms
from indelible.study.design.config import load_config, parse_config
from indelible.study.design.settings import StudyConfig
from indelible.validation import first_difference

BASE = "name: a\nmodel: m\narms:\n  - {name: x, editor: memit}\n"


def parse(text: str, *overrides: str) -> StudyConfig:
    return parse_config(text, "my.yaml", Path("/somewhere"), overrides)


def complaint(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve_arms(parse(text, *overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_settings_survive_being_written_and_read() -> None:
    config = load_config("quick")
    assert parse(config.to_yaml()) == config
    odd = parse(BASE, r'facts.columns={"subject": "who\N\L asks\e"}')
    assert parse(odd.to_yaml()) == odd


def test_an_arm_goes_before_its_study_and_the_study_before_the_defaults() -> None:
    settings = """
tuning: {steps: 5, batch_size: 2}
editors: {memit: {clamp: 0.6, steps: 3}}
name: a
model: m
arms:
  - {name: x, editor: memit, tuning: {steps: 7}, options: {clamp: 0.5}}
  - {name: y, editor: memit}
  - {name: z, editor: none}
"""
    x, y, z = resolve_arms(parse(settings))
    assert (x.tuning.steps, x.tuning.batch_size, y.tuning.steps) == (7, 2, 5)
    assert isinstance(x.editor, Memit) and isinstance(y.editor, Memit)
    assert (x.editor.clamp, x.editor.steps) == (0.5, 3)
    assert (y.editor.clamp, y.editor.steps) == (0.6, 3)
    assert z.editor is None and z.factors["editor"] == "none"
    assert z.tuning.precision in {"fp32", "bf16-mixed"}  # what is left to the machine is decided


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE + "tunning: {}\n", ["'tunning'", "Did you mean 'tuning'?"]),
        (BASE + "seeds: [0, true]\n", ["'seeds.1' should be a number, not true or false"]),
        (BASE + "tuning: {steps: true}\n", ["'tuning.steps' should be a number"]),
        (BASE + "facts: {n_edit: 3}\n", ["'facts.n_edit'", "'n_edits'"]),
        (BASE.replace("name: x", "nme: x"), ["'arms.0.nme'", "'name'"]),
        (BASE + "seeds: [a]\n", ["'seeds.0'", "integer", "'a'"]),
        (BASE + "seeds: [1, 1]\n", ["seeds", "twice"]),
        (BASE + "'': 3\n", ["Unknown key ''"]),
        (BASE + "'tuning[0]': 3\n", ["Unknown key 'tuning[0]'", "Did you mean 'tuning'"]),
        (BASE + "seeds: 3\n", ["'seeds'", "a list", "3"]),
        (BASE + "facts: {n_edits: 0}\n", ["'facts.n_edits'", "0", "greater than or equal to 1"]),
        (BASE + "facts: {relations: []}\n", ["facts.relations: ", "at least one relation"]),
        (BASE + "tuning: {epochs: .nan, train_examples: 8}\n", ["'tuning.epochs'", "finite", "nan"]),
        (BASE + "facts: {held_out: .inf}\n", ["'facts.held_out'", "finite", "inf"]),
        (BASE.replace("memit", "memit, protect: [near]"), ["'arms.0.protect'", "text or a mapping", "['near']"]),
        (BASE.replace("memit", "memit, protect: {near: 3}"), ["'arms.0.protect.near'", "a mapping", "not 3"]),
        (BASE + "facts: 3\n", ["'facts'", "mapping", "3"]),
        (BASE + "exam: {every: often}\n", ["'exam.every'", "'often'"]),
        (BASE + "  - {name: x, editor: ft}\n", ["arms", "2 arms are named 'x'"]),
        (BASE.replace("memit", "rom"), ["Unknown editor 'rom' in 'arms.x'", "Did you mean 'rome'"]),
        (BASE + "  - {name: y, editor: ft, mask: nun}\n", ["Unknown mask 'nun' in 'arms.y'"]),
        (BASE + "editors: {memit: {clamp: tight}}\n", ["'editors.memit.clamp'"]),
        (BASE + "tuning: {objective: txt}\n", ["Unknown objective 'txt' in 'tuning'", "Did you mean 'text'"]),
        (BASE.replace("name: a", "name: a/b"), ["'name'", "'a/b'", "slash"]),
        (BASE.replace("name: x", r'name: "x\Ny"'), ["'arms.0.name'", r"'x\x85y'", "U+0085"]),
        (BASE.replace("name: x", r'name: "\e[2J"'), ["'arms.0.name'", "U+001B"]),
        (BASE.replace("name: a", r'name: "a\Lb"'), ["'name'", "U+2028"]),
        ("name: a\nmodel: m\n", ["'arms' is missing"]),
        ("name: a\nmodel: m\narms: []\n", ["arms", "at least one arm"]),
        ("- 1\n", ["my.yaml", "no settings"]),
        ("", ["my.yaml", "no settings"]),
        ("name: a\nmodel: [b\narms: c\n", ["my.yaml, line 3: not valid YAML"]),
    ],
)
def test_mistakes_are_named_with_key_value_and_cure(text: str, said: list[str]) -> None:
    message = complaint(text)
    for words in said:
        assert words in message


def test_overrides_reach_into_mappings_and_arms() -> None:
    config = parse(BASE, "tuning.steps=5", "arms.x.paraphrases=2", "arms.0.mask=edited-layers", "facts.n_edits=7")
    assert config.tuning == {"steps": 5}
    assert (config.arms[0].paraphrases, config.arms[0].mask) == (2, "edited-layers")
    assert config.facts.n_edits == 7


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("tuning.steps", "key=value"),
        ("arms.y.mask=none", "'y'"),
        ("name.first=none", "single value"),
        ("tunning.steps=3", "Did you mean 'tuning'?"),
        ("arms.x.paraphrases=two", "'two'"),
    ],
)
def test_overrides_that_cannot_be_made(override: str, said: str) -> None:
    assert said in complaint(BASE, override)


def test_paths_in_a_study_file_start_at_its_folder(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    text = BASE.replace("model: m", "model: tiny") + "facts: {source: f.csv}\ncorpus: c.txt\n"
    (tmp_path / "s.yaml").write_text(text)
    config = load_config(str(tmp_path / "s.yaml"))
    assert config.facts.source == str(tmp_path / "f.csv")
    assert config.corpus == str(tmp_path / "c.txt")
    assert config.model == str(tmp_path / "tiny")


def test_paths_typed_into_a_shell_start_at_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    (here / "other").mkdir(parents=True)
    monkeypatch.chdir(here)
    (tmp_path / "s.yaml").write_text(BASE + "facts: {source: f.csv}\ncorpus: c.txt\n")
    study = str(tmp_path / "s.yaml")
    config = load_config(study, ["facts.source=mine.csv", "model=other"])
    assert config.facts.source == str(here / "mine.csv")
    assert config.model == str(here / "other")
    assert config.corpus == str(tmp_path / "c.txt")
    assert load_config(study, ["corpus=c.txt", "facts.n_edits=3"]).corpus == str(here / "c.txt")
    assert load_config(study, ["facts.n_edits=3"]).facts.source == str(tmp_path / "f.csv")
    assert load_config(study, ["facts={source: mine.csv}"]).facts.source == str(here / "mine.csv")


def test_a_bundled_model_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "smollm2-135m").mkdir()
    (tmp_path / "s.yaml").write_text(BASE.replace("model: m", "model: smollm2-135m"))
    assert load_config(str(tmp_path / "s.yaml")).model == "smollm2-135m"


def test_studies_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(BASE)
    with pytest.raises(ConfigError, match=r"Did you mean 'mine\.yaml'"):
        load_config("mine")
    with pytest.raises(ConfigError, match="Did you mean 'quick'"):
        load_config("quik")
    with pytest.raises(ConfigError, match="no study file"):
        load_config(str(tmp_path / "gone.yaml"))


def test_the_first_difference_is_named_by_its_path() -> None:
    left = {"a": 1, "b": {"c": [{"d": 1}, {"d": 2}]}}
    assert first_difference(left, left) is None
    assert first_difference(left, {"a": 1, "b": {"c": [{"d": 1}, {"d": 3}]}}) == "b.c.1.d"
    assert first_difference(left, {"a": 1, "b": {"c": [{"d": 1}]}}) == "b.c"
    assert first_difference(left, {"a": 1}) == "b"
    assert first_difference({"a": None}, {}) == "a"
