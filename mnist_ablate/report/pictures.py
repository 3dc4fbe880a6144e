"""The pictures of a report: drawn for wide and narrow screens, light and dark, with words for those who cannot see."""

from functools import partial

import pandas as pd

from mnist_ablate import data, plots
from mnist_ablate.design.contrasts import Hypothesis, show
from mnist_ablate.errors import DataError
from mnist_ablate.inference.effects import cell_table, effect_table, effects_by_epoch, standard_effects
from mnist_ablate.inference.levels import by_level, chance_factors
from mnist_ablate.inference.test_images import always_wrong
from mnist_ablate.notebook.printed import printed_cells
from mnist_ablate.notebook.replication import SHOWN, has_notebook, places
from mnist_ablate.report import chapters, tables
from mnist_ablate.report.svg import Picture, picture
from mnist_ablate.report.words import number, of, plural
from mnist_ablate.store.results import Results

HARD_IMAGES = 24
"""Images that are shown of those that every run gets wrong."""


def draw_all(results: Results) -> dict[str, Picture]:
    """Draw every picture that the results allow."""
    found = {
        "accuracy": picture(partial(plots.accuracy, results), _accuracy_alt(results)),
        "losses": picture(partial(plots.loss_curves, results), _loss_alt(results)),
    }
    if standard_effects(results.study):
        found |= _of_effects(results)
    if results.mistakes is not None:
        found["confusions"] = picture(partial(plots.confusion, results), _confusion_alt(results))
    hard = _hard_images(results)
    found |= _of_levels(results) | _of_notebook(results)
    return found | ({"always-wrong": hard} if hard else {})


def _of_effects(results: Results) -> dict[str, Picture]:
    smallest = _smallest(results)
    found = {
        "effects": picture(partial(plots.forest, results, smallest=smallest), _effects_alt(results)),
    }
    if not effects_by_epoch(results).empty:
        draw = partial(plots.by_epoch, results, smallest=smallest)
        found["effects-by-epoch"] = picture(draw, _by_epoch_alt(results))
    if plots.has_interactions(results):
        found["interactions"] = picture(partial(plots.interactions, results), _interactions_alt())
    if effect_table(results)["sd"].gt(1e-9).any():
        found["power"] = picture(partial(plots.power, results), _power_alt())
    return found


def _of_levels(results: Results) -> dict[str, Picture]:
    """Draw accuracy against the levels of each graded factor, and parts of variance where chance is what is varied."""
    frame, found = by_level(results), {}
    for factor in dict.fromkeys(frame.dropna(subset="mean")["factor"]):
        alt = _doses_alt(frame[frame["factor"] == factor], str(factor))
        found[f"levels-{factor}"] = picture(partial(plots.doses, results, str(factor)), alt)
    if chance_factors(results.study):
        found["variance"] = picture(partial(plots.variance_parts, results), chapters.variance_words(results))
    return found


def _doses_alt(frame: pd.DataFrame, factor: str) -> str:
    lines = [
        f"{line}: "
        + ", ".join(f"{show(level)} {mean:.2f}" for level, mean in zip(of["level"], of["mean"], strict=True))
        for line, of in frame.dropna(subset="mean").groupby("line", sort=False)
    ]
    return f"Line plot of mean test accuracy against {factor}. In percent, by level: {'; '.join(lines)}."


def _of_notebook(results: Results) -> dict[str, Picture]:
    """Draw what the notebook printed among the runs of its cells, where the study has all of them."""
    if not has_notebook(results.study):
        return {}
    frame, found = places(results), {}
    modes = [mode for mode in SHOWN if frame[frame["mode"] == mode]["name"].nunique() == len(printed_cells())]
    if (frame["response"] == "test_accuracy").any():
        alt = _printed_accuracies_alt(frame[frame["response"] == "test_accuracy"])
        found["printed-accuracies"] = picture(partial(plots.printed_accuracies, results), alt)
    for mode in modes[:1]:
        alt = _printed_losses_alt(frame[(frame["mode"] == mode) & (frame["response"] != "test_accuracy")], mode)
        found["printed-losses"] = picture(partial(plots.printed_losses, results, mode), alt)
    return found


def _printed_accuracies_alt(frame: pd.DataFrame) -> str:
    lines = [
        f"{row['name']}, {row['mode']}: printed {row['printed']:.2f}, runs {row['min']:.2f} to {row['max']:.2f}, "
        f"mean {row['mean']:.2f}"
        for _, row in frame.iterrows()
    ]
    return (
        f"Dot plot of the test accuracy of every run, with what the notebook printed. In percent: {'; '.join(lines)}."
    )


