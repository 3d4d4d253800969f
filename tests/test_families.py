"""One family of each kind through every column of benchmarks/families.py.

The columns hold what indelible does against plain whole passes (benchmarks/family/). The table of all families, in
docs/families.md, is made by the benchmark itself.
"""

from __future__ import annotations

import pytest

from families import judged
from family.columns import COLUMNS

KINDS = {
    "gpt2": "dense",
    "qwen3_moe": "experts",
    "bamba": "hybrid",
    "mamba": "recurrent",
    "gemma3_text": "sliding windows",
    "gemma3": "a text model inside, the one above",
}
EDITS = ("layout", "memit", "rome", "ft-m")
REFUSED = {"qwen3_moe": EDITS, "mamba": EDITS}
"""No one linear map is the memory of their blocks."""


CELLS = [
    (name, column) for name in KINDS for column in COLUMNS if name != "gemma3" or column in ("exam", "rome", "lora")
]


@pytest.mark.filterwarnings("ignore:.*does not answer as in plain passes:UserWarning")
@pytest.mark.parametrize(("name", "column"), CELLS)
def test_a_family_of_each_kind_is_right_or_refused(name: str, column: str) -> None:
    cell = judged(name, column)
    assert cell["state"] == ("refused" if column in REFUSED.get(name, ()) else "right"), cell["note"]
