"""What a study is, and the state of its runs, in words."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mnist_ablate.design.contrasts import Level, show
from mnist_ablate.design.settings import LABELS, in_words, level_in_words
from mnist_ablate.design.study import Study
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import ENGLISH, at_start, count, mark, say, spoken, told, whole
from mnist_ablate.report.format import duration, joined, plural, seeds
from mnist_ablate.store.bits import is_exact

DATASETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
_NAMES = {**DATASETS, "adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
_TECHNIQUES = ("l2", "dropout", "batch_norm")


def level(value: Level) -> str:
    """Write a level of a setting."""
    if isinstance(value, bool):
        return say("on") if value else say("off")
    return level_in_words(show(value))


def levels(study: Study, setting: str) -> str:
    """Write the level of a setting, or all its levels if it is a factor."""
    factor = next((factor for factor in study.varied if factor.name == setting), None)
    values = factor.levels if factor else (getattr(study.protocol, setting),)
    return joined((_NAMES.get(str(value)) or level(value) for value in values), "or")


def title(analysis: Analysis) -> str:
    """Return the title of the page: that of the study, or its name."""
    return told(analysis.study.title) if analysis.study.title else analysis.study.name


def kicker(analysis: Analysis) -> str:
    """Say what kind of page this is."""
    if analysis.trained:
        return say("Ablation report, {dataset}", dataset=levels(analysis.trained.study, "dataset"))
    return say("Runs made elsewhere, judged")


def again(analysis: Analysis) -> str:
    """Return the command that writes the page."""
    folder, language = analysis.results.folder.as_posix(), spoken().code
    option = "" if language == ENGLISH else f" --lang {language}"
    return f"python -m mnist_ablate{'.report' if analysis.trained else ' judge'} {folder}{option}"


def lead(analysis: Analysis) -> str:
    """Describe what was run."""
    if analysis.trained and not analysis.ours:
        return _lead_own(analysis, analysis.trained.study)
    if analysis.ours is None:
        return _lead_elsewhere(analysis)
    study, cells = analysis.ours, len(analysis.cell_names)
    words = {"epochs": epochs(study), "dataset": levels(study, "dataset"), "variants": whole(cells),
             "times": whole(study.n_seeds),
             "factors": joined(in_words(factor.name) for factor in study.varied)}  # fmt: skip
    if cells == 1 and study.n_seeds == 1:
        return say(
            "This study trains one neural network once, for {epochs} on {dataset}, and tests it on images kept apart.",
            **words,
        )
    if cells == 1:
        return say(
            "This study trains one neural network {times} times, each time from another random seed, for {epochs} on "
            "{dataset}, and tests it on images kept apart.",
            **words,
        )
    if study.n_seeds == 1:
        return say(
            "This study trains {variants} variants of a neural network once, for {epochs} on {dataset}, and tests them "
            "on images kept apart. The variants (cells) differ only in {factors}.",
            **words,
        )
    return say(
        "This study trains {variants} variants of a neural network {times} times each, each time from another random "
        "seed, for {epochs} on {dataset}, and tests them on images kept apart. The variants (cells) differ only in "
        "{factors}.",
        **words,
    )


def epochs(study: Study) -> str:
    """Write how long networks train."""
    number = levels(study, "epochs")
    said = say("1 epoch") if number == "1" else say("{epochs} epochs", epochs=number)
    if not study.protocol.epoch_steps or any(factor.name == "epoch_steps" for factor in study.varied):
        return said
    return say("{epochs} of {steps} steps", epochs=said, steps=whole(study.protocol.epoch_steps))


def _lead_own(analysis: Analysis, study: Study) -> str:
    """Describe runs that a training of the user's own made."""
    n = len(analysis.cell_names)
    words = {"cells": plural(n, "cell"), "training": levels(study, "train"), "seeds": plural(study.n_seeds, "seed"),
             "dataset": levels(study, "dataset"),
             "factors": joined(in_words(factor.name) for factor in study.varied)}  # fmt: skip
    if n == 1:
        return say(
            "This study trains {cells} by {training}, over each seed, on {dataset}. The cells differ only in "
            "{factors}.",
            **words,
        )
    return say(
        "This study trains {cells} by {training}, over {seeds}, the same in each cell, on {dataset}. The cells differ "
        "only in {factors}.",
        **words,
    )


