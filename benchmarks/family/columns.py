"""The columns of the table of families: what is done with a model, and held against the plain reading of it.

A column raises ``Off`` where a value is off; errors of indelible pass through, and count as a refusal if the model is
then as it was. What it returns, in a few words, is for the reader.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from family.edits import ft_m, memit, rome
from family.exam import exam
from family.layout import layout
from family.tuning import full, grpo, lora

Column = Callable[[Any, Any], str]

COLUMNS: dict[str, Column] = {
    "exam": exam,
    "layout": layout,
    "memit": memit,
    "rome": rome,
    "ft-m": ft_m,
    "lora": lora,
    "full": full,
    "grpo": grpo,
}
