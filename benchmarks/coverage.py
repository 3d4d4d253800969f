"""How often intervals cover the truth, of rates and of the extra loss at equal start, and how often verdicts are false.

A thousand simulated studies of each design (`tests/simulated.py`, `tests/simulated_counts.py`). Rates are of 24 edited
and 60 intrinsic facts a seed. For extra losses edits start 1.3 nats firmer, and what is firm loses more. Covered is
the 95% interval; a false verdict is "supported" where there is no effect, and "excluded" where the effect is the
smallest that counts. A study in which too little is held alike to compare has no answer.

    PYTHONPATH=tests python benchmarks/coverage.py --studies 1000
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from indelible.claims.claim import Claim
from indelible.claims.judge import decide
from indelible.numbers.measures import MEASURES
from indelible.numbers.replicates import Replicates
from simulated import simulate_losses
from simulated_counts import CONTRASTS, RETENTION, joint_of, simulate_counts

SMALL = {"n_edits": 24, "n_intrinsic": 60}
DESIGNS: dict[str, dict[str, Any]] = {
    "one seed": {},
    "one seed, 24 edits": SMALL,
    "long tails": {"skewed": True},
    "two seeds that agree": {"seeds": 2},
    "two seeds, spread 0.1": {"seeds": 2, "spread": 0.1},
    "three seeds that agree": {"seeds": 3},
    "three small seeds, spread 0.1": {"seeds": 3, "spread": 0.1, **SMALL},
    "three seeds, spread 0.2": {"seeds": 3, "spread": 0.2},
    "five seeds, spread 0.2": {"seeds": 5, "spread": 0.2},
    "three seeds, spread 0.5": {"seeds": 3, "spread": 0.5},
}
SMALLEST = 0.4
OF_RATES = [(1, 0.0), (2, 0.0), (3, 0.0), (2, 0.03), (3, 0.03), (5, 0.03), (3, 0.05), (3, 0.06)]
"""Seeds, and by how much each true rate varies between them."""
DRAWS = 400


def rates(studies: int) -> None:
    """Print a line per design."""
    print(f"{'rates':<32} " + "  ".join(CONTRASTS))
    for seeds, spread in OF_RATES:
        generator, covered = np.random.default_rng([seeds, int(spread * 100)]), dict.fromkeys(CONTRASTS, 0)
        for study in range(studies):
            counts = simulate_counts(RETENTION, seeds=seeds, spread=spread, generator=generator)
            joint = joint_of(counts, draws=DRAWS, seed=study)
            for name, (weights, truth) in CONTRASTS.items():
                found = joint.estimate(weights)
                covered[name] += found.low is not None and found.high is not None and found.low <= truth <= found.high
        shares = "  ".join(f"{hits / studies:>{len(name)}.1%}" for name, hits in covered.items())
        print(f"{f'seeds {seeds}, spread {spread}':<32} {shares}", flush=True)


def losses(studies: int) -> None:
    """Print a line per design."""
    measure = MEASURES.get("excess_loss")
    claim = Claim(name="lose-more", sentence="Edits lose more.", estimate="excess_loss", smallest=SMALLEST)
    print(f"{'design':<32} covered  false support  false exclusion  no answer")
    for name, design in DESIGNS.items():
        silent, covered, false = 0, list[bool](), {0.0: list[bool](), SMALLEST: list[bool]()}
        for effect in false:
            generator = np.random.default_rng(int(effect * 10))
            for study in range(studies):
                table, truth = simulate_losses(effect=effect, generator=generator, **design)
                joint = Replicates(lambda _: {}, lambda made=table: {"memit": made}, draws=DRAWS, seed=study)  # type: ignore[misc]
                found = joint.of("memit", measure)
                if found.low is None or found.high is None:  # too few edits and intrinsic facts are held alike
                    silent += 1
                    continue
                covered.append(found.low <= truth <= found.high)
                false[effect].append(decide(found, claim) == ("excluded" if effect else "supported"))
        wrong = [np.mean(verdicts) for verdicts in false.values()]
        print(f"{name:<32} {np.mean(covered):7.1%}  {wrong[0]:13.1%}  {wrong[1]:15.1%}  {silent:9}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    chosen = parser.parse_args()
    rates(chosen.studies)
    losses(chosen.studies)
