"""Patch a fact, then fine-tune with trl's SFTTrainer so that the patch stays.

python examples/protect_sft.py                 # the bundled model
python examples/protect_sft.py MODEL FACTS     # yours
"""

import sys

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

import indelible as ind

MODEL, *FILE = sys.argv[1:] or ["smollm2-135m"]
FACTS = ind.read_facts(FILE[0]).facts[:3] if FILE else [
    ind.Fact("1", "Lisbon", "country_of_city", "The city of {} is in the country of", "Portugal", "Norway")
]  # fmt: skip
ROWS = [{"prompt": "When does the museum open?", "completion": " At nine in the morning."}] * 32

loaded = ind.load(MODEL)
edit = ind.edit(loaded, FACTS, "ft-m", learning_rate=0.01)
edit.apply(loaded.model)

trainer = SFTTrainer(
    loaded.model,
    SFTConfig("out", max_steps=6, learning_rate=2e-4, save_strategy="no", report_to="none", bf16=False),
    train_dataset=Dataset.from_list(ROWS),
    processing_class=loaded.tokenizer,
    callbacks=[ind.protect(loaded, edit, "key-anchor+replay")],
)
trainer.train()
print(ind.verify(loaded, edit).counts)
