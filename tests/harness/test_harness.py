"""Facts as tasks of lm-evaluation-harness, and the harness's figures of a model; what needs the harness is run where it
is installed (the extra lm-eval)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from indelible.cli.main import main
from indelible.errors import ConfigError, FactsError
from indelible.exam.exam import take_exam
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact, Neighbour
from indelible.harness.figures import Harness
from indelible.harness.settings import HarnessSettings
from indelible.harness.tasks import judged, rows_of, write_tasks
from indelible.tuning.objective import tuning_settings
from indelible.tuning.train import fine_tune
from tiny_models import Make, build_tokenizer

installed = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed")
NEIGHBOURS = (Neighbour("Lima is", "in"),)
FACTS = [
    Fact(
        "o", "Oslo", "country", "{} is a city in", "Norway", "Peru", (), ("Find {} in",), (Neighbour("Lima is", "in"),)
    ),
    Fact("l", "Lima", "country", "{} is a city in", "Peru", "Norway"),
]


class _Loader(yaml.SafeLoader):
    """Takes the harness's functions as names."""


_Loader.add_constructor("!function", lambda loader, node: f"!{loader.construct_scalar(node)}")


def test_tasks_are_the_exams_questions_and_its_criterion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_tasks(FACTS, tmp_path / "tasks") == {"efficacy": 2, "generalization": 1, "locality": 1}
    assert yaml.safe_load((tmp_path / "tasks" / "indelible.yaml").read_text()) == {
        "group": "indelible",
        "task": ["indelible_efficacy", "indelible_generalization", "indelible_locality"],
    }
    asked = [
        (row["fact"], row["prompt"], row["target"])
        for name in ("efficacy", "generalization", "locality")
        for row in rows_of(tmp_path / "tasks" / f"{name}.jsonl")["test"]
    ]
    wanted = [(one.fact_id, one.prompt, one.target) for one in questions_for(FACTS, "edited")]
    assert sorted(asked) == sorted(wanted)
    task = yaml.load((tmp_path / "tasks" / "efficacy.yaml").read_text(), _Loader)
    assert task["process_results"] == "!exam.judge" and task["custom_dataset"] == "!exam.rows"
    spec = importlib.util.spec_from_file_location("exam_of_tasks", tmp_path / "tasks" / "exam.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(module.rows(name="efficacy", version=1.0)["test"]) == 2
    for said, success in ((" Peru.", 1.0), ("\n Peru", 1.0), (" Peruvian", 0.0), ("Peru or Norway", 0.0), ("", 0.0)):
        assert module.judge({"target": "Peru"}, [said]) == judged({"target": "Peru"}, [said]) == {"success": success}
    with pytest.raises(FactsError, match="has no new object"):
        write_tasks([Fact("x", "a", "b", "{}", "c")], tmp_path / "none")
    write_tasks([Fact("x", "a\u2028b\x85", "b", "{} is", "c", "d")], tmp_path / "separators")
    assert rows_of(tmp_path / "separators" / "efficacy.jsonl")["test"]["prompt"] == ["a\u2028b\x85 is"]
    facts = [{"subject": one.subject, "prompt": one.prompt, "true_object": "x", "new_object": "y"} for one in FACTS]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in facts))
    assert main(["lm-eval", str(tmp_path / "facts.jsonl"), "-o", str(tmp_path / "typed")]) == 0
    assert "indelible_efficacy (2 questions)\n" in capsys.readouterr().out


def test_what_cannot_be_asked_is_said_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lm_eval\.tasks"):
        tuning_settings({"lm_eval": {"tasks": []}})
    if importlib.util.find_spec("lm_eval") is None:
        with pytest.raises(ConfigError, match=r"not installed.*indelible\[lm-eval\]"):
            Harness.of(HarnessSettings(tasks=("arc_easy",)))
    else:
        with pytest.raises(ConfigError, match="no folder of tasks"):
            Harness.of(HarnessSettings(tasks=("indelible",), include_path=str(tmp_path / "none")))


@installed
def test_the_harness_finds_what_the_exam_finds(tmp_path: Path, tiny_model: Make) -> None:
    tokenizer = build_tokenizer(pad="<|pad|>")
    model = tiny_model("llama")
    questions = questions_for(FACTS, "edited")
    said = {one.question.prompt: one.generated for one in take_exam(model, tokenizer, questions)}
    facts = [Fact(**{**vars(one), "new_object": said[one.text()].strip()}) for one in FACTS[:1]] + FACTS[1:]
    exam = take_exam(model, tokenizer, questions_for(facts, "edited"))
    right = [one.success for one in exam if one.question.kind == "prompt"]
    assert right == [True, False]
    write_tasks(facts, tmp_path / "tasks")
    harness = Harness.of(HarnessSettings(tasks=("indelible",), include_path=str(tmp_path / "tasks")))
    assert harness.figures(model, tokenizer) == {
        f"lm_eval/indelible_{name}/success": sum(verdicts) / len(verdicts)
        for name, kind in (("efficacy", "prompt"), ("generalization", "paraphrase"), ("locality", "neighbour"))
        if (verdicts := [one.success for one in exam if one.question.kind == kind])
    }


@installed
def test_a_run_of_tuning_has_the_harness_figures_too(tmp_path: Path, tiny_model: Make) -> None:
    tokenizer = build_tokenizer(pad="<|pad|>")
    write_tasks(FACTS, tmp_path / "tasks")
    tuning: dict[str, Any] = {
        "objective": "text",
        "task": "text",
        "steps": 1,
        "heldout_examples": 2,
        "precision": "fp32",
    }
    plain = fine_tune(tiny_model("llama"), tokenizer, tuning)
    asked = {"tasks": ["indelible_efficacy"], "include_path": str(tmp_path / "tasks"), "limit": 1}
    found = fine_tune(tiny_model("llama"), tokenizer, {**tuning, "lm_eval": asked})
    name = "lm_eval/indelible_efficacy/success"
    assert found.before == {**plain.before, name: 0.0} and found.after == {**plain.after, name: 0.0}
