"""What a study is, and the state of its runs, in words."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mnist_ablate.design.contrasts import Level, show
from mnist_ablate.design.settings import LABELS, in_words
from mnist_ablate.design.study import Study
from mnist_ablate.inference import samples
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
    factor = next((factor for factor in study.varied if factor.name == setting), None)
    values = factor.levels if factor else (getattr(study.protocol, setting),)
    return joined((DATASETS.get(str(value), level(value)) for value in values), "or")


def is_paired(analysis: Analysis) -> bool:
    """Return whether the cells are compared with the reference cell within seeds."""
    return analysis.study.pairing == "construction" or samples.is_paired(
        analysis.study, analysis.cell_names, analysis.ran
    )


def kicker(analysis: Analysis) -> str:
    """Say what kind of page this is."""
    if analysis.trained:
        return f"Ablation report, {levels(analysis.trained.study, 'dataset')}"
    return "Runs made elsewhere, judged"


def again(analysis: Analysis) -> str:
    """Return the command that writes the page."""
    folder = analysis.results.folder.as_posix()
    return f"python -m mnist_ablate{'.report' if analysis.trained else ' judge'} {folder}"


def lead(analysis: Analysis) -> str:
    """Describe what was run."""
    if analysis.trained and not analysis.ours:
        return _lead_own(analysis, analysis.trained.study)
    if analysis.ours is None:
        return _lead_elsewhere(analysis)
    study, cells = analysis.ours, len(analysis.cell_names)
    epochs = levels(study, "epochs")
    networks = "one neural network" if cells == 1 else f"{cells} variants of a neural network"
    each = "" if cells == 1 else " each"
    times = "once" if study.n_seeds == 1 else f"{study.n_seeds:,} times{each}, each time from another random seed"
    differ = f" The variants (cells) differ only in {joined(in_words(f.name) for f in study.varied)}."
    return (
        f"This study trains {networks} {times}, for {epochs} epoch{'' if epochs == '1' else 's'} on "
        f"{levels(study, 'dataset')}, and tests {'it' if cells == 1 else 'them'} on images kept apart."
        f"{differ if cells > 1 else ''}"
    )


def _lead_own(analysis: Analysis, study: Study) -> str:
    """Describe runs that a training of the user's own made."""
    cells, factors = plural(len(analysis.cell_names), "cell"), joined(in_words(factor.name) for factor in study.varied)
    times = f"{plural(study.n_seeds, 'seed')}, the same in each cell" if len(analysis.cell_names) > 1 else "each seed"
    return (
        f"This study trains {cells} by {levels(study, 'train')}, over {times}, on {levels(study, 'dataset')}. "
        f"The cells differ only in {factors}."
    )


def _lead_elsewhere(analysis: Analysis) -> str:
    """Describe runs that were made elsewhere."""
    study, n = analysis.study, len(analysis.results.final)
    cells, name = plural(len(analysis.cell_names), "cell"), analysis.results.folder.name
    if study.searched:
        settings = joined(in_words(factor.name) for factor in study.searched)
        return (
            f"{name} has {plural(n, 'run')}, a search of {settings}. They were made elsewhere; this page judges what "
            "it says."
        )
    factors = joined(in_words(factor.name) for factor in study.varied)
    across = f" in {cells}, which differ in {factors}" if factors else ""
    seeds_of = f", over {plural(study.n_seeds, 'seed')}" if is_paired(analysis) else ""
    return f"{name} has {plural(n, 'run')}{across}{seeds_of}. They were made elsewhere; this page judges what it says."


def facts(analysis: Analysis) -> dict[str, str]:
    """List the settings: first the factors, then what all runs share."""
    if analysis.ours is None:
        varied = {f.name: joined((level(value) for value in f.levels), "or") for f in analysis.study.varied}
        known = {name: f"{text} (varied)" for name, text in varied.items()} | dict(analysis.results.facts)
        return known | (_facts_own(analysis, analysis.trained.study) if analysis.trained else {})
    study, epochs = analysis.ours, analysis.results.epochs
    varied = {factor.name: f"{levels(study, factor.name)} (varied)" for factor in study.varied}
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


