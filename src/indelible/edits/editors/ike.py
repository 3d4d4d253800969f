"""IKE: in-context knowledge editing, facts stated before every prompt (Zheng et al. 2023, arXiv 2305.12740)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import ClassVar

from pydantic import Field

from indelible.edits.beside.context import Context, ContextManifest
from indelible.edits.editor import EDITORS, Editor, Workbench
from indelible.edits.solving.texts import rows_for
from indelible.errors import EditError
from indelible.facts.fact import Fact
from indelible.facts.joining import joined
from indelible.facts.wordings import editing_wordings
from indelible.models.batches import most_tokens
from indelible.models.tokens import encode_prompt


@EDITORS.register("ike")
class InContext(Editor):
    """Facts stated in the context.

    Every fact stands there as a statement, its prompt with the new object, several times over: a small model trusts
    what it has learned more than what it reads once, and copies what is repeated. With paraphrases, statements in
    further wordings come first. Bystanders with their true objects can stand before all of them. Facts of an earlier
    context (``earlier``) stay in it: what is returned holds both and takes its place.

    The paper puts one new fact before each prompt, behind 32 demonstrations that a retriever finds for it among facts
    of a training set: some copy a new fact, some update another wording of it, some retain a neighbour. Here one
    context serves every text; statements, further wordings and bystanders are its copies, updates and retains.

    The defaults were measured on SmolLM2-135M, where bystanders cost successes and saved no neighbour, and the paper's
    "New fact: ... Prompt: ..." did less than the same statements without it.
    """

    name: ClassVar[str] = "ike"
    copies: int = Field(default=3, gt=0, description="How often each fact is stated in its own wording.")
    retain: int = Field(default=0, ge=0, description="Bystanders stated with their true objects, at most.")

    def make(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> Context:
        earlier = bench.earlier if isinstance(bench.earlier, Context) else None
        statements = {} if earlier is None else dict(earlier.manifest.statements)
        for fact in facts:
            rows_for(bench.tokenizer, fact, paraphrases, ())  # refuses what cannot be edited
            wordings = [*editing_wordings(fact, paraphrases), *[fact.prompt] * self.copies]
            statements.pop(fact.id, None)  # one that is edited again comes last
            statements[fact.id] = tuple(_statement(fact.text(wording), fact.new_object or "") for wording in wordings)
        retained = [_statement(fact.text(), fact.true_object) for fact in bench.bystanders[: self.retain]]
        # All facts in one wording, then all in the next: what is copied is not what has just been read.
        rounds = [line for lines in zip_longest(*statements.values()) for line in lines if line is not None]
        text = "".join(f"{line}\n" for line in (*retained, *rounds))
        tokens, longest = len(encode_prompt(bench.tokenizer, text)), most_tokens(bench.model)
        if tokens >= longest:
            raise EditError(
                f"The context of {len(statements)} facts takes {tokens} tokens; the model takes {longest} in all, the"
                " prompt's included.",
                "Edit fewer facts, with fewer copies and paraphrases, or retain fewer bystanders.",
            )
        said = {"statements": statements, "context": text}
        manifest = self.manifest(bench, facts, paraphrases, ContextManifest, (), **said)
        return Context(manifest if earlier is None else manifest.continuing(earlier.manifest))


def _statement(prompt: str, answer: str) -> str:
    return f"{joined(prompt, answer)}."