def _lead_elsewhere(analysis: Analysis) -> str:
    """Describe runs that were made elsewhere."""
    study, n = analysis.study, len(analysis.results.final)
    words = {"table": analysis.results.folder.name, "runs": plural(n, "run"),
             "cells": plural(len(analysis.cell_names), "cell"), "seeds": plural(study.n_seeds, "seed"),
             "factors": joined(in_words(factor.name) for factor in study.searched or study.varied)}  # fmt: skip
    elsewhere = say("They were made elsewhere; this page judges what it says.")
    if study.searched:
        has = say("{table} has {runs}, a search of {factors}.", **words)
        return f"{has} {elsewhere}"
    match (bool(words["factors"]), analysis.paired):
        case True, True:
            has = say("{table} has {runs} in {cells}, which differ in {factors}, over {seeds}.", **words)
        case True, False:
            has = say("{table} has {runs} in {cells}, which differ in {factors}.", **words)
        case False, True:
            has = say("{table} has {runs}, over {seeds}.", **words)
        case _:
            has = say("{table} has {runs}.", **words)
    return f"{has} {elsewhere}"


FACTS = (
    mark("Table"), mark("Kind"), mark("SHA-256"), mark("Last changed"), mark("Rule written"), mark("Seed"),
    mark("Repeats"), mark("Nested"), mark("Metrics"), mark("Settings searched"), mark("Read as"), mark("A CSV file"),
    mark("A Parquet file"), mark("A pandas frame"), mark("A store of MLflow"), mark("Event files of TensorBoard"),
    mark("Logs of Lightning's CSVLogger"), mark("CSV logs, one for each run"), mark("W&B's table of runs"),
    mark("MLflow's table of runs"), mark("W&B's export of a chart"),
)  # fmt: skip
"""What is known of a table from elsewhere, and the kinds of tables."""


def facts(analysis: Analysis) -> dict[str, str]:
    """List the settings: first the factors, then what all runs share."""
    if analysis.ours is None:
        varied = {f.name: joined((level(value) for value in f.levels), "or") for f in analysis.study.varied}
        known = {told(name): told(text) for name, text in analysis.results.facts.items()}
        known = {name: say("{levels} (varied)", levels=text) for name, text in varied.items()} | known
        return known | (_facts_own(analysis, analysis.trained.study) if analysis.trained else {})
    study, rows = analysis.ours, analysis.results.epochs
    varied = {factor.name: say("{levels} (varied)", levels=levels(study, factor.name)) for factor in study.varied}
    fixed = {name: levels(study, name) for name in _TECHNIQUES if name not in varied}
    training, evaluation = (duration(rows[name].sum()) for name in ("train_seconds", "eval_seconds"))
    return {_heading(name): text for name, text in (varied | fixed).items()} | {
        say("Network"): say("hidden layers: {depth}; units in each: {width}", depth=levels(study, "depth"),
                            width=levels(study, "width")),
        say("Training"): say("{optimiser}, learning rate {rate}, batches of {size}",
                             optimiser=levels(study, "optimiser"),
                             rate=levels(study, "learning_rate"), size=levels(study, "batch_size")),
        say("Held out"): say("{share} of the training images, for validation",
                             share=levels(study, "validation_fraction")),
        say("Engine"): study.chosen_engine,
        say("Time"): say("{training} of training and {evaluation} of evaluation, summed over {runs}", training=training,
                         evaluation=evaluation, runs=plural(len(analysis.results.final), "run")),
    }  # fmt: skip


def _facts_own(analysis: Analysis, study: Study) -> dict[str, str]:
    """List what runs of a training of the user's own share."""
    time = duration(analysis.results.epochs["train_seconds"].sum())
    named = {say("Training"): "train", say("Data"): "dataset", say("Held out, share"): "validation_fraction",
             say("Epochs"): "epochs"}  # fmt: skip
    return {heading: levels(study, name) for heading, name in named.items()} | {
        say("Time"): say("{time}, summed over {runs}", time=time, runs=plural(len(analysis.results.final), "run"))
    }


def _heading(setting: str) -> str:
    words = in_words(setting)
    return at_start(words) if setting in LABELS else words


