"""The one value between runs and what is shown of them.

`Analysis` takes the runs of a study in at one door. Tables, pictures, sentences and pages ask it, and nothing below it.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from mnist_ablate.data import class_names
from mnist_ablate.design.contrasts import Contrast, Factor, Hypothesis
from mnist_ablate.design.design import Design
from mnist_ablate.design.responses import PROBES, Response
from mnist_ablate.design.study import Study
from mnist_ablate.inference import effects, levels, looks, measured, power, regression, samples, test_images, verdicts
from mnist_ablate.inference.declared import Declarations, declarations
from mnist_ablate.inference.effects import Effect
from mnist_ablate.inference.intervals import FloatArray, Sample, Unit
from mnist_ablate.inference.regression import Searched
from mnist_ablate.inference.verdicts import Judgement
from mnist_ablate.store.folder import CellSeed
from mnist_ablate.store.results import Results, Runs

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Analysis:
    """What the runs of a study say. Each part is computed at its first use and kept.

    Where no response is named, it is the main one of the study: of ours, test accuracy.

    Parameters
    ----------
    results
        What `mnist_ablate.load` returns, or other runs.
    """

    results: Runs
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def keep(self, what: Any, make: Callable[[], T]) -> T:
        """Return what `make` returns, called at the first use of the name `what` alone; do not change it."""
        if what not in self._kept:
            self._kept[what] = make()
        kept: T = self._kept[what]
        return kept

    # ---- The design ----

    @property
    def study(self) -> Design:
        """The study that was run."""
        return self.results.study

    @property
    def trained(self) -> Results | None:
        """The runs, if this program trained them: only of these are protocol, losses and answers known."""
        return self.results if isinstance(self.results, Results) else None

    @property
    def ours(self) -> Study | None:
        """The study, if this program trained its runs by its own protocol, and not by a training of the user's."""
        return self.trained.study if self.trained and not self.trained.study.trains_itself else None

    @property
    def dataset(self) -> str:
        """The data set that our runs were tested on."""
        assert self.ours is not None  # noqa: S101 # whoever asks has its answers
        return self.ours.protocol.dataset

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels of the test images mean."""
        mistakes, labels = self.results.mistakes, self.results.labels
        seen = [0, *([] if labels is None else labels), *([] if mistakes is None else mistakes["prediction"])]
        return class_names(self.dataset, 1 + int(max(seen)))

    @property
    def metric(self) -> str:
        """The main response."""
        return self.study.metric

    def response(self, name: str | None = None) -> Response:
        """Return what a response is, and how it is shown."""
        return self.study.responses[name or self.metric]

    @cached_property
    def cell_names(self) -> list[str]:
        """The cells, in the order of the design."""
        return self.study.cell_names

    @cached_property
    def reference(self) -> str:
        """The cell that the others are compared with."""
        return self.study.reference_cell

    @cached_property
    def paired(self) -> bool:
        """Whether the cells are compared within seeds."""
        return self.study.pairing == "construction" or samples.is_paired(self.study, self.cell_names, self.ran)

    @property
    def unit(self) -> Unit:
        """What the study has a number of. A contrast of some cells may differ, see `Sample.unit`."""
        return "run" if self.study.searched else "seed" if self.paired else "run in each cell"

    # ---- Cells ----

    def seeds(self, response: str | None = None, epoch: int | None = None) -> pd.DataFrame:
        """Return a response after the last epoch, or after `epoch`: a row per seed, a column per cell."""
        name = response or self.metric
        return self.keep(("seeds", name, epoch), lambda: measured.seed_table(self.results, name, epoch))

    @cached_property
    def diverged(self) -> pd.DataFrame:
        """Whether each run diverged or failed: a row per seed, a column per cell."""
        return measured.diverged_table(self.results)

    @cached_property
    def ran(self) -> pd.DataFrame:
        """Whether there is a run: a row per seed, a column per cell."""
        return measured.ran_table(self.results)

    def censored(self, response: str) -> pd.DataFrame:
        """Return whether each value of a response is only the least that it can be, likewise."""
        return self.keep(("censored", response), lambda: measured.censored_table(self.results, response))

    def cells(self, response: str | None = None) -> pd.DataFrame:
        """Return mean, spread and interval of each cell, and its paired difference to the reference cell."""
        name = response or self.metric
        return self.keep(
            ("cells", name),
            lambda: measured.cell_table(self.study, name, self.seeds(name), self.ran, self.diverged),
        )

    def curves(self, response: str) -> pd.DataFrame:
        """Return the mean of a response over seeds, by cell and epoch."""
        return self.keep(("curves", response), lambda: measured.curves(self.results, response))

    def logged_curves(self, response: str | None = None) -> pd.DataFrame:
        """Return the same of runs that were made elsewhere; empty where they were not logged epoch by epoch."""
        name = response or self.metric
        return self.keep(("logged", name), lambda: measured.logged_curves(self.results, name))

    def spread(self, response: str | None = None) -> float:
        """Return the standard deviation of a response between the seeds of a cell, over all cells."""
        return measured.spread_between_seeds(self.seeds(response))

    # ---- Effects ----

    @cached_property
    def standard_effects(self) -> list[Effect]:
        """The effects that every report shows, as far as the cells allow them; empty for a single cell."""
        return effects.standard_effects(self.study)

    @cached_property
    def main_effects(self) -> list[Effect]:
        """Of the standard effects the main effects, and the levels of factors with more than two."""
        return [effect for effect in self.standard_effects if effect.kind in ("main", "level")]

    def effects(self, response: str | None = None) -> pd.DataFrame:
        """Return the standard effects on a response after the last epoch, with 95 % intervals and p values.

        Of a search, its coefficients.
        """
        name = response or self.metric
        if self.study.searched:
            return self.keep(
                ("effects", name), lambda: regression.coefficient_table(self.study, name, self.searched(name))
            )
        return self.keep(("effects", name), lambda: self.estimate(self.standard_effects, name))

    def estimate(self, wanted: Iterable[Effect], response: str | None = None) -> pd.DataFrame:
        """Return any effects on a response after the last epoch, with a column ``response``; see `effect_table`."""
        name = response or self.metric
        frame = effects.effect_table(self.study, wanted, name, self.seeds(name), self.ran, self.diverged)
        frame.insert(min(2, len(frame.columns)), "response", name)
        return frame

    def contrast(self, contrast: Contrast, response: str | None = None) -> "pd.Series[float]":
        """Return a contrast of cells for each seed that has all of them, by seed."""
        return samples.within_seeds(self.seeds(response), effects.contrast_weights(self.study, contrast))

    def sample(self, contrast: Contrast, response: str | None = None) -> Sample:
        """Return a contrast of cells by the estimator that the design calls for."""
        weights = effects.contrast_weights(self.study, contrast)
        return samples.sample_of(self.study, weights, self.seeds(response), self.ran, self.response(response))

    def effects_by_epoch(self, response: str | None = None) -> pd.DataFrame:
        """Return the main effects on a response after each epoch that all runs have."""
        name = response or self.metric
        return self.keep(("by epoch", name), lambda: self._by_epoch(name))

    def _by_epoch(self, response: str) -> pd.DataFrame:
        epochs = int(self.results.epochs.groupby("run_id")["epoch"].max().min())
        tables = (self.seeds(response, epoch) for epoch in range(1, epochs + 1))
        return effects.effects_by_epoch(self.study, self.main_effects, response, tables, self.ran)

    def searched(self, response: str | None = None) -> Searched:
        """Return a response with the settings of each run, where the study is a search."""
        name = response or self.metric
        return self.keep(("searched", name), lambda: Searched.of(self.results, name))

    # ---- Verdicts ----

    @cached_property
    def declared(self) -> Declarations:
        """What was declared before the runs."""
        found = declarations(self.results.documents.values())
        looks = found.looks or self.results.declared_looks
        return replace(found, looks=looks, afterwards=self.results.afterwards)

    @cached_property
    def standing(self) -> looks.Standing:
        """At which look the study stands, and why it stops there or goes on."""
        return looks.stand(self.study, self)

    @cached_property
    def by_look(self) -> pd.DataFrame:
        """Every hypothesis at every look so far, with its interval and its verdict."""
        return looks.by_look(self.study, self)

    @cached_property
    def judgements(self) -> list[Judgement]:
        """Every hypothesis of the study with its verdict."""
        return verdicts.judge(self.study, self.declared, self)

    @cached_property
    def detectable(self) -> pd.DataFrame:
        """The smallest effects on the main response that numbers of seeds find with 90 % power."""
        found = {effect: self.sample(effect.contrast) for effect in self.standard_effects}
        return power.detectable(found, verdicts.share_of_alpha(self.study))

    # ---- Levels ----

    @cached_property
    def graded(self) -> list[Factor]:
        """The factors with three or more levels, all of them numbers."""
        return levels.graded(self.study)

    def by_level(self, response: str | None = None) -> pd.DataFrame:
        """Return the mean of a response at each level of the graded factors."""
        name = response or self.metric
        return self.keep(("by level", name), lambda: levels.by_level(self.study, self.cells(name)))

    @cached_property
    def over_levels(self) -> list[tuple[Hypothesis, pd.DataFrame]]:
        """The numbers that stand in place of a factor's levels, one table for each kind that a hypothesis asks for."""
        asked = levels.summarised(self.study)
        return [(h, levels.over_levels(self.study, h, self.seeds(h.response))) for h in asked]

    @cached_property
    def speed(self) -> pd.DataFrame | None:
        """When the cells reach 97 % validation accuracy; None where the study does not ask."""
        return levels.speed(self.trained) if self.trained and self.ours and levels.has_speed(self.ours) else None

    @cached_property
    def components(self) -> pd.DataFrame | None:
        """The parts of the variance between runs; None where the study does not draw parts of chance anew."""
        return levels.components(self.study, self.seeds()) if levels.chance_factors(self.study) else None

    # ---- Probes ----

    @cached_property
    def probed(self) -> pd.DataFrame | None:
        """The main effects on what probes measured, with ``response`` and ``mean``, that of all runs of all cells.

        None without probes or effects.
        """
        if not self._probe_responses or not self.main_effects or self.results.probes.empty:
            return None
        tables = []
        for response in self._probe_responses:
            values = self.seeds(response).to_numpy(dtype=float)
            mean = float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
            tables.append(self.estimate(self.main_effects, response).assign(mean=mean))
        return pd.concat(tables, ignore_index=True)

    @property
    def _probe_responses(self) -> list[str]:
        return [name for probe in (self.ours.probes if self.ours else ()) for name in PROBES[probe]]

    # ---- Test images ----

    @cached_property
    def two_way(self) -> pd.DataFrame | None:
        """Standard errors of effects over seeds and test images; None without stored predictions."""
        return test_images.two_way_table(self.results, self.standard_effects)

    def on_images(self, contrast: Contrast) -> FloatArray | None:
        """Return a contrast of accuracy by seed with its cells, in order, and test image; None without predictions."""
        return self.keep(("images", contrast), lambda: test_images.seed_image_effects(self.results, contrast))

    @cached_property
    def error_counts(self) -> pd.DataFrame | None:
        """How many runs of each cell get each test image wrong; None without stored predictions."""
        return test_images.error_counts(self.results)

    @cached_property
    def always_wrong(self) -> pd.DataFrame | None:
        """The test images that every run gets wrong; None without stored predictions."""
        return test_images.always_wrong(self.results)

    @cached_property
    def confusions(self) -> pd.DataFrame | None:
        """Which classes are taken for which; None without stored predictions."""
        return test_images.confusions(self.results)

    # ---- The runs ----

    @cached_property
    def n_planned(self) -> int:
        """The number of runs of the design."""
        return len(self.results.planned)

    @cached_property
    def missing_runs(self) -> list[CellSeed]:
        """The planned runs that are not stored."""
        return self.results.missing

    @cached_property
    def diverged_runs(self) -> list[CellSeed]:
        """The runs whose loss was no longer finite, or that failed."""
        return self._where(self.results.final["status"] != "ok")

    @cached_property
    def unprobed_runs(self) -> list[CellSeed]:
        """The runs that lack a number of the study's probes."""
        probed = self.results.probes.reindex(index=self.results.final["run_id"], columns=self._probe_responses)
        known = probed.dropna(axis=1, how="all")  # results may be older than a number of a probe
        return self._where((probed if known.empty else known).isna().any(axis=1).to_numpy())

    @cached_property
    def processors(self) -> dict[str, list[CellSeed]]:
        """The runs that each kind of processor, or card, made, most first; an empty name where none was recorded."""
        documents = self.results.documents
        if not documents:
            return {}
        names = self.results.final["run_id"].map(lambda run_id: documents.get(run_id, {}).get("provenance", {}))
        names = names.map(lambda provenance: str(provenance.get("card") or provenance.get("processor", "")))
        return {name: self._where(names == name) for name in names.value_counts(sort=True).index}

    @cached_property
    def under_other_hypotheses(self) -> int:
        """The number of runs that were made under other hypotheses than the study's."""
        if not self.study.hypotheses:
            return 0
        known = ("", self.study.hypotheses_sha256)
        return sum(n for sha256, n in self.declared.rules.items() if sha256 not in known)

    def _where(self, chosen: Any) -> list[CellSeed]:
        final = self.results.final[chosen]
        return list(zip(final["cell"], final["seed"], strict=True))

    @cached_property
    def last_epoch(self) -> pd.DataFrame:
        """What the last epoch changed on validation images, cell by cell."""
        return measured.last_epoch_changes(self.results)

    @cached_property
    def binomial_error(self) -> float | None:
        """The standard error of one network's accuracy, in points, from the number of test images; None without."""
        if self.results.labels is None:
            return None
        accuracy = float(self.results.final["test_accuracy"].mean())
        return float(100 * (accuracy * (1 - accuracy) / len(self.results.labels)) ** 0.5)


def analyse(runs: Runs | Analysis) -> Analysis:
    """Return the analysis of `runs`; an analysis is returned as it is, with all that it has computed.

    Of a study that goes on until it is settled, only the runs of the look at which it stands are analysed.
    """
    if isinstance(runs, Analysis):
        return runs
    whole = Analysis(runs)
    if len(runs.study.looks) == 1:
        return whole
    first = of_first(runs, whole.standing.seeds)
    return whole if first.results.epochs.empty else first


def of_first(runs: Runs, n_seeds: int) -> Analysis:
    """Return the analysis of a study as if it had ended with its first `n_seeds` seeds, whose runs must be there."""
    study = runs.study
    epochs = runs.epochs[runs.epochs["seed"] < study.first_seed + n_seeds]
    return Analysis(replace(runs, study=study.reaching(n_seeds), epochs=epochs))
