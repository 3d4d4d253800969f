"""Do edits survive fine-tuning? The whole idea in one file, without the machinery of studies:
edit facts, ask, fine-tune on something else, ask again, and compare with what the model knew of old.

python examples/whole_idea.py                 # the bundled model and built-in facts
python examples/whole_idea.py MODEL FACTS     # yours: facts with a new_object are edited, others only asked
"""

import random
import sys

import numpy as np
import pandas as pd

import indelible as ind
from indelible.facts.world import world_facts

MODEL, *FILE = sys.argv[1:] or ["smollm2-135m"]
EDITS, INTRINSIC = 12, 40


def known(loaded: ind.LoadedModel, facts: list[ind.Fact], enough: int) -> list[ind.Fact]:
    """The first facts that the model answers by itself: an answer has to begin with the whole object."""
    found: list[ind.Fact] = []
    for start in range(0, len(facts), 64):
        asked = [ind.Fact(one.id, one.subject, one.relation, one.prompt, one.true_object) for one in facts[start:][:64]]
        answers = ind.ask(loaded, asked).set_index("fact_id")["success"]
        found += [one for one in facts[start:][:64] if answers[one.id]]
        if len(found) >= enough:
            break
    return found[:enough]


def choose(loaded: ind.LoadedModel) -> tuple[list[ind.Fact], list[ind.Fact]]:
    """Facts to edit, each with its new object, and facts only to ask, about other subjects."""
    if FILE:
        facts = list(ind.read_facts(FILE[0]))
        edited = [fact for fact in facts if fact.new_object is not None]
        intrinsic = known(loaded, [fact for fact in facts if fact.new_object is None], INTRINSIC)
        return edited, intrinsic
    world = random.Random(0).sample(world_facts(), 600)
    edited = known(loaded, [fact for fact in world if fact.relation == "capital"], EDITS)
    names = {name for fact in edited for name in (fact.subject, fact.true_object, fact.new_object)}
    others = [fact for fact in world if not names & {fact.subject, fact.true_object}]
    asked = [ind.Fact(one.id, one.subject, one.relation, one.prompt, one.true_object) for one in others]
    return edited, known(loaded, asked, INTRINSIC)


def exam(loaded: ind.LoadedModel, edited: list[ind.Fact], intrinsic: list[ind.Fact], phase: str) -> pd.DataFrame:
    """Every fact asked in its own prompt: an edited one for its new object, an intrinsic one for the true one."""
    answers = ind.ask(loaded, [*edited, *intrinsic])
    return answers[answers["kind"] == "prompt"].assign(phase=phase)


def retention(rows: pd.DataFrame, fact_set: str) -> tuple[float, float, float, int]:
    """Of the facts that were right before tuning, the share that still is; with a 95% interval over facts."""
    table = rows[rows["fact_set"] == fact_set].pivot(index="fact_id", columns="phase", values="success")
    kept = table.loc[table["edited"].astype(bool), "tuned"].to_numpy(float)
    if not len(kept):
        return float("nan"), float("nan"), float("nan"), 0
    draws = np.random.default_rng(0).choice(kept, (2000, len(kept))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(kept.mean()), float(low), float(high), len(kept)


loaded = ind.load(MODEL)
edited, intrinsic = choose(loaded)
print(f"{len(edited)} facts to edit, such as {edited[0]}; {len(intrinsic)} intrinsic facts")

rows = [exam(loaded, edited, intrinsic, "base")]

edit = ind.edit(loaded, edited, "memit")  # a value of its own: the model is left as it was
edit.apply(loaded.model)
rows.append(exam(loaded, edited, intrinsic, "edited"))

# no training text may speak of a fact
result = ind.fine_tune(
    loaded, objective="reason", steps=16, batch_size=4, learning_rate=2e-4, facts=[*edited, *intrinsic]
)
print(result)
rows.append(exam(loaded, edited, intrinsic, "tuned"))

answers = pd.concat(rows, ignore_index=True)
print(answers.groupby(["fact_set", "phase"])["success"].mean().unstack()[["base", "edited", "tuned"]].round(2))
for fact_set in ("edited", "intrinsic"):
    share, low, high, count = retention(answers, fact_set)
    print(f"{fact_set}: {share:.0%} of {count} are kept [{low:.0%}, {high:.0%}]")
print(ind.verify(loaded, edit))
