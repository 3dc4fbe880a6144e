"""What a study is, and the state of its runs, in words."""

from collections import defaultdict
from collections.abc import Iterable

from mnist_ablate.design.contrasts import Level, show
from mnist_ablate.design.settings import LABELS, in_words
from mnist_ablate.design.study import Study
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.report.format import duration, joined, plural, seeds
from mnist_ablate.store.bits import is_exact

DATASETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
_TECHNIQUES = ("l2", "dropout", "batch_norm")


def level(value: Level) -> str:
    """Write a level of a setting."""
    return ("off", "on")[value] if isinstance(value, bool) else show(value)


def levels(study: Study, setting: str) -> str:
    """Write the level of a setting, or all its levels if it is a factor."""
    factor = next((factor for factor in study.design if factor.name == setting), None)
    values = factor.levels if factor else (getattr(study.protocol, setting),)
    return joined((DATASETS.get(str(value), level(value)) for value in values), "or")


def lead(analysis: Analysis) -> str:
    """Describe what was run."""
    study, cells = analysis.study, len(analysis.cell_names)
    epochs = levels(study, "epochs")
    networks = "one neural network" if cells == 1 else f"{cells} variants of a neural network"
    each = "" if cells == 1 else " each"
    times = "once" if study.n_seeds == 1 else f"{study.n_seeds:,} times{each}, each time from another random seed"
    differ = f" The variants (cells) differ only in {joined(in_words(f.name) for f in study.design)}."
    return (
        f"This study trains {networks} {times}, for {epochs} epoch{'' if epochs == '1' else 's'} on "
        f"{levels(study, 'dataset')}, and tests {'it' if cells == 1 else 'them'} on images kept apart."
        f"{differ if cells > 1 else ''}"
    )


def facts(analysis: Analysis) -> dict[str, str]:
    """List the settings: first the factors, then what all runs share."""
    study, epochs = analysis.study, analysis.results.epochs
    varied = {factor.name: f"{levels(study, factor.name)} (varied)" for factor in study.design}
    fixed = {name: levels(study, name) for name in _TECHNIQUES if name not in varied}
    training, evaluation = (duration(epochs[name].sum()) for name in ("train_seconds", "eval_seconds"))
    return {_heading(name): text for name, text in (varied | fixed).items()} | {
        "Network": f"hidden layers: {levels(study, 'depth')}; units in each: {levels(study, 'width')}",
        "Training": f"Adam, learning rate {levels(study, 'learning_rate')}, batches of {levels(study, 'batch_size')}",
        "Held out": f"{levels(study, 'validation_fraction')} of the training images, for validation",
        "Engine": study.chosen_engine,
        "Time": f"{training} of training and {evaluation} of evaluation, "
                f"summed over {plural(len(analysis.results.final), 'run')}",
    }  # fmt: skip


def _heading(setting: str) -> str:
    words = in_words(setting)
    return words[0].upper() + words[1:] if setting in LABELS else words


def state(analysis: Analysis) -> str:
    """Describe in one line whether the study is complete."""
    stored = analysis.n_planned - len(analysis.missing_runs)
    diverged = len(analysis.diverged_runs) or "none"
    return f"{stored:,} of {plural(analysis.n_planned, 'planned run')} stored, {diverged} diverged"


def notices(analysis: Analysis) -> list[str]:
    """Describe what a reader must know before the numbers: what is missing, damaged, diverged or changed afterwards."""
    sentences = (_missing(analysis), _diverged(analysis), _unprobed(analysis), _mixed(analysis), _changed(analysis))
    return [*filter(None, sentences), *analysis.results.problems]


def part(shown: int, n: int, noun: str, first: str, value: str) -> str:
    """Say which of `n` things a picture shows, where it does not show all: it would be too long to read."""
    if shown >= n:
        return ""
    return f"It shows {shown} of {plural(n, noun)}: {first}, and those with the highest and the lowest {value}."


def by_cell(runs: Iterable[tuple[str, int]]) -> str:
    """Name runs, each a cell and a seed, cell by cell."""
    seeds_of = defaultdict(list)
    for cell, seed in runs:
        seeds_of[cell].append(seed)
    return "; ".join(f"{in_words(cell)} ({seeds(numbers)})" for cell, numbers in seeds_of.items())


def _missing(analysis: Analysis) -> str:
    if not analysis.missing_runs:
        return ""
    return (
        f"{plural(len(analysis.missing_runs), 'planned run')} not stored (not run yet, failed or damaged): "
        f"{by_cell(analysis.missing_runs)}. A comparison uses the seeds that all its cells have."
    )


def _diverged(analysis: Analysis) -> str:
    runs = analysis.diverged_runs
    if not runs:
        return ""
    return (
        f"{plural(len(runs), 'run')} diverged, the loss was no longer finite: {by_cell(runs)}. They count as networks "
        "that guess, in accuracy and loss, and have no gap."
    )


def _unprobed(analysis: Analysis) -> str:
    runs = analysis.unprobed_runs
    if not runs:
        return ""
    return (
        f"{plural(len(runs), 'run')} without some or all numbers of the probes (diverged, not finite, or made without "
        f"probes): {by_cell(runs)}. They are failures of their cells: a few are left out with their seeds, more leave "
        "no verdict on those numbers."
    )


def _mixed(analysis: Analysis) -> str:
    if len(analysis.processors) < 2 or all(map(is_exact, analysis.results.documents.values())):
        return ""
    kinds = ". ".join(
        f"{name or 'Not recorded'}, {plural(len(runs), 'run')}: {by_cell(runs)}"
        for name, runs in analysis.processors.items()
    )
    return f"The runs come from more than one kind of processor, and bits may differ between kinds. {kinds}."


def _changed(analysis: Analysis) -> str:
    if not analysis.under_other_hypotheses:
        return ""
    return (
        f"The hypotheses were changed after the first run: {analysis.under_other_hypotheses:,} of "
        f"{plural(len(analysis.results.documents), 'run')} were made under others. Whoever knows the data can write a "
        "rule that fits them, so the verdicts are provisional."
    )
