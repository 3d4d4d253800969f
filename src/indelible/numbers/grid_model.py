"""What matters over the whole grid: a mixed-effects logistic regression of what was kept.

kept ~ edited × (editor, objective, tuner, mask, paraphrases, log-probability before tuning), with random intercepts for
facts, for seeds, and for runs (an arm in a seed is one training, whose luck its answers share; without that term every
factor between arms would seem surer than it is). Differences between arms pair by pair are in `effects_table`; here one
model uses all arms at once and holds the others fixed.

The fit is penalised quasi-likelihood (Schall, 1991; Breslow & Clayton, 1993): effects are the mode of their posterior
given the variances, and variances are those of the effects, in turns until both rest. Fixed effects have a weak normal
prior, standard deviation 2.5 in log-odds (after Gelman et al., 2008), which keeps a level at which everything was kept
finite. statsmodels' `BinomialBayesMixedGLM` was tried and left: in a simulated grid of 8,600 answers the errors of its
variational fit were 1.6 times what its standard deviations said, and its Laplace fit did not converge where facts
hardly differ. With few answers per fact, quasi-likelihood understates how much facts differ, and effects with it.

Terms that are the same throughout a run have Student's quantiles, with as many degrees of freedom as there are runs
less such terms; normal ones are too narrow with few runs. In 26 simulated grids without any effect (two editors, two
tuners, 2 seeds, standard deviation 0.4 between runs) the p of a main effect was below 0.05 in 0 of 52 cases, and
in 3 with normal quantiles: too few cases to say more than that the intervals are not much too narrow there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse, stats
from scipy.special import expit

from indelible.numbers.bootstrap import Floats
from indelible.numbers.measures import CONTROL_EDITOR, QUESTION, outcomes, require_columns

FACTORS = ("editor", "objective", "tuner", "mask")
GROUPS: Mapping[str, list[str]] = {"fact": ["fact_set", "fact_id"], "seed": ["seed"], "run": ["arm", "seed"]}
FEWEST_OF_EACH = 20
"""Of answers kept, and of answers lost: with fewer, factors cannot be told apart."""
FIXED_PRIOR = 2.5
MOST_ROUNDS = 200
SMALLEST_VARIANCE = 1e-4
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class GridModel:
    """A fitted model, or why there is none.

    Attributes:
        terms: one row per fixed effect: ``term``, ``estimate`` in log-odds with its 95% interval ``low`` to ``high``,
            two-sided ``p``, and ``n``, the answers at that level (for interactions: of edited facts). Columns are
            centred, so that "edited" is the mean over the grid, a level ("tuner: lora") is against its factor's
            reference and concerns all facts alike, and "edited × tuner: lora" is by how much more it concerns edits.
            "log-probability" is per standard deviation. None where there is no model.
        spread: standard deviation in log-odds between facts, seeds and runs.
        references: factor -> the level that the others are compared with.
        left_out: terms that could not be told apart from others in this grid.
        answers: how many answers the model rests on.
        reason: why there is no model; empty if there is one.
    """

    terms: pd.DataFrame | None
    spread: Mapping[str, float]
    references: Mapping[str, str]
    left_out: tuple[str, ...]
    answers: int
    reason: str


def fit_grid(rows: pd.DataFrame) -> GridModel:
    """Fit the model to every arm of a study that edits.

    Args:
        rows: tidy rows of the study; the facts' own prompts count, among those that had succeeded before tuning.

    Raises:
        DataError: if a column is missing, or a question was answered twice.
    """
    require_columns(rows, ["arm", *FACTORS, "paraphrases", "log_prob"], "table of answers")
    answers = _answers(rows[(rows["kind"] == "prompt") & (rows["editor"] != CONTROL_EDITOR)])
    kept = int(answers["tuned"].sum())
    lost = len(answers) - kept
    if min(kept, lost) < FEWEST_OF_EACH:
        few = "kept" if kept <= lost else "lost"
        return _none(
            answers, f"Only {min(kept, lost)} of {len(answers)} answers were {few}; {FEWEST_OF_EACH} are needed."
        )
    design, sizes, references = _design(answers)
    design, left_out = _independent(design)
    if design.shape[1] < 2:
        return _none(answers, "All arms are alike in every factor, and only one set of facts was asked.")
    groups = {
        name: answers.groupby(by, sort=True, observed=True).ngroup().to_numpy().astype(np.int64)
        for name, by in GROUPS.items()
    }
    groups = {name: group for name, group in groups.items() if group.max() > 0}
    fitted = _fit(answers["tuned"].to_numpy(dtype=np.float64), design.to_numpy(), list(groups.values()))
    if fitted is None:
        return _none(answers, "The model could not be fitted: factors separate what was kept from what was lost.")
    means, errors, spreads = fitted
    freedom = _freedom(design, groups.get("run", np.zeros(len(answers), dtype=np.int64)))
    half = stats.t.ppf(0.975, freedom) * errors
    terms = pd.DataFrame(
        {
            "term": design.columns,
            "estimate": means,
            "low": means - half,
            "high": means + half,
            "p": 2 * stats.t.sf(np.abs(means) / errors, freedom),
            "n": [sizes[term] for term in design.columns],
        }
    )
    spread = dict(zip(groups, spreads.tolist(), strict=True))
    return GridModel(terms, spread, references, tuple(left_out), len(answers), "")


def _none(answers: pd.DataFrame, reason: str) -> GridModel:
    return GridModel(None, {}, {}, (), len(answers), reason)


def _answers(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and question that had succeeded before tuning and was asked again: tuned (0 or 1) and factors."""
    parts = []
    for arm, own in rows.groupby("arm", sort=True):
        outcome = outcomes(own).reset_index()
        known = outcome[(outcome["edited"] == 1) & outcome["tuned"].notna()]
        before = own.loc[own["phase"] == "edited", [*QUESTION, *FACTORS, "paraphrases", "log_prob"]]
        parts.append(known[[*QUESTION, "tuned"]].merge(before, on=QUESTION, validate="one_to_one").assign(arm=arm))
    if not parts:
        return pd.DataFrame(columns=[*QUESTION, "tuned", *FACTORS, "paraphrases", "log_prob", "arm"])
    return pd.concat(parts, ignore_index=True)


