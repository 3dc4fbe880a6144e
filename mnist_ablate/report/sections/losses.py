"""Loss, epoch by epoch, and what the last epoch changed."""

from functools import partial

import pandas as pd

from mnist_ablate import plots
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import figures, mark, say, told
from mnist_ablate.notebook.printed import printed_losses
from mnist_ablate.plots.cells import cells_in_panels
from mnist_ablate.report.format import number, plural
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import picture
from mnist_ablate.report.tables import Columns, Table, estimated
from mnist_ablate.report.words import part

_LOSSES = {
    "train_loss": mark("While training"),
    "train_loss_eval": mark("Training images"),
    "val_loss": mark("Validation images"),
    "test_loss": mark("Test images"),
    "gap": mark("Gap"),
}


def section(analysis: Analysis) -> Section | None:
    """Return the losses of every cell; None where they are not known epoch by epoch."""
    if not analysis.ours:
        return None
    table, shown = losses(analysis), cells_in_panels(analysis)
    return Section(
        "loss",
        say("Loss, epoch by epoch"),
        TEMPLATE,
        tables={"losses": table, "last_epoch": last_epoch(analysis)},
        pictures={"losses": picture(partial(plots.loss_curves, analysis), _alt(table.frame, shown))},
        values={
            "reference": in_words(analysis.reference),
            "printed": len(printed_losses(analysis.study)) > 0,
            "part": part(
                len(shown), len(analysis.cell_names), "cell", in_words(analysis.reference), say("validation loss")
            ),
        },
    )


def losses(analysis: Analysis) -> Table:
    """Tabulate mean losses after the last epoch."""
    means = {name: analysis.cells(name).set_index("cell")["mean"] for name in _LOSSES}
    frame = pd.DataFrame(means).reindex(analysis.cell_names).reset_index(names="cell")
    columns: Columns = {"cell": (say("Cell"), lambda row: in_words(row["cell"]))} | {
        name: (told(heading), lambda row, name=name: number(row[name], 4)) for name, heading in _LOSSES.items()
    }
    caption = say(
        "Mean loss over seeds in the last epoch, in nats. 'While training' is the mean over the batches of that epoch, "
        "while the weights still moved; the others are measured after it. The gap is the loss on validation images "
        "minus that on training images."
    )
    return Table.of("losses", caption, frame, columns)


def last_epoch(analysis: Analysis) -> Table:
    """Tabulate what the last epoch changed, which shows whether there is more to learn."""
    columns: Columns = {
        "cell": (say("Cell"), lambda row: in_words(row["cell"])),
        **estimated(say("Validation loss, nats"), 4, value="loss", ends=("loss_low", "loss_high")),
        **estimated(say("Validation accuracy, points"), value="accuracy", ends=("accuracy_low", "accuracy_high")),
    }
    caption = say("What the last epoch changed on validation images, in each run: mean over seeds.")
    return Table.of("last-epoch", caption, analysis.last_epoch, columns)


def _alt(frame: pd.DataFrame, shown: list[str]) -> str:
    rows = frame[frame["cell"].isin(shown)].dropna(subset="val_loss")
    losses = zip(rows["cell"], rows["train_loss_eval"], rows["val_loss"], strict=True)
    ends = "; ".join(
        say("{cell} {train} and {val}", cell=in_words(cell), train=figures(f"{train:.4f}"), val=figures(f"{val:.4f}"))
        for cell, train, val in losses
    )
    return say(
        "Line plots of loss against epoch, a panel for each of {cells}. Mean loss after the last epoch, on training "
        "images and on validation images: {ends}.",
        cells=plural(len(rows), "cell"), ends=ends,
    )  # fmt: skip


TEMPLATE = """
{% call figure(pictures, "losses") %}
      {% trans %}Mean losses over seeds, on training and on validation images, with their 95&nbsp;% intervals as bands.
      Both are measured after each epoch
      with the
      same weights and with dropout off, so the distance between the lines is the gap between images that the network
      has learnt from and images that it has not seen.{% endtrans %}{% if printed %} {% trans %}Hollow marks: what
      the course notebook behind
      this study printed from one run of each network. It measured its training loss while the weights still moved,
      and its validation loss with dropout on and with BatchNorm in training mode, so its marks need not lie on the
      lines.{% endtrans %}{% endif %}{% if part %} {{ part }} {% trans %}The table has all of
      them.{% endtrans %}{% endif %}

{% endcall %}
{{ table(tables.losses, highlight=reference) }}
{{ table(tables.last_epoch, highlight=reference) }}
"""
