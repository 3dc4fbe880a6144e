"""The methods of a study as a paper states them: its design, its rules, how it was run, all from its results."""

import math
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from mnist_ablate.design.design import Design
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.inference.intervals import MedianSample, Sample, TwoWaySample
from mnist_ablate.inference.power import LEAST_SEEDS
from mnist_ablate.inference.regression import CoefficientSample
from mnist_ablate.inference.samples import (
    MOST_FAILURES,
    Discordant,
    ResampledSample,
    SkewedSample,
    TwoProportions,
    UnpairedSample,
)
from mnist_ablate.inference.verdicts import Judgement
from mnist_ablate.report import verdict_words, words
from mnist_ablate.report.format import joined, percent, plural, seeds
from mnist_ablate.report.sections.provenance import provenance

_LIBRARIES = ("numpy", "scipy", "pandas", "statsmodels")
"""What computes the statistics."""
_RECORDED = ("mnist_ablate", "Engine", "Python", "torch", "numpy", "numba", "Processor", "Git commit", "Data, SHA-256",
             "Study file, SHA-256")  # fmt: skip
"""What a paper says of the runs, of all that they recorded."""
_LONG_DIGEST, _DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}"), 12


def paragraphs(analysis: Analysis) -> list[str]:
    """Return the methods, a string for each paragraph."""
    parts = (_design(analysis), _estimates(analysis), _hypotheses(analysis), _rule(analysis), _failures(analysis),
             _versions(analysis))  # fmt: skip
    return [" ".join(sentences) for part in parts if (sentences := list(part))]


# ---- Design ----


def _design(analysis: Analysis) -> Iterator[str]:
    n, cells = len(analysis.results.final), len(analysis.cell_names)
    factors = joined(_factor(analysis, factor.name) for factor in analysis.study.varied)
    if analysis.trained and not analysis.ours:
        study = analysis.trained.study
        yield (
            f"We trained {plural(n, 'run')} by a training of our own ({words.levels(study, 'train')}) on "
            f"{words.levels(study, 'dataset')}, for {words.epochs(study)}."
        )
    elif analysis.ours is None:
        name = analysis.results.folder.name
        yield f"We analysed {plural(n, 'run')} from {name}, which were made by other programs."
    else:
        data = words.levels(analysis.ours, "dataset")
        yield f"We trained {plural(n, 'run')} of a neural network on {data}."
    if analysis.study.searched:
        settings = joined(in_words(factor.name) for factor in analysis.study.searched)
        yield f"They are a search of {settings}, without cells that could be compared; each run counts alone."
        return
    if analysis.study.summarised:
        yield "Of each cell we had the number, the mean and the standard deviation of its runs, and no single run."
    if factors and cells > 1:
        yield f"{_kind(analysis.study)} varied {factors}: {plural(cells, 'cell')}."
    else:
        yield "All runs are of one cell."
    yield from _seeds(analysis)
    if analysis.ours is not None:
        yield from _training(analysis)
    elif analysis.trained:
        share = words.levels(analysis.trained.study, "validation_fraction")
        yield f"A seed decides which {share} of the data are held out for validation, and is the same in every cell."


def _factor(analysis: Analysis, name: str) -> str:
    if analysis.ours is not None:
        return f"{in_words(name)} ({words.levels(analysis.ours, name)})"
    levels = next(factor.levels for factor in analysis.study.varied if factor.name == name)
    return f"{in_words(name)} ({joined(map(words.level, levels), 'or')})"


def _kind(study: Design) -> str:
    combinations, cells = math.prod(len(factor.levels) for factor in study.varied), len(study.cell_levels)
    if len(study.varied) == 1:
        return "We"
    if combinations == cells:
        shape = " × ".join(str(len(factor.levels)) for factor in study.varied)  # noqa: RUF001 # a cross
        return f"A full {shape} factorial design"
    return f"A design with {cells} of {combinations:,} combinations of levels"


def _seeds(analysis: Analysis) -> Iterator[str]:
    found = analysis.seeds().index
    if not analysis.paired:
        counts = analysis.cells()["n"]
        runs = f"{counts.min()} to {counts.max()}" if counts.min() < counts.max() else f"{counts.max()}"
        yield f"Cells share no seeds and have {runs} runs each, which we treated as independent."
        return
    which = "" if analysis.results.seed_names else f" ({seeds(map(int, found))})"
    yield f"The cells were run with the same {plural(len(found), 'seed')}{which}, and compared within seeds."


