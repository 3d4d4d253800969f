"""Classification: by label words that the model says, or by a classification head on the same trunk.

With label words the model stays a language model that is asked for one of a few words. With a head (``head: true``) a
linear layer reads the trunk's last state of the text, as transformers' models for sequence classification have it; it
is thrown away after training, and what is left is the trunk that it has pulled along.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from indelible.errors import DataError
from indelible.models.tokens import encode_object, encode_prompt
from indelible.tuning.objective import OBJECTIVES, Features, Figure, Judge, Objective, Run, Work
from indelible.tuning.settings import TuningSettings

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from indelible.tuning.task import Example

ASKED = "\nLabel:"
"""What follows the text where label words are asked for."""


class ClassifySettings(TuningSettings):
    """Options of a run of classification."""

    objective: Literal["classify"] = "classify"
    head: bool = Field(False, description="train a classification head on the trunk, not label words")


@dataclass(frozen=True)
class Labelled(Features):
    """A text with its label: token ids of each label word, as they follow the text, and the number of the right one."""

    words: tuple[tuple[int, ...], ...] = ()
    label: int = 0

    @property
    def tokens(self) -> int:
        """The text's: a head reads no more."""
        return len(self.prompt_ids)


class Classify(Objective[ClassifySettings]):
    """Loss on the label word's tokens, or cross entropy of a head over the labels. Of held-out texts ``accuracy`` is
    the share labelled right, ``loss`` the mean negative log-probability of the right label among the labels."""

    name = "classify"
    default_task = "classify"
    needs = (("text", "label"), ("prompt", "label"))
    figures = (Figure("accuracy", "higher"), Figure("macro_f1", "higher"), Figure("loss", "lower"))
    settings = ClassifySettings

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, example: Example, settings: ClassifySettings, labels: Sequence[str]
    ) -> list[Labelled]:
        """One row; none for a text that is empty or too long to be followed by each label word."""
        if example.answer not in labels:
            raise DataError(
                f"The label {example.answer!r} is not among {', '.join(map(repr, labels)) or 'none'}.",
                "Name all label words (labels).",
            )
        if not example.prompt.strip():
            return []
        prompt = example.prompt if settings.head else example.prompt + ASKED
        given = encode_prompt(tokenizer, prompt)
        words = tuple(tuple(encode_object(tokenizer, prompt, label)) for label in labels)
        if len(given) + max(map(len, words)) > settings.max_tokens:
            return []
        right = labels.index(example.answer)
        return [Labelled.answering(given, words[right], words, right)]

    def trainee(self, model: PreTrainedModel, settings: ClassifySettings, labels: Sequence[str]) -> nn.Module:
        return _with_head(model, len(labels)) if settings.head else model

    def shared(self, settings: ClassifySettings) -> bool:
        return not settings.head

    def work(self, settings: ClassifySettings) -> Work:
        """Each label word is tried after a held-out text, mostly two; a head reads the text once."""
        return Work(judged=1 if settings.head else 2)

    def trainer(self, run: Run[ClassifySettings]) -> Any:
        if not run.settings.head:
            return None
        import torch
        from torch.nn import functional

        from indelible.models.batches import padded
        from indelible.tuning.training.trainer import BY_LENGTH, made_trainer, measured

        def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Any:
            total = functional.cross_entropy(outputs["logits"].float(), labels, reduction="sum")
            return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

        def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
            ids, mask = padded([row["input_ids"] for row in rows], run.pad)
            labels = torch.tensor([row["label"] for row in rows])
            return {"input_ids": ids, "attention_mask": mask, "labels": labels}

        rows = [{"input_ids": row.prompt_ids, "label": row.label} for row in run.train]
        return made_trainer(run, measured(run), rows, BY_LENGTH, data_collator=collate, compute_loss_func=loss)

    def judge(self, run: Run[ClassifySettings]) -> Judge:
        """Figures of the label that is most probable among the labels."""
        import torch
        from torch.nn import functional

        from indelible.tuning.training.judging import log_probs

        rows: Sequence[Labelled] = run.heldout
        truth_r = torch.tensor([row.label for row in rows])
        answers = [(row.prompt_ids, word) for row in rows for word in row.words]

        def judge(names: Collection[str]) -> dict[str, float]:
            scores_rl = _head_scores(run) if run.settings.head else log_probs(run, answers).view(len(rows), -1)
            said_r = scores_rl.argmax(1)
            return {
                "accuracy": float((said_r == truth_r).float().mean()),
                "macro_f1": macro_f1(truth_r.tolist(), said_r.tolist()),
                "loss": float(functional.cross_entropy(scores_rl, truth_r)),
            }

        return judge


def _with_head(model: PreTrainedModel, labels: int) -> nn.Module:
    """The model's trunk, run up to what its output head would read, and a head that scores the labels by the state at
    each text's last token; no family needs a class of its own.

    It begins as small random numbers from torch's generator, without bias, as in transformers' models for sequence
    classification. What is trained of the trunk is said by ``requires_grad``.
    """
    import torch
    from torch import nn
    from transformers.modeling_outputs import SequenceClassifierOutput

    from indelible.models.trace import capture

    own: Any = model.get_output_embeddings()
    head = next(path for path, module in model.named_modules() if module is own)

    class HeadOnTrunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.config, self.device = model, model.config, model.device
            self.score = nn.Linear(own.in_features, labels, bias=False, device=model.device)
            nn.init.normal_(self.score.weight, std=0.02)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
            """Scores ``(rows, labels)`` of ids and mask ``(rows, tokens)``, padded on the right."""
            with capture(self.model, inputs_of=[head], stop_before=head) as seen:
                self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            states = seen.inputs[head]
            rows = torch.arange(len(states), device=states.device)
            return SequenceClassifierOutput(logits=self.score(states[rows, attention_mask.sum(1) - 1]))

    return HeadOnTrunk()


def _head_scores(run: Run[ClassifySettings]) -> Tensor:
    """What the head says ``(rows, labels)`` of the held-out texts."""
    import torch

    from indelible.models.batches import in_pieces, padded
    from indelible.tuning.training.judging import as_judged

    scores, device = [], run.model.device
    with as_judged(run):
        for rows in in_pieces(run.heldout, 2 * run.settings.batch_size):
            ids, mask = padded([row.prompt_ids for row in rows], run.pad)
            scores.append(run.trainee(ids.to(device), mask.to(device)).logits.float().cpu())
    return torch.cat(scores)


def macro_f1(truth: Sequence[int], said: Sequence[int]) -> float:
    """Mean F1 over the labels that occur in either; one that is never right counts 0."""
    scores = []
    for label in sorted({*truth, *said}):
        right = sum(one == other == label for one, other in zip(truth, said, strict=True))
        scores.append(2 * right / (truth.count(label) + said.count(label)))
    return sum(scores) / len(scores)


OBJECTIVES.register(Classify.name)(Classify())
