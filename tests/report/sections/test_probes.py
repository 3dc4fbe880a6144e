"""Inside the networks: the table counts the seeds that it has numbers of."""

import synthetic

from mnist_ablate.design.responses import PROBES
from mnist_ablate.design.study import parse_study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.report.sections.probes import section


def test_probes_count_the_seeds_that_they_have() -> None:
    """A run without numbers takes its seed out of the effects on them, and the table says so."""
    study = parse_study({"name": "s", "seeds": 5, "probes": ["weights"], "factors": {"dropout": [0.0, 0.2]}})
    results = synthetic.results(study)
    for i, document in enumerate(results.documents.values()):
        document["probes"] = {"weights": dict.fromkeys(PROBES["weights"], None if i == 0 else float(i))}
    made = section(analyse(results))
    assert made
    table = made.tables["probes"]
    assert table
    assert [row["n"] for row in table.rows] == ["4 of 5", "4 of 5"]
    assert [row["estimate"] for row in table.rows] == ["+1.000", "+1.000"]  # runs alternate between the two cells
    assert table.rows[0]["what"] == "log of the weights' norm, log ratio"
