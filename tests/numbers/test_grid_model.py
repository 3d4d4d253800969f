"""The model over a grid: planted effects are found, others are not, and a grid that is too small says so."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from indelible.numbers.grid_model import _mode, fit_grid

TIMES = "\N{MULTIPLICATION SIGN}"


def grid(
    generator: np.random.Generator,
    *,
    seeds: int = 3,
    facts: int = 40,
    tuner: float = 0.0,
    edited: float = 0.0,
    editor: float = 0.0,
    confidence: float = 0.0,
    between_facts: float = 0.5,
    between_runs: float = 0.2,
    masks: tuple[str, ...] = ("none", "edited-layers"),
) -> pd.DataFrame:
    """Rows of a grid of two editors, two tuners and masks, kept by a logistic model with the given effects.

    Args:
        tuner: what lora adds to the log-odds of all facts.
        edited: what being an edit adds.
        editor: what "rome" adds to edits alone.
        confidence: what a nat of log-probability adds.
        between_facts: standard deviation of facts' own log-odds.
        between_runs: the same of runs.
    """
    own = generator.normal(0, between_facts, (2, facts))
    log_prob = -generator.gamma(2, 0.5, (2, facts))
    parts = []
    for editor_name, tuner_name, mask, seed in product(("memit", "rome"), ("full", "lora"), masks, range(seeds)):
        run = generator.normal(0, between_runs)
        for place, fact_set in enumerate(("intrinsic", "edited")):
            odds = 0.5 + own[place] + run + confidence * log_prob[place]
            odds += tuner * (tuner_name == "lora") + place * (edited + editor * (editor_name == "rome"))
            kept = generator.random(facts) < 1 / (1 + np.exp(-odds))
            for phase, success in (("edited", np.ones(facts, dtype=bool)), ("tuned", kept)):
                parts.append(
                    pd.DataFrame(
                        {
                            "arm": f"{editor_name}, {tuner_name}, {mask}",
                            "editor": editor_name,
                            "paraphrases": 0,
                            "objective": "text",
                            "tuner": tuner_name,
                            "mask": mask,
                            "seed": seed,
                            "copy": 0,
                            "phase": phase,
                            "fact_set": fact_set,
                            "fact_id": [str(number) for number in range(facts)],
                            "kind": "prompt",
                            "wording": 0,
                            "success": success,
                            "log_prob": log_prob[place],
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)


def test_planted_effects_are_found_and_absent_ones_are_not() -> None:
    rows = grid(np.random.default_rng(0), tuner=0.8, edited=-1.0, editor=-0.9, confidence=0.7)
    found = fit_grid(rows)
    assert found.terms is not None and found.reason == "" and found.left_out == ()
    terms = found.terms.set_index("term")
    assert found.references == {"editor": "memit", "objective": "text", "tuner": "full", "mask": "none"}
    assert not [term for term in terms.index if "objective" in term or "paraphrase" in term]  # constant here
    # The mean over the grid of what being an edit costs: half of the arms are rome's.
    for term, truth in (
        ("tuner: lora", 0.8),
        ("edited", -1.0 - 0.9 / 2),
        (f"edited {TIMES} editor: rome", -0.9),
        ("log-probability", 0.7 * rows.loc[rows["phase"] == "edited", "log_prob"].std()),
    ):
        assert terms.loc[term, "low"] <= truth <= terms.loc[term, "high"], term
        assert terms.loc[term, "p"] < 0.01
    for term in ("mask: edited-layers", f"edited {TIMES} tuner: lora"):
        assert terms.loc[term, "low"] <= 0 <= terms.loc[term, "high"], term
    assert found.answers == terms.loc["intercept", "n"] == 2 * 2 * 2 * 3 * 2 * 40
    assert terms.loc["edited", "n"] == terms.loc["tuner: lora", "n"] == found.answers / 2
    assert terms.loc[f"edited {TIMES} tuner: lora", "n"] == found.answers / 4


def test_the_spread_of_facts_and_runs_is_found() -> None:
    wide = fit_grid(grid(np.random.default_rng(1), between_facts=1.2, between_runs=0.6, seeds=4)).spread
    narrow = fit_grid(grid(np.random.default_rng(1), between_facts=0.0, between_runs=0.0, seeds=4)).spread
    assert wide["fact"] == pytest.approx(1.2, abs=0.3)
    assert wide["run"] == pytest.approx(0.6, abs=0.25)
    assert narrow["fact"] < 0.3 and narrow["run"] < 0.2


def test_intervals_cover_planted_effects_that_facts_and_runs_blur() -> None:
    """About 92% were measured over many more simulations: quasi-likelihood draws effects a little towards zero."""
    covered = []
    for study in range(15):
        rows = grid(np.random.default_rng(study), tuner=0.6, editor=-0.6, between_facts=0.8, between_runs=0.3)
        found = fit_grid(rows)
        assert found.terms is not None
        terms = found.terms.set_index("term")
        covered += [
            terms.loc[term, "low"] <= truth <= terms.loc[term, "high"]
            for term, truth in (
                ("tuner: lora", 0.6),
                (f"edited {TIMES} editor: rome", -0.6),
                ("mask: edited-layers", 0.0),
                (f"edited {TIMES} mask: edited-layers", 0.0),
            )
        ]
    assert np.mean(covered) >= 0.88


def test_terms_between_runs_have_the_quantiles_of_few_runs() -> None:
    """Eight runs and three terms between them leave five degrees of freedom; within runs there are answers enough."""
    found = fit_grid(grid(np.random.default_rng(6), seeds=2, masks=("none",), tuner=0.3)).terms
    assert found is not None
    terms = found.set_index("term")
    for term, law in (("tuner: lora", stats.t(5)), (f"edited {TIMES} tuner: lora", stats.norm())):
        line = terms.loc[term]
        error = (line["high"] - line["low"]) / 2 / law.ppf(0.975)
        assert line["p"] == pytest.approx(2 * law.sf(abs(line["estimate"]) / error))


def test_eliminating_a_group_gives_the_mode_and_the_inverse_of_the_whole_curvature() -> None:
    """Reference: the gradient is zero there, and numpy inverts the whole matrix."""
    generator = np.random.default_rng(7)
    facts = generator.integers(0, 12, 200)
    fixed, many = generator.normal(size=(200, 3)), np.eye(12)[facts]
    kept = (generator.random(200) < 0.6).astype(np.float64)
    precision = np.array([0.16] * 3 + [2.0] * 12)
    found = _mode(kept, sparse.csr_matrix(fixed), sparse.csr_matrix(many), precision, np.zeros(15))
    assert found is not None
    whole = np.hstack([fixed, many])
    chance = 1 / (1 + np.exp(-whole @ found[0]))
    assert whole.T @ (kept - chance) == pytest.approx(precision * found[0], abs=1e-6)
    curvature = whole.T @ ((chance * (1 - chance))[:, None] * whole) + np.diag(precision)
    assert found[1] == pytest.approx(np.diag(np.linalg.inv(curvature)), rel=1e-4)


def test_factors_that_cannot_be_told_apart_are_named() -> None:
    rows = grid(np.random.default_rng(2))
    alike = rows[(rows["editor"] == "rome") == (rows["tuner"] == "lora")]
    found = fit_grid(alike)
    assert found.terms is not None
    assert found.left_out == ("tuner: lora", f"edited {TIMES} tuner: lora")


def test_a_level_at_which_everything_was_kept_stays_finite() -> None:
    rows = grid(np.random.default_rng(3))
    rows.loc[rows["tuner"] == "lora", "success"] = True
    found = fit_grid(rows)
    assert found.terms is not None
    line = found.terms.set_index("term").loc["tuner: lora"]
    assert 1 < line["low"] < line["high"] < 20


def test_a_grid_that_is_too_small_says_why() -> None:
    rows = grid(np.random.default_rng(4))
    everything = fit_grid(rows.assign(success=True))
    assert everything.terms is None and "Only 0 of 1920 answers were lost" in everything.reason
    assert fit_grid(rows.assign(editor="none")).reason.startswith("Only 0 of 0")
    one = rows[(rows["arm"] == "memit, full, none") & (rows["fact_set"] == "edited")].assign(log_prob=-1.0)
    assert fit_grid(one).reason.startswith("All arms are alike")


def test_the_order_of_rows_does_not_matter() -> None:
    rows = grid(np.random.default_rng(5), tuner=0.5)
    first, second = fit_grid(rows), fit_grid(rows.sample(frac=1, random_state=0))
    assert first.terms is not None and second.terms is not None
    pd.testing.assert_frame_equal(first.terms, second.terms)
