"""What the networks get wrong: the commonest mistakes, and the test images that every run gets wrong."""

from functools import partial

from mnist_ablate import data, plots
from mnist_ablate.errors import DataError
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import say, told
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
    alt = say("Heat map of the mistakes of an average run, by label and answer. The commonest: {pairs}.", pairs=pairs)
    return Section(
        "errors",
        say("What the networks get wrong"),
        TEMPLATE,
        tables={"confusions": table, "always_wrong": always_wrong(analysis)},
        pictures={
            "confusions": picture(partial(plots.confusion, analysis), alt),
            "always-wrong": _images(analysis),
        },
    )


def class_names(analysis: Analysis) -> list[str]:
    """Name the classes of the images."""
    return [told(name) for name in analysis.class_names]


def confusions(analysis: Analysis, most: int = _MOST_PAIRS) -> Table:
    """Tabulate which classes are taken for which most often."""
    assert analysis.confusions is not None  # noqa: S101 # without predictions there is no section
    names = class_names(analysis)
    columns: Columns = {
        "pair": (say("Label, answer"), lambda row: f"{names[int(row['label'])]}, {names[int(row['prediction'])]}"),
        "per_run": (say("Mistakes in a run"), lambda row: number(row["per_run"], 1)),
        "share": (say("Of all mistakes, %"), lambda row: number(100 * row["share"], 1)),
    }
    caption = say("The commonest mistakes, over all runs of all cells.")
    in_file = say("The CSV file has all mistakes.")
    return Table.of("confusions", caption, analysis.confusions, columns, most, in_file=in_file)


def always_wrong(analysis: Analysis, most: int = _MOST_IMAGES) -> Table | None:
    """Tabulate the test images that every run gets wrong; None where there is none."""
    frame = analysis.always_wrong
    if frame is None or frame.empty:
        return None
    names = class_names(analysis)
    columns: Columns = {
        "image": (say("Test image"), lambda row: f"{row['test_index']:.0f}"),
        "label": (say("Label"), lambda row: names[int(row["label"])]),
        "prediction": (say("Commonest answer"), lambda row: names[int(row["prediction"])]),
        "share": (say("Runs with this answer, %"), lambda row: number(100 * row["share"], 0)),
    }
    caption, in_file = say("Test images that every run of every cell gets wrong."), ""
    if len(frame) > most:
        caption = f"{caption} {say('The first {most} of {all}.', most=most, all=len(frame))}"
        in_file = say("The CSV file has all of them.")
    return Table.of("always-wrong", caption, frame, columns, most, in_file=in_file)


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
    names = class_names(analysis)
    answers = zip(shown["label"], shown["prediction"], strict=True)
    captions = [say("{label} as {answer}", label=names[label], answer=names[answer]) for label, answer in answers]
    count = out_of(len(shown), len(frame))
    alt = say(
        "{count} test images that every run gets wrong. Label and answer: {answers}.",
        count=count, answers="; ".join(captions),
    )  # fmt: skip
    return picture(partial(plots.images, pixels, captions), alt)


TEMPLATE = """
{% call figure(pictures, "confusions") %}
      {% trans %}The mistakes of an average run, over all cells. Right answers would lie on the diagonal.{% endtrans %}

{% endcall %}
{{ table(tables.confusions) }}
{% if pictures["always-wrong"] %}
{% call figure(pictures, "always-wrong") %}
      {% trans %}Images that every run of every cell gets wrong: the label, and the commonest answer.{% endtrans %}

{% endcall %}
{% elif tables.always_wrong %}
    <p>{% trans %}The images themselves are not shown: the data set is not on this computer, or the runs used other
      data.{% endtrans %}</p>
{% endif %}
{% if tables.always_wrong %}
    <details><summary>{% trans %}The images that every run gets wrong, as a table{% endtrans %}</summary>
{{ table(tables.always_wrong) }}
    </details>
{% else %}
    <p>{% trans %}No test image is wrong in every run.{% endtrans %}</p>
{% endif %}
"""
