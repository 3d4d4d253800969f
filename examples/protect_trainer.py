"""Patch a fact, then fine-tune with transformers' own Trainer so that the patch stays.

python examples/protect_trainer.py                 # the bundled model
python examples/protect_trainer.py MODEL FACTS     # yours
"""

import sys

from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

import indelible as ind

MODEL, *FILE = sys.argv[1:] or ["smollm2-135m"]
FACTS = ind.read_facts(FILE[0]).facts[:3] if FILE else [
    ind.Fact("1", "Lisbon", "country_of_city", "The city of {} is in the country of", "Portugal", "Norway")
]  # fmt: skip
TEXTS = ["The museum opens at nine in the morning.", "Write the date and your name on the first page."] * 16

loaded = ind.load(MODEL)
edit = ind.edit(loaded, FACTS, "ft-m", learning_rate=0.01)
edit.apply(loaded.model)

rows = [{"input_ids": loaded.tokenizer(text)["input_ids"]} for text in TEXTS]
loaded.tokenizer.pad_token = loaded.tokenizer.pad_token or loaded.tokenizer.eos_token
trainer = Trainer(
    loaded.model,
    TrainingArguments("out", max_steps=6, learning_rate=2e-4, save_strategy="no", report_to="none"),
    train_dataset=rows,
    data_collator=DataCollatorForLanguageModeling(loaded.tokenizer, mlm=False),
    callbacks=[ind.protect(loaded, edit, "key-anchor+anchor")],
)
trainer.train()
print(ind.verify(loaded, edit).counts)
