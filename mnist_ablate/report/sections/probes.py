"""Inside the networks: the effects on what the study's probes measured."""

from mnist_ablate.design.responses import RESPONSES, Response
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import say
from mnist_ablate.report.format import number, out_of
from mnist_ablate.report.section import Section
from mnist_ablate.report.tables import Columns, Row, Table, estimated


def section(analysis: Analysis) -> Section | None:
    """Return the effects on what probes measured; None without probes."""
    if analysis.probed is None:
        return None
    columns: Columns = {
        "what": (say("Measured, unit"), lambda row: f"{_response(row).name}, {_response(row).unit_name}"),
        "label": (say("Effect of"), lambda row: in_words(row["label"])),
        "mean": (say("Mean of all cells"), lambda row: number(row["mean"], _response(row).digits)),
        "n": (say("Seeds"), lambda row: out_of(int(row["n"]), int(row["n_planned"]))),
        **estimated(say("Estimate"), lambda row: _response(row).digits),
    }
    caption = say(
        "Effects on what was measured inside the trained networks, averaged over the other factors. For logarithms, an "
        "effect of 0.05 is about 5 %. A run that diverged has no such numbers: the effects here leave its seed out, as "
        "the column of seeds shows, and verdicts count it as a failure."
    )
    table = Table.of("probes", caption, analysis.probed, columns)
    return Section("probes", say("Inside the networks"), "{{ table(tables.probes) }}", {"probes": table})


def _response(row: Row) -> Response:
    return RESPONSES[str(row["response"])]
