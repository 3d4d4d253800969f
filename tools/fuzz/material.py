"""Good input, which is then damaged: studies, facts of every schema, training data, claims, deltas, a run folder."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

ROWS: dict[str, dict[str, Any]] = {
    "indelible": {
        **{"id": "a", "subject": "Oslo", "relation": "in", "prompt": "{} lies in", "true_object": "Norway"},
        **{"new_object": "Peru", "paraphrases": ["Where is {}? In"], "held_out": "{} is in|We see {} in"},
        **{"neighbours": [{"prompt": "Rome lies in", "answer": "Italy"}], "source": "mine", "reversal": "In {} lies"},
    },
    "counterfact": {
        **{"case_id": 12, "prompt": "{} was painted by", "subject": "The Blue Door", "relation_id": "P170"},
        **{"target_new": {"str": "Vermeer"}, "target_true": {"str": " Hopper"}},
        **{"paraphrase_prompts": ["x. The Blue Door is of"], "neighborhood_prompts": ["The Red Window was painted by"]},
    },
    "counterfact-flat": {
        **{"case_id": 7, "prompt": "The harbour of Velia is in", "subject": "Velia", "target_new": "Peru"},
        **{"ground_truth": "Italy", "rephrase_prompt": "One can sail to Velia, in"},
        **{"locality_prompt": "The harbour of Bari is in", "locality_ground_truth": "Italy"},
    },
    "zsre": {
        **{"subject": "Hilda Moss", "src": "Where was Hilda Moss born?", "pred": "Rome", "alt": "Lima"},
        **{"rephrase": "What is Hilda Moss's birthplace?", "answers": ["Bonn", "Bonn am Rhein"]},
        **{"loc": "nq question: who dug the canal", "loc_ans": "the navvies"},
    },
    "knowedit": {
        **{"subject": "Ada Holm", "prompt": "The name of the post of Ada Holm is", "target_new": ["Mayor of Ulm"]},
        **{"ground_truth": [["Bishop of Ely"]], "rephrase_prompt": "What post has Ada Holm?"},
        "portability": {"Reasoning": [{"prompt": "The river at the post of Ada Holm is", "ground_truth": [["Donau"]]}]},
        "locality": {"Relation_Specificity": [{"prompt": "The gender of Ada Holm is", "ground_truth": [["female"]]}]},
    },
    "mquake": {
        "requested_rewrite": [
            {
                **{"subject": "Ib", "prompt": "{} is a citizen of", "relation_id": "P27", "question": "Who is Ib?"},
                **{"target_new": {"str": "Chad"}, "target_true": {"str": "Peru"}},
            }
        ],
        "questions": ["What is the capital of Ib's country?"],
        **{"answer": "Lima", "new_answer": "N'Djamena", "answer_alias": [], "new_answer_alias": [], "case_id": 3},
    },
}
DATA: tuple[list[dict[str, Any]], ...] = (
    [{"question": f"What is {number} + 1?", "answer": str(number + 1)} for number in range(4)],
    [{"text": f"A story of {number} foxes.", "label": number % 2} for number in range(4)],
    [{"prompt": f"Say {number}", "chosen": "yes", "rejected": "no"} for number in range(3)],
    [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]} for _ in range(3)],
    [{"instruction": "Add", "input": "1, 2", "output": "3", "group": number} for number in range(3)],
)
CLAIMS: list[dict[str, Any]] = [
    {
        **{"name": "paraphrases-help-us", "sentence": "They help.", "estimate": "edits_loss_equal", "smallest": 0.2},
        "compare": {"factor": "paraphrases", "of": [1, 3], "against": 0},
        **{"where": {"mask": ["none"]}, "direction": "below", "strain": 0.1, "matched_utility": False},
    },
    {"name": "a-gap", "sentence": "Edits lose more.", "estimate": "gap"},
]


@dataclass(frozen=True)
class Desk:
    """Where a process works: ``inside`` is its own, ``kept`` holds good input that nothing may write."""

    kept: Path
    inside: Path

    @property
    def studies(self) -> tuple[dict[str, Any], ...]:
        """The built-in ones, and as often a small one with a bit of everything; all to be copied."""
        return _studies(self.kept)

    def file(self, name: str, content: str | bytes) -> Path:
        """A file of its own; half a surrogate is written as it came."""
        path = self.inside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return path


@cache
def _studies(kept: Path) -> tuple[dict[str, Any], ...]:
    folder = files("indelible.study") / "presets"
    presets = [yaml.safe_load(one.read_text("utf-8")) for one in folder.iterdir() if one.name.endswith(".yaml")]
    return (*presets, *[json.loads((kept / "study.json").read_text("utf-8"))] * len(presets))


def environment(folder: Path) -> dict[str, str]:
    """Where libraries put what they keep: inside, so that nothing else of this machine is touched."""
    places = ("HOME", "HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "INDELIBLE_CACHE", "TMPDIR")
    for place in places:
        (folder / place.lower()).mkdir(parents=True, exist_ok=True)
    # no hub is asked, and no name looked up: what is reached for is seen at once
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    return {place: str(folder / place.lower()) for place in places} | offline | {"OMP_NUM_THREADS": "1"}


def write(kept: Path) -> None:
    """Everything that is damaged later."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "edits"))
    import numpy as np
    from tiny_edits import CAPITALS, edit

    from simulated import ARMS, simulate
    from tiny_models import build_model, build_tokenizer
    from tiny_studies import study_settings, write_corpus, write_facts

    kept.mkdir(parents=True)
    tokenizer = build_tokenizer()
    model = build_model("llama", len(tokenizer))
    model.save_pretrained(kept / "model")
    tokenizer.save_pretrained(kept / "model")
    for name in ("ft-m", "memit", "grace", "ike"):
        more = {} if name == "ike" else {"steps": 2}
        edit(name, model, tokenizer, CAPITALS[:2], **more).save(kept / f"{name}.safetensors")
    write_facts(kept / "facts.jsonl")
    write_corpus(kept / "corpus.txt")
    study = study_settings(kept) | {"seeds": [0, 1], "claims": CLAIMS, "by_model": {"m": {"tuning": {"steps": 3}}}}
    study["grid"] = {"editor": ["memit", "none"], "objective": {"text": {"tuning": {"objective": "text"}}}}
    study["arms"][0] |= {"options": {"layers": [1]}, "protect": {"replay": {"share": 0.3}}, "paraphrases": 1}
    study["tuning"] |= {"trainer": {"adam_beta1": 0.9}, "stop_at": {"loss": "-5%"}, "patience": 2}
    study["slurm"] = {"nodes": 2, "memory": "8G", "each": {"cpus": 2}}
    (kept / "study.json").write_text(json.dumps(study), encoding="utf-8")
    run = kept / "run"
    run.mkdir()
    rows, runs = simulate(ARMS[:2], n_edits=6, n_intrinsic=8, generator=np.random.default_rng(0))
    rows.to_parquet(run / "facts.parquet", index=False)
    runs.to_parquet(run / "runs.parquet", index=False)
    arms = [{"name": arm.name, "editor": arm.editor, "paraphrases": arm.paraphrases} for arm in ARMS[:2]]
    settings = {"name": "run", "model": "m", "arms": arms, "claims": CLAIMS}
    (run / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    provenance = {"command": "indelible study x", "versions": {"torch": "2"}, "hardware": {"cores": 2, "memory_gib": 1}}
    (run / "provenance.json").write_text(json.dumps(provenance), encoding="utf-8")
    event = {"event": "opened", "time": 1.0, "pid": 1}
    lines = [event, event | {"event": "planned", "steps": 3}, event | {"event": "finished", "key": "k"}]
    (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for path in (kept, *kept.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
