"""What the networks get wrong: the commonest mistakes, and the test images that every run gets wrong."""

from functools import partial

from mnist_ablate import data, plots
from mnist_ablate.errors import DataError
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.report.format import number, out_of
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import Picture, picture
from mnist_ablate.report.tables import Columns, Table

_MOST_PAIRS = 10
_MOST_IMAGES = 24


def section(analysis: Analysis) -> Section | None:
    """Return the mistakes; None without stored predictions."""
    if analysis.confusions is None:
        return None
    table = confusions(analysis)
    pairs = "; ".join(f"{row['pair']}: {row['per_run']}" for row in table.rows[:5])
    alt = f"Heat map of the mistakes of an average run, by label and answer. The commonest: {pairs}."
    return Section(
        "errors",
        "What the networks get wrong",
        TEMPLATE,
        tables={"confusions": table, "always_wrong": always_wrong(analysis)},
        pictures={
            "confusions": picture(partial(plots.confusion, analysis), alt),
            "always-wrong": _images(analysis),
        },
    )


def confusions(analysis: Analysis, most: int = _MOST_PAIRS) -> Table:
    """Tabulate which classes are taken for which most often."""
    assert analysis.confusions is not None  # noqa: S101 # without predictions there is no section
    names = analysis.class_names
    columns: Columns = {
        "pair": ("Label, answer", lambda row: f"{names[int(row['label'])]}, {names[int(row['prediction'])]}"),
        "per_run": ("Mistakes in a run", lambda row: number(row["per_run"], 1)),
        "share": ("Of all mistakes, %", lambda row: number(100 * row["share"], 1)),
    }
    caption = "The commonest mistakes, over all runs of all cells. The CSV file has all mistakes."
    return Table.of("confusions", caption, analysis.confusions, columns, most)


def always_wrong(analysis: Analysis, most: int = _MOST_IMAGES) -> Table | None:
    """Tabulate the test images that every run gets wrong; None where there is none."""
    frame = analysis.always_wrong
    if frame is None or frame.empty:
        return None
    names = analysis.class_names
    columns: Columns = {
        "image": ("Test image", lambda row: f"{row['test_index']:.0f}"),
        "label": ("Label", lambda row: names[int(row["label"])]),
        "prediction": ("Commonest answer", lambda row: names[int(row["prediction"])]),
        "share": ("Runs with this answer, %", lambda row: number(100 * row["share"], 0)),
    }
    more = f" The first {most} of {len(frame)}; the CSV file has all of them." if len(frame) > most else ""
    caption = f"Test images that every run of every cell gets wrong.{more}"
    return Table.of("always-wrong", caption, frame, columns, most)


def _images(analysis: Analysis) -> Picture | None:
    """Draw the images that every run gets wrong; None where there are none, or the runs' data set is not at hand."""
    frame = analysis.always_wrong
    if frame is None or frame.empty:
        return None
    if analysis.dataset not in data.DATASETS:  # of the user's own, which may be no pictures
        return None
    try:
        images = data.load(analysis.dataset)
    except DataError:
        return None
    if images.sha256 != next(iter(analysis.results.documents.values())).get("data_sha256"):
        return None
    shown = frame.head(_MOST_IMAGES)
    pixels = images.test_images[shown["test_index"].to_numpy()].reshape(-1, 28, 28)
    names = analysis.class_names
    answers = zip(shown["label"], shown["prediction"], strict=True)
    captions = [f"{names[label]} as {names[answer]}" for label, answer in answers]
    count = out_of(len(shown), len(frame))
    alt = f"{count} test images that every run gets wrong. Label and answer: {'; '.join(captions)}."
    return picture(partial(plots.images, pixels, captions), alt)


TEMPLATE = """
{% call figure(pictures, "confusions") %}
      The mistakes of an average run, over all cells. Right answers would lie on the diagonal.
{% endcall %}
{{ table(tables.confusions) }}
{% if pictures["always-wrong"] %}
{% call figure(pictures, "always-wrong") %}
      Images that every run of every cell gets wrong: the label, and the commonest answer.
{% endcall %}
{% elif tables.always_wrong %}
    <p>The images themselves are not shown: the data set is not on this computer, or the runs used other data.</p>
{% endif %}
{% if tables.always_wrong %}
    <details><summary>The images that every run gets wrong, as a table</summary>
{{ table(tables.always_wrong) }}
    </details>
{% else %}
    <p>No test image is wrong in every run.</p>
{% endif %}
"""
