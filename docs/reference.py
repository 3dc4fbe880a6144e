"""Make the reference results and their pages: ``nox -s reference``, all of them or those named after ``--``.

Each study is run, resumably, in ``results/<name>``, and kept as a compact folder in ``results/reference/<name>``. Its
page, and the page that answers all claims, are made after each study; ``--pages`` makes them from what is kept, and
trains nothing.
"""

import argparse
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from mnist_ablate.claims import judge as claims
from mnist_ablate.claims import page as claims_page
from mnist_ablate.design.study import bundled_studies
from mnist_ablate.errors import MnistAblateError
from mnist_ablate.execution import runner
from mnist_ablate.report import write
from mnist_ablate.store.compact import write_compact
from mnist_ablate.store.results import Results

ROOT = Path(__file__).parent.parent
KEPT = Path("results") / "reference"
PAGES = Path("reports") / "reference"
SEEDS = {"factorial": 120, "factorial-fashion-mnist": 60}
"""Seeds where they are not those of the study's file: what hypotheses need, by `plan STUDY --power PILOT`, or what
three quarters of an hour on two cores pay for."""


WITHOUT_ANSWERS = {"learning-rate", "train-size"}
"""Studies of which no wrong answers are kept: networks that did not train, or saw few images, have most of them."""


def names() -> list[str]:
    """List what reference results are made of: bundled studies but the gate's, which has its own, and special ones."""
    return sorted({*bundled_studies(), *claims.special_references()} - {"gate"})


def make(name: str) -> None:
    """Run a study to its end, put its results in the place of the old ones, and make the pages."""
    results, folder = _run(name), KEPT / name
    with tempfile.TemporaryDirectory(dir=KEPT) as temporary:
        new = write_compact(results, Path(temporary) / name, answers=name not in WITHOUT_ANSWERS)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    write(folder, PAGES / name)
    write_answers()


def _run(name: str) -> Results:
    special, out = claims.special_references().get(name), Path("results") / name
    if special is None:
        return runner.run(name, seeds=SEEDS.get(name), out=out)
    results = runner.run(special.study, dataset=special.dataset, seeds=SEEDS.get(name), out=out)
    return replace(results, study=results.study.model_copy(update={"title": special.title}))


def write_answers() -> None:
    """Make the page that answers all claims."""
    claims_page.write(KEPT, PAGES)


def write_pages(wanted: list[str]) -> None:
    """Make the pages of those results that are kept, and the answers."""
    for name in wanted:
        if (KEPT / name / "study.json").exists():
            write(KEPT / name, PAGES / name)
    write_answers()


def main() -> None:
    """Make those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(names())}; by default all")
    parser.add_argument("--pages", action="store_true", help="only the pages, from what is kept")
    arguments = parser.parse_args()
    wanted = arguments.studies or names()
    if unknown := [name for name in wanted if name not in names()]:
        parser.error(f"{unknown[0]}: no reference results are planned; allowed: {', '.join(names())}")
    os.chdir(ROOT)  # a page names the folder that it was made from
    if arguments.pages:
        write_pages(wanted)
        return
    try:
        for name in wanted:
            make(name)
    except MnistAblateError as error:
        parser.exit(error.exit_status, f"{error}\n")
    print("The README and docs/findings.md have not changed yet: nox -s readme")  # noqa: T201


if __name__ == "__main__":
    main()
