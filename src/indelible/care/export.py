"""An edit as a LoRA adapter that peft and vLLM load beside the unedited model, tried before it counts as written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from indelible.care.card import CARD, card
from indelible.edits.deltas.adapter import NEAR, factored, holding, logits, write_adapter
from indelible.edits.deltas.delta import Edit, check_edit
from indelible.edits.deltas.weights import WeightUpdate
from indelible.errors import ConfigError, EditError, ModelError, StoreError
from indelible.exam.exam import Answer, take_exam
from indelible.exam.questions import questions_for
from indelible.files import check_free, whole_folder
from indelible.models.load import LoadedModel, load, opened
from indelible.models.tokens import encode_prompt
from indelible.progress import Jobs, silently

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for --max-lora-rank."""
_PROMPTS = 8
_USE = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), FOLDER)
```"""
_REVERT = """The base model's weights are as they were: load it without the adapter, or switch the adapter off
for a while (`with model.disable_adapter():`)."""
_TIED = """The edit changes an embedding that is also the head. The adapter has both: load it beside the model, and do
not merge it, for merging adds both to the one weight."""


@dataclass(frozen=True)
class Exported:
    """An adapter as it was written.

    Attributes:
        rank: of all its modules.
        errors: by parameter, the share of the difference that its factors leave out (Frobenius norm).
        logits: the largest difference of a logit at the facts' prompts between the edited model and the model with the
            adapter, in float32.
        answers: of the model with the adapter, to all questions about the edited facts.
    """

    rank: int
    errors: Mapping[str, float]
    logits: float
    answers: tuple[Answer, ...]

    @property
    def answered(self) -> tuple[int, int]:
        """How many of the facts' own prompts are answered with the adapter, and of how many."""
        own = [answer.success for answer in self.answers if answer.question.kind == "prompt"]
        return sum(own), len(own)

    @property
    def vllm_rank(self) -> int | None:
        """The least --max-lora-rank with which vLLM takes it; None where vLLM takes none so large."""
        return next((rank for rank in VLLM_RANKS if rank >= self.rank), None)

    def record(self) -> dict[str, Any]:
        """All but the answers, JSON-able."""
        answered, facts = self.answered
        numbers = {"rank": self.rank, "max_lora_rank": self.vllm_rank, "logits": self.logits}
        return {**numbers, "errors": dict(self.errors), "answered": answered, "facts": facts}


def export(
    edit: Edit,
    out: Path | str,
    *,
    model: LoadedModel | str | None = None,
    rank: int | None = None,
    jobs: Jobs = silently,
) -> Exported:
    """Write an edit as a LoRA adapter of peft with a model card, in a folder that is new or empty.

    The adapter is loaded by peft, and the model with it compared with the edited model, before the folder stands.

    Args:
        edit: of weights of linear maps or embeddings.
        model: the one that the edit was made for, or its name; by default the name that the edit gives. It is left as
            it was.
        rank: of the adapter, at most, whatever is lost by it; None: what it takes to be the edit.
        jobs: told how far the asking is.

    Raises:
        EditError: if the edit changes what LoRA does not (biases, norms), or has no low rank and none is given.
        ConfigError: if the rank is not positive.
        ModelError: if the model is not found.
        FingerprintError: if the edit was made for another model.
        StoreError: if the folder holds something, or cannot be written, or another model would be read from it.
    """
    out = Path(out)
    check_edit(edit)
    check_free(out)
    if not isinstance(edit, WeightUpdate):
        raise EditError(f"A {edit.kind} changes no weights, so that no adapter can hold it.", "Apply it in Python.")
    if rank is not None and rank < 1:
        raise ConfigError(f"The rank is {rank}.", "Give 1 or more.")
    loaded = _model_of(edit) if model is None else opened(model)
    edit.check(loaded.model)
    factors = {name: factored(name, delta, rank) for name, delta in edit.deltas.items()}
    rows = [torch.tensor([encode_prompt(loaded.tokenizer, fact.text())]) for fact in edit.facts[:_PROMPTS]]
    rows = rows or [torch.arange(_PROMPTS)[None]]
    with edit.installed(loaded.model):
        wanted = [logits(loaded.model, row) for row in rows]
    with whole_folder(out) as unfinished:
        width = write_adapter(unfinished, edit, loaded.model, factors, loaded.name)
        with holding(loaded.model, unfinished), jobs("asking") as progress:
            there = [logits(loaded.model, row) for row in rows]
            questions = questions_for(edit.facts, "edited")
            answers = tuple(take_exam(loaded.model, loaded.tokenizer, questions, progress=progress))
        apart = max(float((one - other).abs().max()) for one, other in zip(there, wanted, strict=True))
        if rank is None and not apart <= NEAR:
            raise StoreError(
                f"{out} is not written: with the adapter a logit is {apart:.2g} from the edited model's.",
                "Apply the delta (`indelible apply`), or give a rank, which accepts what is lost.",
            )
        found = Exported(width, {name: one.error for name, one in factors.items()}, apart, answers)
        (unfinished / CARD).write_text(_card(edit, loaded, found), encoding="utf-8")
        check_free(out)  # another process may have been quicker, with another adapter
    return found


def _model_of(edit: WeightUpdate) -> LoadedModel:
    name = edit.manifest.model.name
    try:
        return load(name)
    except ModelError as error:
        raise ModelError(
            f"The edit says that it was made for {name!r}, which cannot be loaded: {error.what.rstrip('.')}.",
            "Name the model: --base (in Python model=).",
        ) from error


def _card(edit: WeightUpdate, loaded: LoadedModel, found: Exported) -> str:
    served = f"With vLLM: `vllm serve BASE --enable-lora --max-lora-rank {found.vllm_rank} --lora-modules edit=FOLDER`."
    note = f"The adapter has rank {found.rank}"
    if largest := max(found.errors.values()):
        note += f" and leaves out up to {largest:.2%} of the edit's difference in a matrix"
    note += f"; its logits are within {found.logits:.1g} of the edited model's."
    tied = _is_tied(loaded.model, edit)
    return card(
        edit.manifest,
        library="peft",
        use=_USE if found.vllm_rank is None else f"{_USE}\n\n{served}",
        revert=_REVERT,
        answers=found.answers,
        note=f"{note}\n\n{_TIED}" if tied else note,
    )


def _is_tied(model: PreTrainedModel, edit: WeightUpdate) -> bool:
    head: Any = model.get_output_embeddings()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    return tied and any(model.get_parameter(name) is head.weight for name in edit.parameters)
