"""One model trained by several processes, which ``accelerate launch`` has started: what they have to agree on, and how
the model is whole again in each of them afterwards.

Each process holds the whole model before and after training. In between accelerate deals its weights out (FSDP2) or
leaves them whole (plain data parallelism), as its launcher was told; every batch is divided among the processes. What
is asked of the model on the way is asked by all of them at once, since none could do a forward pass alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from indelible.errors import ConfigError
from indelible.launched import processes
from indelible.models.keeping import Kept
from indelible.tuning.objective import Objective
from indelible.tuning.protection import Protection
from indelible.tuning.settings import TuningSettings
from indelible.tuning.tuners.tuner import QLORA


def check_shared(settings: TuningSettings, objective: Objective[Any]) -> None:
    """ConfigError for what several processes cannot train together."""
    among = processes()
    if among == 1:
        return
    if not objective.shared(settings):
        raise ConfigError(
            f"The objective {settings.objective!r} is trained by one process with these options, and {among} were"
            " launched.",
            "Use another objective, or start it without `accelerate launch`.",
        )
    if settings.tuner == QLORA:
        raise ConfigError(
            f"A quantised base is trained over by one process, and {among} were launched.",
            "Use the tuner lora, or start it without `accelerate launch`.",
        )
    if settings.batch_size % among:
        raise ConfigError(
            f"A batch of {settings.batch_size} rows cannot be divided among {among} processes.",
            f"Set tuning.batch_size to a multiple of {among}.",
        )


def check_unprotected(protections: Sequence[Protection]) -> None:
    """ConfigError if several processes were launched and something is to be protected."""
    if protections and processes() > 1:
        raise ConfigError(
            f"Protections need the whole model in one process, and {processes()} were launched.",
            "Leave them out, or start it without `accelerate launch`.",
        )


def check_dealing(trainer: Any) -> None:
    """See that accelerate deals out weights as it was told to, in a way that ``whole_again`` can undo. On a CPU it has
    to be made to: by itself it trains whole copies there, without a word (findings/accelerate_fsdp_cpu.sh).

    Raises:
        ConfigError: for FSDP's first version, DeepSpeed's ZeRO-3 and Megatron.
    """
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = trainer.accelerator.state
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asked and state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, FullyShardedDataParallelPlugin()
        trainer.is_fsdp_enabled = True
    kind, other = state.distributed_type, None
    if kind == DistributedType.FSDP and state.fsdp_plugin.fsdp_version != 2:
        other = f"FSDP {state.fsdp_plugin.fsdp_version}"
    elif kind == DistributedType.MEGATRON_LM or (
        kind == DistributedType.DEEPSPEED and state.deepspeed_plugin.zero_stage == 3
    ):
        other = "ZeRO-3" if kind == DistributedType.DEEPSPEED else "Megatron"
    if other is not None:
        raise ConfigError(
            f"accelerate was told to divide the model by {other}, from which it does not come back whole.",
            "Use FSDP 2: `accelerate launch --use_fsdp --fsdp_version 2`.",
        )


@contextmanager
def whole_again(model: PreTrainedModel) -> Iterator[None]:
    """After the block, in which the model's weights may be dealt out, the model is whole in each process, with its own
    modules and with what was trained gathered into its own parameters. Those that are not trained were never written
    to: each process has them as they lay. After a block that failed, the caller puts the model back (models.keeping).
    """
    before = Kept(model)
    try:
        yield
        dealt = _dealt(model)
        if not dealt:
            return
        for module in dealt:
            module.reshard()  # some lie whole after a forward pass, as copies
        shares: dict[str, Any] = {name: one for name, one in model.named_parameters() if one.requires_grad}
        trained = {name: share.full_tensor() for name, share in shares.items()}
        learned = dict(model.named_buffers())
    finally:
        for module in _dealt(model):  # torch has no way to undo it, and would not do it again
            torch.distributed._composable_state._module_state_mapping.pop(module, None)
    before.put_back()
    before.put_weights_back()
    for name, buffer in model.named_buffers():
        buffer.copy_(learned[name])
    for name, tensor in trained.items():
        before.parameters[name].data.copy_(tensor)


def _dealt(model: PreTrainedModel) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]