def _training(analysis: Analysis) -> Iterator[str]:
    yield (
        "A seed decides the split of the training images, the initial weights, the order of batches and the dropout "
        "masks, each from a stream of its own, and is the same in every cell."
    )
    study, facts = analysis.ours, words.facts(analysis)
    assert study is not None  # noqa: S101 # whoever asks has checked
    varied = {factor.name for factor in study.varied}
    techniques = [f"{in_words(name)} {words.levels(study, name)}" for name in ("l2", "dropout", "batch_norm")
                  if name not in varied]  # fmt: skip
    yield f"The network: {facts['Network']}{''.join(f'; {technique}' for technique in techniques)}."
    yield f"Training: {facts['Training']}, {words.epochs(study)}."
    yield f"Held out for validation: {words.levels(study, 'validation_fraction')} of the training images."
    yield "The test images were used for the reported numbers alone, after the last epoch."


# ---- Estimates ----


def _estimates(analysis: Analysis) -> Iterator[str]:
    yield f"The main response is {_response(analysis, analysis.metric)}."
    asked = dict.fromkeys(judgement.hypothesis.response for judgement in analysis.judgements)
    others = [_response(analysis, name) for name in asked if name != analysis.metric]
    if others:
        yield f"Further responses: {'; '.join(others)}."
    samples = [analysis.sample(effect.contrast) for effect in analysis.standard_effects]
    samples += [judgement.sample for judgement in analysis.judgements]
    samples += [analysis.searched().sample(0)] if analysis.study.searched else []
    used = {sentence: None for sample in samples if (sentence := _estimator(sample))}
    yield from used
    yield "Intervals of cells and effects are 95 % intervals, one at a time, and decide nothing."


def _response(analysis: Analysis, name: str) -> str:
    response = analysis.response(name)
    better = {1: "higher is better", -1: "lower is better"}.get(response.better, "")
    said = ", ".join(filter(None, [response.value_unit and f"in {response.value_unit}", better]))
    return f"{response.label} ({said})" if said else response.label


def _estimator(sample: Sample) -> str:
    """Say which estimator a sample stands for."""
    kinds: list[tuple[type[Sample], str]] = [
        (TwoProportions, "Shares of runs that share no seeds are compared by Newcombe's interval (1998)."),
        (UnpairedSample, "Effects between cells that share no seeds are weighted sums of their means, with Welch's "
                         "variance and degrees of freedom after Satterthwaite (1946)."),
        (Discordant, "A yes or no of each run is compared within seeds by McNemar's exact test and the interval that "
                     "belongs to it."),
        (ResampledSample, "Folds of one data set share training data, so differences between them have the corrected "
                          "variance of Nadeau and Bengio (2003)."),
        (SkewedSample, "Where fewer than 30 differences are far from Gaussian, flips of their signs must agree that "
                       "there is an effect, besides Student's t interval."),
        (TwoWaySample, "Where a hypothesis is about new test images, too, the standard error is over seeds and images, "
                       "with degrees of freedom after Satterthwaite (1946)."),
        (MedianSample, "Places in a grid, and differences that take few values, are compared by medians, with "
                       "intervals by order statistics."),
        (CoefficientSample, "Coefficients are those of least squares on all settings, without interactions, with HC3 "
                            "standard errors (MacKinnon and White 1985) and Student's t; numbers above 0 count in "
                            "doublings."),
        (Sample, "An effect is the mean over seeds of a contrast of cells within each seed, with Student's t interval "
                 "of that mean."),
    ]  # fmt: skip
    return next(sentence for kind, sentence in kinds if isinstance(sample, kind)) if sample.n else ""


# ---- Hypotheses ----


def _hypotheses(analysis: Analysis) -> Iterator[str]:
    judgements = analysis.judgements
    if not judgements:
        yield "No hypotheses were declared, so there are estimates with their intervals and no verdicts."
        return
    yield "The hypotheses, each with the smallest effect that matters:"
    yield "; ".join(f"{judgement.hypothesis.id}: {_hypothesis(judgement)}" for judgement in judgements) + "."


def _hypothesis(judgement: Judgement) -> str:
    hypothesis = judgement.hypothesis
    smallest = f"{hypothesis.smallest:g}{verdict_words.in_unit(judgement)}"
    return f"{hypothesis.statement.rstrip('.')} ({smallest})"


