"""At which look a study stands that goes on until it is settled, and why it stops there or goes on.

All of this is a function of the study and of the runs of whole looks. When somebody asks, and what other runs are
stored by then, changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from mnist_ablate.design.design import Design
from mnist_ablate.inference.intervals import MedianSample, Sample
from mnist_ablate.inference.sequential import Repeated, repeated
from mnist_ablate.inference.verdicts import Measured, Verdict, decide, looked_at, share_of_alpha

Stop = Literal["settled", "most", "futile", ""]
_DRAWS = 100
"""Of the future of a sample: a probability of 0.10 is then told from 0.09 and 0.11."""
_OPEN = {"sign": {"inconclusive", "inconsistent", "no verdict"}}
_OPEN["size"] = _OPEN["sign"] | {"supported, size open"}


@dataclass(frozen=True)
class Standing:
    """Where a study stands.

    Parameters
    ----------
    seeds
        The number of seeds of the look.
    complete
        Whether the look has all its runs; only the first may lack some.
    open
        The ids of the hypotheses that are not settled.
    stop
        Why the study stops: all hypotheses are settled, it has the most seeds, or it is futile to go on; empty if it
        goes on.
    """

    seeds: int
    complete: bool
    open: tuple[str, ...]
    stop: Stop

    def __str__(self) -> str:
        look = f"{self.seeds} seeds{'' if self.complete else ', some runs missing'}"
        left = f"{', '.join(self.open)} not settled" if self.open else "all settled"
        then = {"most": "; there will be no more seeds", "futile": "; more seeds are unlikely to settle it"}
        return f"{look}: {left}{then.get(self.stop, '' if self.stop else '; goes on')}"


def stand(study: Design, measured: Measured) -> Standing:
    """Return where `study` stands: at the first look where it stops, or at the last that is complete."""
    n = _whole_seeds(study, measured.ran)
    complete = [look for look in study.looks if look <= n]
    if not complete:
        return Standing(study.looks[0], False, tuple(h.id for h in study.hypotheses), "")
    followed = _Followed.of(study.reaching(complete[-1]), measured)
    standings = [followed.at(look) for look in range(len(complete))]
    return next((standing for standing in standings if standing.stop), standings[-1])


def by_look(study: Design, measured: Measured) -> pd.DataFrame:
    """Tabulate every hypothesis at every look so far.

    Parameters
    ----------
    study
        The study, with the seeds of its last look.
    measured
        What was measured.

    Returns
    -------
    pandas.DataFrame
        A row per hypothesis and look: ``id``, ``seeds`` of the look, ``n`` (those that have all that the hypothesis
        needs), ``smallest`` (effect that matters), ``estimate``, ``low``, ``high`` and ``verdict``.
    """
    followed, rows = _Followed.of(study, measured), []
    for i, hypothesis in enumerate(study.hypotheses):
        for look, seeds in enumerate(n for n in study.looks if n <= study.n_seeds):
            then = followed.sample(i, look)
            low, high = then.interval(share_of_alpha(study))
            rows.append({"id": hypothesis.id, "seeds": seeds, "n": then.n, "smallest": hypothesis.smallest,
                         "estimate": then.mean, "low": low, "high": high,
                         "verdict": followed.verdict(i, look, then)})  # fmt: skip
    return pd.DataFrame(rows)


def _whole_seeds(study: Design, ran: pd.DataFrame) -> int:
    """Return how many seeds have all their runs, from the first on without a gap."""
    whole, n = set(ran.index[ran.all(axis=1)]), 0
    while study.first_seed + n in whole:
        n += 1
    return n


@dataclass(frozen=True, eq=False)
class _Followed:
    """The hypotheses of a study, followed from look to look; hypotheses and looks are counted from 0.

    Parameters
    ----------
    study
        The study, with the seeds of its last look.
    evidence
        What decides on each hypothesis, see `looked_at`.
    """

    study: Design
    evidence: Sequence[tuple[Sample, list[str]]]

    @classmethod
    def of(cls, study: Design, measured: Measured) -> "_Followed":
        """Follow what was measured."""
        return cls(study, [looked_at(study, hypothesis, measured) for hypothesis in study.hypotheses])

    def sample(self, i: int, look: int) -> Sample:
        """Return the effects of the seeds of a look, with those of the looks before."""
        sample, _ = self.evidence[i]
        return sample.before(look + 1) if isinstance(sample, Repeated) else sample

    def verdict(self, i: int, look: int, sample: Sample) -> Verdict:
        """Return the verdict on a hypothesis that `sample` gives, if what it lacked at a look is lacking still."""
        hypothesis, (_, lacking) = self.study.hypotheses[i], self.evidence[i]
        found = decide(sample, hypothesis.kind, hypothesis.smallest, share_of_alpha(self.study))
        return "no verdict" if lacking[look] else found

    def at(self, look: int) -> Standing:
        """Return where the study stands at one of its complete looks."""
        study, seeds = self.study, self.study.looks[look]
        left = [i for i in range(len(study.hypotheses)) if self._is_open(i, look, self.sample(i, look))]
        stop: Stop = "" if left else "settled"
        if left and seeds == study.looks[-1]:
            stop = "most"
        elif left and all(self._chance(i, look) < study.futility for i in left):
            stop = "futile"
        return Standing(seeds, True, tuple(study.hypotheses[i].id for i in left), stop)

    def _is_open(self, i: int, look: int, sample: Sample) -> bool:
        return self.verdict(i, look, sample) in _OPEN[self.study.settle]

    def _chance(self, i: int, look: int) -> float:
        """Return the predictive probability that a hypothesis will be settled with the most seeds."""
        sample = self.sample(i, look)
        assert isinstance(sample, Repeated)  # noqa: S101 # a study with one look has the most seeds there
        if not sample.spreads:
            return 0.0
        most = sample.looks[-1]
        ends = [repeated((*sample.samples, (most, end)), sample.looks) for end in _futures(sample.samples[-1][1], most)]
        return float(np.mean([not self._is_open(i, look, end) for end in ends]))


def _futures(sample: Sample, most: int) -> Sequence[Sample]:
    """Return equally likely samples of `most` seeds that begin with `sample`.

    A mean goes where a Student's t distribution around the mean so far says, as without prior knowledge of mean and
    spread (Jennison and Turnbull 2000, chapter 10). The spread stays, and so do the test images. Of a median, the seeds
    to come are drawn from those so far, with weights that are drawn, too (Rubin 1981, "The Bayesian bootstrap").
    """
    if isinstance(sample, MedianSample):
        rng = np.random.default_rng(0)
        weights = rng.dirichlet(np.ones(sample.n), _DRAWS)
        counts = rng.multinomial(most - sample.n, weights)
        return [MedianSample.of(np.repeat(sample.values, 1 + more)) for more in counts]
    scores = stats.t.ppf((np.arange(_DRAWS) + 0.5) / _DRAWS, sample.n - 1)
    means = sample.mean + sample.sd * np.sqrt(1 / sample.n - 1 / most) * scores
    return [sample.later(most, float(mean)) for mean in means]
