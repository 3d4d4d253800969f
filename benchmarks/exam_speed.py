"""Processor time of an exam, part by part, in this build and in another, whether both say the same, and what a GPU
would be asked to do.

Both builds ask the same questions of the same model in processes of their own, in turns, on one thread: those of the
study `quick` (*exam*), each fact's own prompt (*curve*), and the first candidates, as they are when facts are chosen
(*choose*). With ``--counts`` they ask once more, uncounted in the time, with batches as large as a GPU would take, and
count forward passes, dispatched kernels (every operation that is no view) and synchronisations (every time that Python
reads numbers off a tensor).

    python benchmarks/exam_speed.py --baseline HEAD~20 --json
    python benchmarks/exam_speed.py --baseline HEAD~20 --counts --rounds 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from indelible.exam.exam import answers_frame, known_facts, take_exam
from indelible.exam.questions import Question, own_prompts, questions_for
from indelible.facts.choose import choose_sets, in_turns
from indelible.facts.fact import Fact
from indelible.models.load import load
from indelible.study.design.config import load_config
from indelible.study.run.sources import candidate_facts
from quick_speed import ROOT, environment_of, sources

CANDIDATES = 128
ALL_AT_ONCE = 1 << 20
EXACT = ("fact_id", "kind", "wording", "generated", "success", "first_token", "rank")
NUMBERS = ("log_prob", "margin")
PARTS = ("choose", "exam", "curve")


class _Counting(TorchDispatchMode):
    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.counts["synchronisations"] += 1
        elif not func.is_view and func is not torch.ops.aten.detach.default:
            self.counts["kernels"] += 1
        return func(*args, **(kwargs or {}))


class _Reading(TorchFunctionMode):
    """What no operation shows on a CPU: whole tensors that Python reads."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.cpu):
            self.counts["synchronisations"] += 1
        return func(*args, **(kwargs or {}))


def counted(model: nn.Module, work: Callable[[], object]) -> dict[str, int]:
    """What the work asks for; forward passes are the model's."""
    counts: Counter[str] = Counter()

    def passed(*_seen: object) -> None:
        counts["forward passes"] += 1

    with model.register_forward_pre_hook(passed), _Reading(counts), _Counting(counts):
        work()
    return dict(counts)


def do_parts(options: argparse.Namespace) -> dict[str, Any]:
    """Ask here, in whichever build was imported: seconds, rows and counts by part."""
    torch.set_num_threads(1)
    loaded, settings = load(options.model), load_config("quick").facts
    model, tokenizer = loaded.model, loaded.tokenizer
    candidates = in_turns(candidate_facts(settings), options.seed)
    known_facts(model, tokenizer, candidates[:4])  # what is made once in a process
    found: dict[str, Any] = {"seconds": {}, "rows": {}, "counts": {}}

    def timed(part: str, work: Callable[..., Any]) -> Any:
        started = time.process_time()
        result = work()
        found["seconds"][part] = time.process_time() - started
        return result

    known = timed("choose", lambda: known_facts(model, tokenizer, candidates[:CANDIDATES]))
    found["rows"]["choose"] = [fact.id for fact in known]
    asked = asked_of(known, candidates, options)
    for part, questions in asked.items():
        rows = answers_frame(timed(part, lambda questions=questions: take_exam(model, tokenizer, questions)))
        found["rows"][part] = rows[[*EXACT, *NUMBERS]].to_dict("records")
        if options.counts:
            found["counts"][part] = counted(
                model,
                lambda questions=questions: take_exam(model, tokenizer, questions, batch_size=ALL_AT_ONCE),
            )
    return found


def asked_of(
    known: Sequence[Fact], candidates: Sequence[Fact], options: argparse.Namespace
) -> dict[str, list[Question]]:
    """What is asked in each part: the build that comes first draws it, as the other might draw something else."""
    place = Path(options.questions)
    if not place.exists():
        enough = 2 * (options.edits + options.intrinsic)
        offered = [*known, *(fact for fact in candidates if fact not in known)][:enough]
        chosen = choose_sets(offered, options.edits, options.intrinsic, options.seed, pool=candidates)
        edited, intrinsic = (
            [replace(fact, held_out=fact.held_out[:2], neighbours=fact.neighbours[:3]) for fact in facts]
            for facts in chosen
        )
        drawn = {
            "exam": [*questions_for(edited, "edited"), *questions_for(intrinsic, "intrinsic")],
            "curve": [*own_prompts(edited, "edited"), *own_prompts(intrinsic, "intrinsic")],
        }
        place.write_text(json.dumps({part: list(map(asdict, questions)) for part, questions in drawn.items()}))
    read = json.loads(place.read_text())
    return {part: [Question(**question) for question in questions] for part, questions in read.items()}


def measured(build: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What ``do_parts`` finds in one build, in a process of its own."""
    given = [f"--{name}={getattr(options, name)}" for name in ("model", "edits", "intrinsic", "seed", "questions")]
    command = [sys.executable, __file__, "--one", *given, *(["--counts"] if options.counts else [])]
    done = subprocess.run(command, env=environment_of(build), check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def differences(here: list[Any], there: list[Any]) -> dict[str, Any]:
    """How many rows are not the same, and how far their numbers are apart at most."""
    if here and isinstance(here[0], str):
        return {"rows": len(here), "apart": len(set(here) ^ set(there)) or int(here != there)}
    apart = [one for one, other in zip(here, there, strict=True) if any(one[name] != other[name] for name in EXACT)]
    far = {name: max(abs(one[name] - other[name]) for one, other in zip(here, there, strict=True)) for name in NUMBERS}
    return {"rows": len(here), "apart": len(apart), **far}


def compared(baseline: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both builds in turns: seconds, their ratios, differences and counts by part."""
    seconds: dict[str, dict[str, float]] = {"here": defaultdict(float), "there": defaultdict(float)}
    results: dict[str, Any] = {}
    with sources(baseline) as there, tempfile.TemporaryDirectory() as folder:
        options.questions = str(Path(folder) / "questions.json")
        for _ in range(options.rounds):
            for name, build in (("there", there), ("here", ROOT / "src")):
                results[name] = measured(build, options)
                for part, spent in results[name]["seconds"].items():
                    seconds[name][part] += spent
                print(f"{name}: {results[name]['seconds']}", file=sys.stderr)
    return {
        "seconds": seconds,
        "ratios": {part: seconds["there"][part] / seconds["here"][part] for part in PARTS},
        "same": {part: differences(*(results[name]["rows"][part] for name in ("here", "there"))) for part in PARTS},
        "counts": {name: results[name]["counts"] for name in ("here", "there")},
    }


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baseline", help="revision of the other build")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--edits", type=int, default=24)
    parser.add_argument("--intrinsic", type=int, default=60)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--counts", action="store_true", help="count passes, kernels and synchronisations, too")
    parser.add_argument("--json", action="store_true", help="print one object; all else goes to stderr")
    parser.add_argument("--questions", help=argparse.SUPPRESS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(do_parts(options)))
        return
    if not options.baseline:
        parser.error("give --baseline REVISION")
    found = compared(options.baseline, options)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for part, ratio in found["ratios"].items():
        there_s, here_s = (found["seconds"][name][part] for name in ("there", "here"))
        print(f"{part:7} {there_s:7.1f} s there {here_s:7.1f} s here  ratio {ratio:.2f}  {found['same'][part]}")
        for kind, count in found["counts"]["here"].get(part, {}).items():
            print(f"{'':7} {kind:17} {found['counts']['there'][part][kind]:7} there {count:7} here")


if __name__ == "__main__":
    main()
