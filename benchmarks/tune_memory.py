"""Peak memory of one step of fine-tuning on many tokens, each way in a process of its own.

The plain way is transformers' Trainer with the loss that models compute themselves, with logits everywhere. Another
build of this package is measured as it is, by the folder of its sources. Rows have all the same length, so that the
step's tokens are known; the first step's loss tells whether the ways do the same. The model keeps its first layers
only, if so asked: what logits take is then seen on a small machine.

    python benchmarks/tune_memory.py --layers 4
    python benchmarks/tune_memory.py --layers 4 --rows 128 --tokens 100 --baseline ../before/src
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    options = _options()
    if options.way:
        print(json.dumps(measured(options)))
        return
    here = str(Path(__file__).resolve().parent.parent / "src")
    sources = {"plain": here, "ours": here} | ({"before": options.baseline} if options.baseline else {})
    found = {}
    for name, source in sources.items():
        command = [sys.executable, __file__, *sys.argv[1:], "--way", "plain" if name == "plain" else "ours"]
        paths = os.pathsep.join([source, str(Path(__file__).resolve().parent)])
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": paths}, check=True, stdout=subprocess.PIPE, text=True
        )
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:>6}: {found[name]['peak']:.2f} GB, loss {found[name]['loss']:.6f}", file=sys.stderr, flush=True)
    print(json.dumps(found))


def measured(options: argparse.Namespace) -> dict[str, float]:
    """Peak in GB (resident, or a GPU's), that before the step, and the loss of the step."""
    import torch

    from indelible.models.load import load
    from indelible.tuning.objective import OBJECTIVES, Features, tuning_settings
    from indelible.tuning.rows import Rows
    from tune_speed import PlainTrainer, plain

    loaded = load(options.model)
    model = loaded.model
    if options.layers:
        model.model.layers = model.model.layers[: options.layers]
        model.config.num_hidden_layers = options.layers
    drawn = torch.randint(100, 40_000, (options.rows, options.tokens), generator=torch.Generator().manual_seed(0))
    rows = tuple(Features(tuple(ids), (-100, *ids[1:])) for ids in drawn.tolist())
    settings = tuning_settings(
        {"objective": "text", "steps": 1, "batch_size": options.rows, "max_tokens": options.tokens,
         "heldout_examples": 1, "warmup_steps": 0, "precision": "fp32"}
    )  # fmt: skip
    before = _peak(torch)
    if options.way == "plain":
        losses: list[float] = []

        def loss(self: Any, *around: Any, **more: Any) -> Any:
            found = super(PlainTrainer, self).compute_loss(*around, **more)
            losses.append(float(found.detach()))
            return found

        PlainTrainer.compute_loss = loss  # type: ignore[method-assign]
        plain(model, loaded.tokenizer, settings, Rows(rows, (), ()), frozenset())
        value = losses[0]
    else:
        value = _ours(model, loaded.tokenizer, settings, rows, OBJECTIVES.get("text"))
    return {"peak": _peak(torch), "before": before, "loss": value}


def _ours(model: Any, tokenizer: Any, settings: Any, rows: Any, objective: Any) -> float:
    from indelible.tuning.objective import Run
    from indelible.tuning.training.trainer import sequence_trainer

    with tempfile.TemporaryDirectory() as folder:
        run = Run(model, model, tokenizer, settings, rows, rows[:1], folder, 0, 1)
        trainer = sequence_trainer(run, objective.trainer_name)
        return float(trainer.train().training_loss)


def _peak(torch: Any) -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layers", type=int, help="that the model keeps; all by default")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=100, help="in each row")
    parser.add_argument("--baseline", metavar="FOLDER", help="sources of another build")
    parser.add_argument("--way", choices=["plain", "ours"], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
