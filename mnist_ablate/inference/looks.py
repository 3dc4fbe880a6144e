"""At which look a study stands that goes on until it is settled, and why it stops there or goes on.

All of this is a function of the study and of the runs of whole looks. When somebody asks, and what other runs are
stored by then, changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from mnist_ablate.design.study import Study
from mnist_ablate.inference.intervals import MedianSample, Sample
from mnist_ablate.inference.measured import cell_names, seed_table
from mnist_ablate.inference.sequential import Repeated, repeated
from mnist_ablate.inference.verdicts import decide, sample_of, share_of_alpha
from mnist_ablate.store.results import Results

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


def stand(results: Results) -> Standing:
    """Return where the study of `results` stands: at the first look where it stops, or at the last that is complete."""
    study = results.study
    n = _whole_seeds(results)
    complete = [look for look in study.looks if look <= n]
    if not complete:
        return Standing(study.looks[0], False, tuple(h.id for h in study.hypotheses), "")
    followed = _Followed(study.reaching(complete[-1]), lambda response: seed_table(results, response))
    standings = [followed.at(look) for look in range(len(complete))]
    return next((standing for standing in standings if standing.stop), standings[-1])


def at_look(results: Results) -> Results:
    """Return `results` with the runs of the look at which their study stands; the documents of later runs stay."""
    study = results.study
    if len(study.looks) == 1:
        return results
    seeds = stand(results).seeds
    epochs = results.epochs[results.epochs["seed"] < study.first_seed + seeds]
    return results if epochs.empty else replace(results, study=study.reaching(seeds), epochs=epochs)


def by_look(study: Study, table: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """Tabulate every hypothesis at every look so far.

    Parameters
    ----------
    study
        The study, with the seeds of its last look.
    table
        A function from a response to its values: a row per seed, a column per cell.

    Returns
    -------
    pandas.DataFrame
        A row per hypothesis and look: ``id``, ``seeds`` of the look, ``n`` (those that have all that the hypothesis
        needs), ``smallest`` (effect that matters), ``estimate``, ``low``, ``high`` and ``verdict``.
    """
    rows, alpha = [], share_of_alpha(study)
    for hypothesis in study.hypotheses:
        sample = sample_of(study, hypothesis, table(hypothesis.response))
        looks = len(sample.samples) if isinstance(sample, Repeated) else 1
        for k in range(looks):
            then, seeds = (sample.before(k + 1), study.looks[k]) if isinstance(sample, Repeated) else (sample, sample.n)
            low, high = then.interval(alpha)
            verdict = decide(then, hypothesis.kind, hypothesis.smallest, alpha)
            rows.append({"id": hypothesis.id, "seeds": seeds, "n": then.n, "smallest": hypothesis.smallest,
                         "estimate": then.mean, "low": low, "high": high, "verdict": verdict})  # fmt: skip
    return pd.DataFrame(rows)


def _whole_seeds(results: Results) -> int:
    """Return how many seeds have all their runs, from the first on without a gap."""
    study, runs = results.study, results.final["seed"].value_counts()
    cells = len(cell_names(study))
    n = 0
    while runs.get(study.first_seed + n, 0) >= cells:
        n += 1
    return n


@dataclass(frozen=True, eq=False)
class _Followed:
    """The hypotheses of a study, followed from look to look.

    Parameters
    ----------
    study
        The study, with the seeds of its last complete look.
    table
        A function from a response to its values: a row per seed, a column per cell.
    """

    study: Study
    table: Callable[[str], pd.DataFrame]

    @cached_property
    def samples(self) -> list[Sample]:
        """The sample of each hypothesis."""
        return [
            sample_of(self.study, hypothesis, self.table(hypothesis.response)) for hypothesis in self.study.hypotheses
        ]

    def at(self, look: int) -> Standing:
        """Return where the study stands at one of its complete looks, counted from 0."""
        study, seeds = self.study, self.study.looks[look]
        then = [s.before(look + 1) if isinstance(s, Repeated) else s for s in self.samples]
        left = [i for i, sample in enumerate(then) if self._is_open(i, sample)]
        stop: Stop = "" if left else "settled"
        if left and seeds == study.looks[-1]:
            stop = "most"
        elif left and all(self._chance(i, then[i]) < study.futility for i in left):
            stop = "futile"
        return Standing(seeds, True, tuple(study.hypotheses[i].id for i in left), stop)

    def _is_open(self, i: int, sample: Sample) -> bool:
        hypothesis = self.study.hypotheses[i]
        verdict = decide(sample, hypothesis.kind, hypothesis.smallest, share_of_alpha(self.study))
        return verdict in _OPEN[self.study.settle]

    def _chance(self, i: int, sample: Sample) -> float:
        """Return the predictive probability that a hypothesis will be settled with the most seeds."""
        assert isinstance(sample, Repeated)  # noqa: S101 # a study with one look has the most seeds there
        most = sample.looks[-1]
        ends = [repeated((*sample.samples, (most, end)), sample.looks) for end in _futures(sample, most)]
        return 1 - float(np.mean([self._is_open(i, end) for end in ends]))


def _futures(sample: Sample, most: int) -> Sequence[Sample]:
    """Return equally likely samples of `most` seeds that begin with `sample`.

    A mean goes where a Student's t distribution around the mean so far says, as without prior knowledge of mean and
    spread (Jennison and Turnbull 2000, chapter 10), and the spread stays. Of a median, the seeds to come are drawn
    from those so far, with weights that are drawn, too (Rubin 1981, "The Bayesian bootstrap").
    """
    if isinstance(sample, MedianSample):
        rng = np.random.default_rng(0)
        weights = rng.dirichlet(np.ones(sample.n), _DRAWS)
        counts = rng.multinomial(most - sample.n, weights)
        return [MedianSample.of(np.repeat(sample.values, 1 + more)) for more in counts]
    scores = stats.t.ppf((np.arange(_DRAWS) + 0.5) / _DRAWS, sample.n - 1)
    means = sample.mean + sample.sd * np.sqrt(1 / sample.n - 1 / most) * scores
    return [Sample(most, float(mean), sample.sd) for mean in means]