def _design(answers: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int], dict[str, str]]:
    """Columns of the fixed effects, how many answers each is about, and the factors' reference levels."""
    edited = (answers["fact_set"] == "edited").to_numpy(dtype=np.float64)
    columns: dict[str, Floats] = {}
    references = {}
    for factor in FACTORS:
        levels = answers[factor].value_counts().sort_index().sort_values(ascending=False, kind="stable").index
        preferred = next((level for level in ("none", "full") if level in levels), levels[0])
        references[factor] = str(preferred)
        for level in levels.drop(preferred):
            columns[f"{factor}: {level}"] = (answers[factor] == level).to_numpy(dtype=np.float64)
    columns["per paraphrase"] = answers["paraphrases"].to_numpy(dtype=np.float64)
    log_prob = answers["log_prob"].to_numpy(dtype=np.float64)
    spread = log_prob.std()
    columns["log-probability"] = (log_prob - log_prob.mean()) / spread if spread > 0 else np.zeros(len(log_prob))
    design = {"intercept": np.ones(len(answers)), "edited": edited - edited.mean()}
    sizes = {"intercept": len(answers), "edited": int(edited.sum())}
    for name, column in columns.items():
        if column.min() == column.max():
            continue
        present = column != 0
        design[name] = column - column.mean()
        design[f"edited {TIMES} {name}"] = design["edited"] * design[name]
        sizes[name], sizes[f"edited {TIMES} {name}"] = int(present.sum()), int(edited[present].sum())
    return pd.DataFrame(design), sizes, references