def _facts_own(analysis: Analysis, study: Study) -> dict[str, str]:
    """List what runs of a training of the user's own share."""
    time = f"{duration(analysis.results.epochs['train_seconds'].sum())}, summed over"
    named = {"Training": "train", "Data": "dataset", "Held out, share": "validation_fraction", "Epochs": "epochs"}
    return {heading: levels(study, name) for heading, name in named.items()} | {
        "Time": f"{time} {plural(len(analysis.results.final), 'run')}"
    }


def _heading(setting: str) -> str:
    words = in_words(setting)
    return words[0].upper() + words[1:] if setting in LABELS else words


def state(analysis: Analysis) -> str:
    """Describe in one line whether the study is complete."""
    stored = analysis.n_planned - len(analysis.missing_runs)
    diverged = len(analysis.diverged_runs) or "none"
    if analysis.trained and not analysis.ours:
        return f"{stored:,} of {plural(analysis.n_planned, 'planned run')} stored"
    if analysis.ours:
        return f"{stored:,} of {plural(analysis.n_planned, 'planned run')} stored, {diverged} diverged"
    of = f"{stored:,} of {plural(analysis.n_planned, 'run')}" if analysis.missing_runs else plural(stored, "run")
    return f"{of} there, {diverged} failed"


def notices(analysis: Analysis) -> list[str]:
    """Describe what a reader must know before the numbers: what is missing, damaged, diverged or changed afterwards."""
    sentences = (_missing(analysis), _diverged(analysis), _unprobed(analysis), _mixed(analysis), _changed(analysis))
    return [*filter(None, sentences), *analysis.results.problems]


def part(shown: int, n: int, noun: str, first: str, value: str) -> str:
    """Say which of `n` things a picture shows, where it does not show all: it would be too long to read."""
    if shown >= n:
        return ""
    return f"It shows {shown} of {plural(n, noun)}: {first}, and those with the highest and the lowest {value}."


_LONGEST = 300
"""Characters of a list of seeds; those of a longer one are only counted."""


def by_cell(runs: Iterable[tuple[str, int]], names: Mapping[int, str] = MappingProxyType({})) -> str:
    """Name runs, each a cell and a seed, cell by cell; `names` are those of seeds that are not numbers."""
    seeds_of = defaultdict(list)
    for cell, seed in runs:
        seeds_of[cell].append(seed)
    return "; ".join(f"{in_words(cell)} ({_seeds(numbers, names)})" for cell, numbers in seeds_of.items())


def _seeds(numbers: list[int], names: Mapping[int, str]) -> str:
    named = joined(names[number] for number in sorted(numbers)) if names else seeds(numbers)
    return named if len(named) < _LONGEST else plural(len(numbers), "seed")


def _by_cell(analysis: Analysis, runs: Iterable[tuple[str, int]]) -> str:
    if analysis.study.pairing != "none":
        return by_cell(runs, analysis.results.seed_names)
    counts = Counter(cell for cell, _ in runs)
    return "; ".join(f"{in_words(cell)} ({plural(n, 'run')})" for cell, n in counts.items())


def _missing(analysis: Analysis) -> str:
    if not analysis.missing_runs:
        return ""
    what = "planned run" if analysis.trained else "run"
    why = "stored (not run yet, failed or damaged)" if analysis.trained else "in the table, by the seeds of other cells"
    return (
        f"{plural(len(analysis.missing_runs), what)} not {why}: {_by_cell(analysis, analysis.missing_runs)}. A "
        "comparison uses the seeds that all its cells have."
    )


def _diverged(analysis: Analysis) -> str:
    runs = analysis.diverged_runs
    if not runs:
        return ""
    if not analysis.ours:
        values = "has no value" if len(runs) == 1 else "have no values"
        return f"{plural(len(runs), 'run')} failed, and {values}: {_by_cell(analysis, runs)}."
    count = "They count as networks that guess, in accuracy and loss, and have no gap."
    if analysis.response().guessing is None:  # of data of the user's own
        count = "They are failures of their cells: they have no values."
    return f"{plural(len(runs), 'run')} diverged, the loss was no longer finite: {by_cell(runs)}. {count}"


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
