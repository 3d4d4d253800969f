"""Whether what a run reads in batches is what its model says of each row alone.

Padding moves positions in some families and runs through the state of others, some models are not causal, and the way
to log-probabilities that never makes all logits could leave out what some do to them. No name tells which, so it is
tried on two texts of unequal length, against one whole pass of each row alone, before anything is trained. Nor does a
model that is read well pass gradients on to what is trained in every family: that is tried, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from indelible.errors import ModelError
from indelible.models.batches import padded
from indelible.models.keeping import Kept
from indelible.models.tokens import encode_prompt
from indelible.models.trace import evaluation_mode
from indelible.tuning.objective import NO_LOSS, Features, Run
from indelible.tuning.randomness import seeded
from indelible.tuning.training.batches import collated, computing
from indelible.tuning.training.judging import log_probs
from indelible.tuning.training.scoring import score_labels, scored

TEXTS = ("What is 12 + 7 - 3? The answer is 16, and so it was on the day before.", "It rains in Spain again.")

WITHIN = 1e-3
"""Nats by which a log-probability may be off: of 180 families the right ones were off by 1e-5, others by 4e-3 up."""

ANSWER = 3
"""Tokens of each text that are scored, the last ones."""

_OTHERWISE = "Train it with other settings or another mask, or use another model."


@contextmanager
def proving(run: Run[Any]) -> Iterator[list[list[int]]]:
    """Evaluation mode, float32 and no gradients inside the block, which gets the texts as token ids."""
    with evaluation_mode(run.model), torch.no_grad(), seeded(0):
        yield [encode_prompt(run.tokenizer, text) for text in TEXTS]


def alone(model: Any, ids: Sequence[int]) -> Tensor:
    """Next-token log-probabilities ``(t, v)`` after each of t tokens: one row, one whole pass, no padding, no cache."""
    logits: Tensor = model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False).logits
    return logits[0].float().log_softmax(-1)


def difference(found: Tensor, wanted: Tensor) -> float:
    """Nats between log-probabilities at worst; where both are minus infinity, none."""
    return float(torch.where(found == wanted, 0.0, (found - wanted).abs()).max())


def scored_alone(model: Any, ids: Sequence[int], temperature: float = 1.0) -> Tensor:
    """Log-probability ``(t - 1)`` of each token but the first."""
    found_tv = (alone(model, ids)[:-1] / temperature).log_softmax(-1)
    return found_tv.gather(1, torch.tensor(ids[1:], device=found_tv.device)[:, None])[:, 0]


def proved_reading(run: Run[Any]) -> Run[Any]:
    """The run, taking logits in the leaner way that reads rows, padded on the right, as each by itself.

    Raises:
        ModelError: if there is none.
    """
    exact = replace(run, settings=run.settings.model_copy(update={"precision": "fp32"}))
    with proving(run) as rows:
        for whole in (False, True):
            try:
                found = log_probs(replace(exact, whole=whole), [(ids[:-ANSWER], ids[-ANSWER:]) for ids in rows])
                wanted = torch.stack([scored_alone(run.model, ids)[-ANSWER:].sum() for ids in rows])
                off = difference(found, wanted.cpu())
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a family raises that reads no batch of texts
                why: BaseException | None = error
                said = f"{type(error).__name__}: {error}"
                continue
            if off <= WITHIN:
                return replace(run, whole=whole)
            why, said = None, f"a row in a batch is read {off:.2g} nats otherwise than alone"
    raise refused(run.model, said) from why


def prove_gradients(run: Run[Any]) -> set[str]:
    """Let gradients reach what is trained. Where they miss some, and it helps, the embeddings' output requires one
    until training ends: reversible blocks do their own backward pass, but only if what comes into them requires one.

    Returns:
        Names of the parameters that are to be trained and get none.

    Raises:
        ModelError: if no gradient reaches anything, or the model cannot do a pass as in training.
    """
    trained = {name for name, parameter in run.model.named_parameters() if parameter.requires_grad}
    reached = _reached(run)
    if reached != trained:
        run.model.enable_input_require_grads()
        try:
            more = _reached(run) - reached
        except ModelError:  # what requires a gradient cannot be written into in place
            more = set()
        if not more:
            run.model.disable_input_require_grads()
        reached |= more
    if not reached:
        raise refused(run.model, "no gradient reaches what is to be trained", _OTHERWISE)
    return trained - reached


def _reached(run: Run[Any]) -> set[str]:
    """Names of the parameters that a pass as in training gives a gradient. What it leaves in the model (gradients,
    buffers that learn) is taken out again."""
    model: Any = run.model
    before = Kept(model)
    rows = [encode_prompt(run.tokenizer, text) for text in TEXTS]
    answers = [Features.answering(ids[:-ANSWER], ids[-ANSWER:]).as_dict() for ids in rows]
    try:
        if run.settings.gradient_checkpointing:  # renamed in transformers 5.2x
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        with seeded(0), torch.enable_grad():
            model.train()
            batch = {name: tensor.to(model.device) for name, tensor in collated(answers, run.pad).items()}
            labels = batch.pop("labels")
            with computing(run):
                loss = scored(model, model, batch, labels, whole=run.whole).loss
            if loss.requires_grad:
                loss.backward()
        return {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a family raises that is not made to be trained so
        raise refused(model, f"a pass as in training ends in {type(error).__name__}: {error}", _OTHERWISE) from error
    finally:
        before.put_back()
        before.put_weights_back()


def refused(model: Any, why: str, fix: str = "Use a causal language model of text.") -> ModelError:
    reason = " ".join(why.split())[:200].rstrip(".")
    return ModelError(f"{type(model).__name__} cannot be tuned here: {reason}.", fix)


def prove_scoring(run: Run[Any], trainer: Any) -> None:
    """Where trl has put its own way to log-probabilities into the model: put ours in its place, proved once more as trl
    asks for it. It goes when training ends, as trl's does. And trl takes any model with routers for one with a loss
    that balances its experts: where there is none, it is not asked for."""
    if getattr(trainer, "library_name", "Trainer") == "Trainer":
        return
    if getattr(trainer, "aux_loss_enabled", False):
        trainer.aux_loss_enabled = _balances(run)
    if "forward" not in vars(run.model):
        return
    temperature = float(getattr(trainer, "temperature", 1.0))
    asked = {"output_router_logits": True} if getattr(trainer, "aux_loss_enabled", False) else {}
    if getattr(trainer.args, "cast_lm_head_to_fp32", False) and _scores(run, temperature, asked):
        return  # trl's own
    for whole in sorted({run.whole, True}):
        score_labels(run.model, whole=whole, temperature=temperature, statistics=True)
        if _scores(run, temperature, asked):
            return
    raise refused(run.model, "its log-probabilities in a batch are not those of each row alone")


def _balances(run: Run[Any]) -> bool:
    """Whether the model returns a loss that balances its experts."""
    with proving(run) as rows:
        ids = torch.tensor(rows[:1], device=run.model.device)
        found = run.model(input_ids=ids, output_router_logits=True, use_cache=False)
    return found.get("aux_loss") is not None


def _scores(run: Run[Any], temperature: float, asked: dict[str, bool]) -> bool:
    """Whether the model, asked as trl asks it, gives the log-probabilities that it should."""
    with proving(run) as rows:
        ids, mask = (tensor.to(run.model.device) for tensor in padded(rows, run.pad))
        labels = ids.masked_fill(mask == 0, NO_LOSS)
        try:
            batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, **asked}
            found = run.model(**batch, fused_lm_head=True).log_probs
        except torch.OutOfMemoryError:
            raise
        except Exception:
            return False
        wanted = [scored_alone(run.model, row, temperature) for row in rows]
        return all(difference(one[: len(two)], two) <= WITHIN for one, two in zip(found, wanted, strict=True))
