"""The exam of edited facts as a task group of lm-evaluation-harness (EleutherAI), for whoever has their models there.

A folder of tasks is made from facts, and ``lm_eval --include_path FOLDER --tasks indelible`` finds it: ``efficacy``
asks the facts' own prompts, ``generalization`` their held-out wordings, ``locality`` their neighbours. An answer is
judged by the exam's criterion: greedy continuation that begins with the whole target.

The exam and the harness differ in how much is written: the exam as much as the target and its rival are long, the
harness so many tokens after every prompt. That changes a verdict only where a hedge comes late.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from indelible.errors import FactsError
from indelible.exam.criterion import succeeds
from indelible.exam.questions import Question, questions_for
from indelible.facts.fact import Fact
from indelible.files import check_free, whole_folder

GROUP = "indelible"
NEW_TOKENS = 24
_TASKS: dict[str, str] = {"prompt": "efficacy", "paraphrase": "generalization", "neighbour": "locality"}
_MODULE = "exam"
_PYTHON = '''"""What the tasks beside this file need of indelible: their questions, and the exam's criterion."""

from pathlib import Path

from indelible.harness.tasks import judged, rows_of


def rows(name, **given):
    return rows_of(Path(__file__).with_name(f"{name}.jsonl"))


def judge(doc, results):
    return judged(doc, results)
'''


def write_tasks(facts: Sequence[Fact], folder: Path | str) -> dict[str, int]:
    """Write the task group into a folder that is new or empty.

    Args:
        facts: each with a new object.

    Returns:
        how many questions each task has; those without any are left out.

    Raises:
        FactsError: if a fact has no new object, or there are none.
        StoreError: if the folder holds something or cannot be written.
    """
    folder = Path(folder)
    if lacking := next((fact for fact in facts if fact.new_object is None), None):
        raise FactsError(f"The fact {lacking.id!r} has no new object.", "Give new_object for every fact.")
    if not facts:
        raise FactsError("There are no facts.", "Give at least one.")
    check_free(folder)
    questions = questions_for(facts, "edited")
    asked = {name: [one for one in questions if one.kind == kind] for kind, name in _TASKS.items()}
    asked = {name: found for name, found in asked.items() if found}
    with whole_folder(folder) as unfinished:
        for name, found in asked.items():
            lines = "".join(json.dumps(_row(one), ensure_ascii=False) + "\n" for one in found)
            (unfinished / f"{name}.jsonl").write_text(lines, encoding="utf-8")
            (unfinished / f"{name}.yaml").write_text(_task(name), encoding="utf-8")
        group = {"group": GROUP, "task": [f"{GROUP}_{name}" for name in asked]}
        (unfinished / f"{GROUP}.yaml").write_text(yaml.safe_dump(group, sort_keys=False), encoding="utf-8")
        (unfinished / f"{_MODULE}.py").write_text(_PYTHON, encoding="utf-8")
    return {name: len(found) for name, found in asked.items()}


def rows_of(file: Path) -> Mapping[str, Any]:
    """A task's questions as the harness takes them: a data set by the name of its split."""
    from datasets import Dataset  # comes with the harness

    # split at line feeds only: other line separators may stand inside a JSON string
    lines = file.read_text(encoding="utf-8").split("\n")
    return {"test": Dataset.from_list([json.loads(line) for line in lines if line])}


def judged(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether what was generated counts as the question's target, as the exam judges it."""
    return {"success": float(succeeds(_first_line(results[0]), doc["target"]))}


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def _row(question: Question) -> dict[str, Any]:
    said = {"fact": question.fact_id, "prompt": question.prompt, "target": question.target}
    return {**said, "rival": question.rival or ""}


def _task(name: str) -> str:
    settings = {
        "task": f"{GROUP}_{name}",
        "task_alias": name,
        "output_type": "generate_until",
        "test_split": "test",
        "dataset_kwargs": {"name": name},
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{target}}",
        "generation_kwargs": {"until": ["\n\n\n"], "max_gen_toks": NEW_TOKENS, "do_sample": False},
        "metric_list": [{"metric": "success", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    functions = f"custom_dataset: !function {_MODULE}.rows\nprocess_results: !function {_MODULE}.judge\n"
    return yaml.safe_dump(settings, sort_keys=False) + functions
