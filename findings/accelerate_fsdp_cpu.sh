#!/usr/bin/env bash
# accelerate 1.15.0 (torch 2.13.0): told to use FSDP on a CPU, it trains a whole copy in each process, without a word.
#
# Seen (two gloo processes, 8 matrices of 64 x 64 = 32,768 numbers, AdamW; nothing on stderr):
#   accelerate launch --use_fsdp --fsdp_version 2          MULTI_CPU, DistributedDataParallel; each process holds 32,768
#                                                          weights and 32,768 first moments
#   Accelerator(fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2))     the same; the plugin is dropped
#   the same state with its distributed_type set to FSDP   FSDPSequential; 16,384 and 16,384: torch has no objection
# Guess: it deals the weights out, since torch's fully_shard works on gloo and CPUs; or it says that it does not.
# Hurts: whoever tests a set-up for FSDP on CPUs (all that is special about it is skipped, and passes), and whoever
# relies on memory being divided there. Way out: set `accelerator.state.distributed_type` and `.fsdp_plugin` before
# `prepare`, and look for DTensor among the parameters.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 accelerate==1.15.0 numpy
cd "$folder"
cat > train.py <<'PYTHON'
import sys

import accelerate
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn

plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
accelerator = Accelerator(cpu=True, fsdp_plugin=plugin if sys.argv[1] == "argument" else None)
if sys.argv[1] == "forced":
    accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
torch.manual_seed(0)
model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(8)))
model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
for _ in range(2):
    accelerator.backward(model(torch.randn(4, 64)).square().mean())
    optimizer.step()
    optimizer.zero_grad()


def here(tensors) -> int:
    """How many numbers lie in this process."""
    return sum(getattr(one, "_local_tensor", one).numel() for one in tensors)


if accelerator.is_main_process:
    weights, moments = here(model.parameters()), here(state["exp_avg"] for state in optimizer.state.values())
    print(accelerate.__version__, torch.__version__, accelerator.distributed_type, type(model).__name__, weights, moments)
    whole = sys.argv[1] != "forced"
    assert (weights, moments) == ((32768, 32768) if whole else (16384, 16384)), "changed"
    assert (type(model).__name__ == "DistributedDataParallel") == whole, "changed"
torch.distributed.destroy_process_group()
PYTHON
for how in environment argument forced; do
    HF_HOME="$folder/home" CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 "$folder/venv/bin/python" \
        -m accelerate.commands.launch --num_processes 2 --num_machines 1 --main_process_port 0 --mixed_precision no \
        --dynamo_backend no --use_fsdp --fsdp_version 2 train.py "$how" 2> "$how.errors" || { cat "$how.errors"; exit 1; }
done
[ ! -s environment.errors ] && [ ! -s argument.errors ] || { echo "it says something now"; cat ./*.errors; exit 1; }