def _printed_losses_alt(frame: pd.DataFrame, mode: str) -> str:
    inside = (
        frame.assign(inside=~frame["outside"].astype(bool)).groupby("name", sort=False)["inside"].agg(["sum", "count"])
    )
    counts = "; ".join(f"{name} {of(int(row['sum']), int(row['count']))}" for name, row in inside.iterrows())
    return (
        "Line plots of losses against epoch, a panel for each network: a band from the lowest run to the highest, "
        f"{mode}, and the printed losses. Within the band: {counts}."
    )


def _smallest(results: Results) -> float | None:
    """Give the least effect on test accuracy that matters, in points, if all hypotheses on it agree."""
    found = {h.smallest for h in results.study.hypotheses if h.response == "test_accuracy" and _in_points(h)}
    return found.pop() if len(found) == 1 else None


def _in_points(hypothesis: Hypothesis) -> bool:
    """Tell a plain effect from a slope or a summary over levels, whose units are others."""
    return not hypothesis.summary and all(term.kind == "difference" for term in hypothesis.contrast.terms)


def _hard_images(results: Results) -> Picture | None:
    """Draw the images that every run gets wrong; None where there are none, or the data set is not at hand."""
    frame = always_wrong(results)
    if frame is None or frame.empty:
        return None
    try:
        images = data.load(results.study.protocol.dataset)
    except DataError:
        return None
    if images.sha256 != next(iter(results.documents.values())).get("data_sha256"):
        return None
    shown = frame.head(HARD_IMAGES)
    pixels = images.test_images[shown["test_index"].to_numpy()].reshape(-1, 28, 28)
    names = data.CLASS_NAMES[results.study.protocol.dataset]
    pairs = zip(shown["label"], shown["prediction"], strict=True)
    captions = [f"{names[label]} as {names[answer]}" for label, answer in pairs]
    what = f"{of(len(shown), len(frame))} test images that every run gets wrong"
    alt = f"{what}. Label and answer: {'; '.join(captions)}."
    return picture(partial(plots.images, pixels, captions), alt)


def _accuracy_alt(results: Results) -> str:
    frame = cell_table(results).dropna(subset="mean").sort_values("mean")
    means = "; ".join(f"{row.cell} {row.mean:.2f}" for row in frame[::-1].itertuples())
    low, high = frame["min"].min(), frame["max"].max()
    return (
        f"Dot plot of test accuracy, a row for each of {plural(len(frame), 'cell')} and a dot for each seed. Single "
        f"runs lie between {low:.2f} and {high:.2f} percent. Means from highest to lowest, in percent: {means}."
    )


def _loss_alt(results: Results) -> str:
    frame = tables.losses(results).frame.dropna(subset="val_loss")
    ends = "; ".join(f"{row.cell} {row.train_loss_eval:.4f} and {row.val_loss:.4f}" for row in frame.itertuples())
    return (
        f"Line plots of loss against epoch, a panel for each of {plural(len(frame), 'cell')}. Mean loss after the last "
        f"epoch, on training images and on validation images: {ends}."
    )


def _effects_alt(results: Results) -> str:
    frame = effect_table(results).dropna(subset="estimate")
    found = "; ".join(f"{row.label} {number(float(str(row.estimate)), sign=True)}" for row in frame.itertuples())
    return f"Forest plot of effects on test accuracy with their 95 % intervals. Estimates in points: {found}."


def _by_epoch_alt(results: Results) -> str:
    frame = effects_by_epoch(results)
    first, last = frame[frame["epoch"] == 1], frame[frame["epoch"] == frame["epoch"].max()]
    found = "; ".join(
        f"{label} {number(a, sign=True)} after the first and {number(b, sign=True)} after the last"
        for label, a, b in zip(first["label"], first["estimate"], last["estimate"], strict=True)
    )
    return f"Line plots of effects on test accuracy against epoch, in points: {found}."


def _interactions_alt() -> str:
    return (
        "Line plots of mean test accuracy against the levels of one factor, a line for each level of another. The "
        "table of effects has the interactions."
    )


def _power_alt() -> str:
    return "Line plot of the smallest effect that is found with 90 % power against seeds, a line for every effect."


def _confusion_alt(results: Results) -> str:
    table = tables.confused(results, most=5)
    pairs = "; ".join(f"{row['pair']}: {row['per_run']}" for row in table.rows) if table else ""
    return f"Heat map of mistakes in a mean run, by label and answer. The commonest: {pairs}."