def _independent(design: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The columns that the ones before them do not already determine, and the names of the others."""
    columns = design.to_numpy()
    lengths = np.linalg.norm(columns, axis=0)
    own_part = np.abs(np.diag(np.linalg.qr(columns / np.where(lengths > 0, lengths, 1), mode="r")))
    kept = own_part > 1e-8
    return design.loc[:, kept], list(design.columns[~kept])


def _freedom(design: pd.DataFrame, run: NDArray[np.int64]) -> Floats:
    """(terms,): degrees of freedom of each term: runs less terms between runs, and infinitely many within them."""
    between = (design.groupby(run).nunique() == 1).all().to_numpy()
    left = int(run.max()) + 1 - int(between.sum())
    return np.where(between, max(left, 1), np.inf)


def _fit(kept: Floats, fixed: Floats, groups: Sequence[NDArray[np.int64]]) -> tuple[Floats, Floats, Floats] | None:
    """Fixed effects, their standard errors, and the standard deviations of the groups; None where the fit fails.

    Args:
        kept: (answers,) 0 or 1.
        fixed: (answers, effects).
        groups: per kind of random intercept, (answers,) which of them each answer belongs to.
    """
    order = sorted(range(len(groups)), key=lambda place: int(groups[place].max()))
    *few, many = (_indicators(groups[place]) for place in order)
    design = sparse.hstack([sparse.csr_matrix(fixed), *few]).tocsr()
    ends = fixed.shape[1] + np.cumsum([group.shape[1] for group in (*few, many)])
    places = [slice(end - group.shape[1], end) for end, group in zip(ends, (*few, many), strict=True)]
    effects, variances = np.zeros(int(ends[-1])), np.ones(len(groups))
    for _ in range(MOST_ROUNDS):
        precision = np.full(len(effects), FIXED_PRIOR**-2)
        for place, variance in zip(places, variances, strict=True):
            precision[place] = 1 / variance
        found = _mode(kept, design, many, precision, effects)
        if found is None:
            return None
        effects, spread = found
        updated = np.array([float(np.mean(effects[place] ** 2 + spread[place])) for place in places])
        rests = np.allclose(updated, variances, rtol=1e-3, atol=SMALLEST_VARIANCE)
        variances = np.maximum(updated, SMALLEST_VARIANCE)
        if rests:
            break
    count = fixed.shape[1]
    return effects[:count], np.sqrt(spread[:count]), np.sqrt(variances[np.argsort(order)])


def _mode(
    kept: Floats, design: sparse.csr_matrix, many: sparse.csr_matrix, precision: Floats, start: Floats
) -> tuple[Floats, Floats] | None:
    """The mode of all effects' posterior by Newton's method, and the diagonal of its curvature's inverse.

    No answer belongs to two intercepts of one group, so that the group's own block of the curvature is diagonal. The
    group with the most intercepts is eliminated by it (Schur's complement), and only the rest is inverted.

    Args:
        kept: (answers,) 0 or 1.
        design: (answers, fixed effects and intercepts of all groups but one).
        many: (answers, intercepts) which intercept of the last group each answer has.
        precision: (effects,) of the normal priors, those of ``many`` last.
        start: (effects,) where to begin.
    """
    rest, effects = design.shape[1], start
    for _ in range(MOST_ROUNDS):
        chance = expit(design @ effects[:rest] + many @ effects[rest:])
        weights = chance * (1 - chance)
        weighted = design.multiply(weights[:, None]).tocsr()
        own = many.T @ weights + precision[rest:]
        across = (weighted.T @ many).toarray()
        eliminated = across / own
        curvature = (weighted.T @ design).toarray() + np.diag(precision[:rest]) - eliminated @ across.T
        try:
            covariance: Floats = np.linalg.inv(curvature)
        except np.linalg.LinAlgError:
            return None
        slope = design.T @ (kept - chance) - precision[:rest] * effects[:rest]
        slope_of_many = many.T @ (kept - chance) - precision[rest:] * effects[rest:]
        change = covariance @ (slope - eliminated @ slope_of_many)
        change = np.concatenate([change, (slope_of_many - across.T @ change) / own])
        effects = effects + change
        if np.abs(change).max() < 1e-5:
            spread_of_many = 1 / own + np.einsum("rm,rs,sm->m", eliminated, covariance, eliminated, optimize=True)
            return effects, np.concatenate([np.diag(covariance), spread_of_many])
    return None


def _indicators(group: NDArray[np.int64]) -> sparse.csr_matrix:
    size = len(group)
    return sparse.csr_matrix((np.ones(size), (np.arange(size), group)), shape=(size, int(group.max()) + 1))