def _rule(analysis: Analysis) -> Iterator[str]:
    study, judgements = analysis.study, analysis.judgements
    if not judgements:
        return
    share = percent(1 - judgements[0].alpha)
    if len(judgements) == 1:
        yield f"The hypothesis is decided by one {share} interval."
    else:
        yield (
            f"The {len(judgements)} hypotheses are one family with a probability of any false verdict of at most "
            f"{percent(study.alpha)} (Bonferroni), and each is decided by one {share} interval."
        )
    yield (
        "An effect is too small to matter if that interval lies within the smallest effect on either side of 0; "
        "otherwise it is supported if the interval lies beyond the smallest effect in the claimed direction, supported "
        "with its size open if only beyond 0, and refuted if beyond 0 in the other direction; otherwise it is not "
        "settled."
    )
    if any(judgement.hypothesis.kind == "negligible" for judgement in judgements):
        yield "A claim that an effect is negligible is supported within the smallest effect, and refuted beyond it."
    yield f"Fewer than {plural(LEAST_SEEDS, analysis.unit)} give no verdict. p values are reported and decide nothing."
    yield from _looks(analysis)
    yield _declared(analysis)


def _looks(analysis: Analysis) -> Iterator[str]:
    looks = analysis.study.looks
    if len(looks) == 1:
        return
    yield (
        f"Seeds were added in steps: at {looks[0]} seeds and after every {looks[1] - looks[0]} more, up to "
        f"{looks[-1]}, all hypotheses were looked at, with repeated confidence intervals, which hold at all looks at "
        "once (error spending in proportion to the cube of the seeds)."
    )
    standing = analysis.standing
    why = {
        "settled": "all hypotheses were settled",
        "most": "it had all its seeds",
        "futile": "more seeds were unlikely to settle what was open",
    }.get(standing.stop)
    yield f"The study stopped at {standing.seeds} seeds, because {why}." if why else \
          f"The study stands at {standing.seeds} seeds, and goes on."  # fmt: skip


def _declared(analysis: Analysis) -> str:
    reasons: dict[str, list[str]] = {}
    for judgement in analysis.judgements:
        if judgement.provisional:
            reasons.setdefault(judgement.provisional, []).append(judgement.hypothesis.id)
    if not reasons:
        numbers = "seeds" if analysis.unit == "seed" else "runs"
        return f"Hypotheses, their rule and the numbers of {numbers} were fixed before the first run."
    said = "; ".join(f"{joined(ids)}: {reason}" for reason, ids in reasons.items())
    return f"Some verdicts are provisional ({said})."


# ---- Runs ----


def _failures(analysis: Analysis) -> Iterator[str]:
    lost = words.notices(analysis)
    if not lost:
        runs = plural(analysis.n_planned, "planned run") if analysis.trained else plural(analysis.n_planned, "run")
        yield f"All {runs} ended well." if analysis.n_planned > 1 else "The run ended well."
    yield from (notice if notice.endswith(".") else f"{notice}." for notice in lost)
    if analysis.diverged_runs:
        yield (
            f"Where more than {percent(MOST_FAILURES)} of the runs of a comparison lack its number, or more on one "
            "side than on the other (Fisher's exact test), there is no verdict."
        )


def _versions(analysis: Analysis) -> Iterator[str]:
    recorded = dict(provenance(analysis))
    known = {label: recorded[label] for label in _RECORDED if label in recorded}
    if known:
        said = "; ".join(f"{label} {joined(_value(*one) for one in values)}" for label, values in known.items())
        yield f"The runs recorded: {said}."
    if analysis.trained is None:
        facts = dict(analysis.results.facts)
        told = (f"{name} {_value(facts[name], '')}" for name in ("Table", "SHA-256", "Rule written") if name in facts)
        yield f"The runs were read from: {'; '.join(told)}."
    libraries = joined(f"{name} {_version(name)}" for name in _LIBRARIES)
    yield f"The analysis is that of mnist-ablate {_version('mnist-ablate')}, with {libraries}."


def _value(value: str, runs: str) -> str:
    """Write a recorded value, and of a long digest its beginning, which the page has in full."""
    short = f"{value[:_DIGEST]}\N{HORIZONTAL ELLIPSIS}" if _LONG_DIGEST.fullmatch(value) else value
    return f"{short} ({runs} runs)" if " of " in runs else short


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from a checkout"
