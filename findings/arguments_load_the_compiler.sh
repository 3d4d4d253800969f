#!/usr/bin/env bash
# transformers 5.23.0, peft 0.21.2, bitsandbytes 0.50.2, accelerate 1.15.0 (torch 2.13.0): what TrainingArguments imports.
#
# Seen: `from transformers import TrainingArguments`, a dataclass of options, imports peft where that is installed
# (transformers.trainer_utils asks for its classes), peft imports bitsandbytes where that is installed, and that torch._inductor
# with sympy and networkx: some 1,900 modules and 150 MB on top of torch and transformers, 3 s of a slow processor. Without the two
# packages, which nothing here uses, the import is light, but making the options of a training on a CPU still loads
# torch's compiler: 1,100 modules, 90 MB.
# Guess: options cost nothing; an optional package is imported by what uses it, and a compiler by what compiles.
# Hurts: whoever checks options before work is sent away (login nodes of SLURM, Ray drivers, services that plan), and every process
# of a pool that is started afresh: installing a package for one experiment makes each of them seconds slower and 60 MB bigger.
# Way out: keep bitsandbytes out of environments that do not quantise; make TrainingArguments where training happens.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip "$@" --quiet; }
pip install torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2 bitsandbytes==0.50.2
cat > "$folder/look.py" <<'PYTHON'
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
import transformers  # noqa: F401


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024


before, held, started = set(sys.modules), resident(), time.process_time()
from transformers import TrainingArguments  # noqa: E402


def look(when: str) -> tuple[int, int, set[str]]:
    new = set(sys.modules) - before
    more, seconds = resident() - held, time.process_time() - started
    known = {"peft", "bitsandbytes", "sympy", "networkx", "torch._inductor", "torch._dynamo"} & set(sys.modules)
    print(f"{sys.argv[1]:<11} {when:<9} {len(new):5} modules, {more:4} MB, {seconds:.1f} s of the processor:", *sorted(known))
    return len(new), more, known


imported = look("imported")
TrainingArguments("out", report_to=[], use_cpu=True)
made = look("made")
if sys.argv[1] == "both":
    print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate", "peft", "bitsandbytes")))
    assert {"peft", "bitsandbytes", "torch._inductor"} <= imported[2] and imported[0] > 1500 and imported[1] > 100, "changed"
if sys.argv[1] == "neither":
    assert "torch._inductor" not in imported[2] and imported[0] < 300, "changed"
    assert "torch._inductor" in made[2] and made[0] > 800, "changed"
PYTHON
cd "$folder"
look() { HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" -W ignore look.py "$1" 2> errors || { cat errors; exit 1; }; }
look warm-up > /dev/null
look both
pip uninstall -y bitsandbytes
look "peft alone"
pip uninstall -y peft
look neither