def state(analysis: Analysis) -> str:
    """Describe in one line whether the study is complete."""
    stored, diverged = analysis.n_planned - len(analysis.missing_runs), len(analysis.diverged_runs)
    if analysis.trained and not analysis.ours:
        planned = plural(analysis.n_planned, "planned run")
        return say("{stored} of {planned} stored", stored=whole(stored), planned=planned)
    if analysis.ours:
        of = say(
            "{stored} of {planned} stored", stored=whole(stored), planned=plural(analysis.n_planned, "planned run")
        )
        failed = count(diverged, "{n} diverged", "{n} diverged") if diverged else say("none diverged")
    else:
        planned = plural(analysis.n_planned, "run")
        of = say("{stored} of {planned} there", stored=whole(stored), planned=planned) if analysis.missing_runs else (
            count(stored, "{n} run there", "{n} runs there")
        )  # fmt: skip
        failed = count(diverged, "{n} failed", "{n} failed") if diverged else say("none failed")
    return f"{of}, {failed}"


def notices(analysis: Analysis) -> list[str]:
    """Describe what a reader must know before the numbers: what is missing, damaged, diverged or changed afterwards."""
    sentences = (_missing(analysis), _diverged(analysis), _unprobed(analysis), _mixed(analysis), _changed(analysis))
    return [*filter(None, sentences), *map(told, analysis.results.problems)]


def part(shown: int, n: int, noun: str, first: str, value: str) -> str:
    """Say which of `n` things a picture shows, where it does not show all: it would be too long to read."""
    if shown >= n:
        return ""
    return say(
        "It shows {shown} of {all}: {first}, and those with the highest and the lowest {value}.",
        shown=shown, all=plural(n, noun), first=first, value=value,
    )  # fmt: skip


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
    n, which = len(analysis.missing_runs), _by_cell(analysis, analysis.missing_runs)
    if analysis.trained:
        return count(
            n,
            "{n} planned run not stored (not run yet, failed or damaged): {which}. A comparison uses the seeds that "
            "all its cells have.",
            "{n} planned runs not stored (not run yet, failed or damaged): {which}. A comparison uses the seeds that "
            "all its cells have.",
            which=which,
        )
    return count(
        n,
        "{n} run not in the table, by the seeds of other cells: {which}. A comparison uses the seeds that all its "
        "cells have.",
        "{n} runs not in the table, by the seeds of other cells: {which}. A comparison uses the seeds that all its "
        "cells have.",
        which=which,
    )


def _diverged(analysis: Analysis) -> str:
    runs = analysis.diverged_runs
    if not runs:
        return ""
    if not analysis.ours:
        return count(
            len(runs),
            "{n} run failed, and has no value: {which}.",
            "{n} runs failed, and have no values: {which}.",
            which=_by_cell(analysis, runs),
        )
    if analysis.response().guessing is None:  # of data of the user's own
        return count(
            len(runs),
            "{n} run diverged, the loss was no longer finite: {which}. They are failures of their cells: they have no "
            "values.",
            "{n} runs diverged, the loss was no longer finite: {which}. They are failures of their cells: they have no "
            "values.",
            which=by_cell(runs),
        )
    return count(
        len(runs),
        "{n} run diverged, the loss was no longer finite: {which}. They count as networks that guess, in accuracy and "
        "loss, and have no gap.",
        "{n} runs diverged, the loss was no longer finite: {which}. They count as networks that guess, in accuracy and "
        "loss, and have no gap.",
        which=by_cell(runs),
    )


def _unprobed(analysis: Analysis) -> str:
    runs = analysis.unprobed_runs
    if not runs:
        return ""
    return count(
        len(runs),
        "{n} run without some or all numbers of the probes (diverged, not finite, or made without probes): {which}. "
        "They are failures of their cells: a few are left out with their seeds, more leave no verdict on those "
        "numbers.",
        "{n} runs without some or all numbers of the probes (diverged, not finite, or made without probes): {which}. "
        "They are failures of their cells: a few are left out with their seeds, more leave no verdict on those "
        "numbers.",
        which=by_cell(runs),
    )


def _mixed(analysis: Analysis) -> str:
    if len(analysis.processors) < 2 or all(map(is_exact, analysis.results.documents.values())):
        return ""
    kinds = ". ".join(
        f"{name or say('Not recorded')}, {plural(len(runs), 'run')}: {by_cell(runs)}"
        for name, runs in analysis.processors.items()
    )
    return say(
        "The runs come from more than one kind of processor, and bits may differ between kinds. {kinds}.", kinds=kinds
    )


def _changed(analysis: Analysis) -> str:
    if not analysis.under_other_hypotheses:
        return ""
    return say(
        "The hypotheses were changed after the first run: {changed} of {runs} were made under others. Whoever knows "
        "the data can write a rule that fits them, so the verdicts are provisional.",
        changed=whole(analysis.under_other_hypotheses), runs=plural(len(analysis.results.documents), "run"),
    )  # fmt: skip
