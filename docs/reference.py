"""Make the reference results and their pages: ``nox -s reference``, all of them or those named after ``--``.

Run each study, resumably, in ``results/<name>``: until it is settled if its file says how, else with its number of
seeds. Keep it as a compact folder in ``results/reference/<name>``. Then write its page, and the page that answers all
claims. ``nox -s reference -- --pages`` writes the pages from the kept results and trains nothing; with ``--lang es`` in
Spanish, in ``reports/reference/es``, which is not kept. ``--device cuda`` trains on a graphics card, which gives the
same results.

Only the pages are kept in git. ``python -m mnist_ablate.report results/reference/<name>`` writes a study's page with
its summary, figures and tables as files.
"""

import argparse
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import mnist_ablate
from mnist_ablate.claims import judge as claims
from mnist_ablate.claims import page as claims_page
from mnist_ablate.errors import MnistAblateError
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.language import ENGLISH, folder_of
from mnist_ablate.store.compact import write_compact
from mnist_ablate.store.results import Results

ROOT = Path(__file__).parent.parent
KEPT = Path("results") / "reference"
PAGES = Path("reports") / "reference"
WITHOUT_ANSWERS = {"learning-rate"}
"""Studies whose wrong answers are not kept: networks that did not train give too many, and no hypothesis needs them."""


def make(name: str, device: str = "auto") -> None:
    """Run a study until it is settled, or to its end, replace the kept results with its own, and write the pages."""
    results, folder = _run(name, device), KEPT / name
    with tempfile.TemporaryDirectory(dir=KEPT) as temporary:
        new = write_compact(results, Path(temporary) / name, answers=name not in WITHOUT_ANSWERS)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    write_pages([name])


def _run(name: str, device: str) -> Results:
    """Return the runs that the verdicts rest on: not those which workers had begun when the study stopped."""
    special, out = claims.special_references().get(name), Path("results") / name
    study, dataset = (name, None) if special is None else (special.study, special.dataset)
    grows = len(mnist_ablate.load_study(study).looks) > 1
    made = mnist_ablate.run(study, dataset=dataset, until_settled=grows, device=device, out=out)
    results = analyse(made).trained
    assert results is not None  # noqa: S101 # `run` trained them
    if special is None:
        return results
    return replace(results, study=results.study.model_copy(update={"title": special.title}))


def write_pages(studies: list[str], lang: str = ENGLISH) -> None:
    """Write the pages of studies whose results are kept, and the page that answers all claims."""
    claims_page.write_all(KEPT, folder_of(PAGES, lang), studies=studies, lang=lang)


def main() -> None:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = claims.reference_names()
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"{', '.join(known)}; by default all")
    parser.add_argument("--device", metavar="NAME", default="auto", help="what trains, as for run")
    parser.add_argument("--pages", action="store_true", help="write only the pages, from the kept results")
    parser.add_argument("--lang", metavar="CODE", default=ENGLISH, help="language of the pages; else en")
    arguments = parser.parse_args()
    wanted = arguments.studies or known
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"{unknown[0]}: no reference results are planned; allowed: {', '.join(known)}")
    os.chdir(ROOT)  # a page names the folder of its results
    try:
        if arguments.pages:
            write_pages(wanted, arguments.lang)
            return
        for name in wanted:
            make(name, arguments.device)
    except MnistAblateError as error:
        parser.exit(error.exit_status, f"{error}\n")
    print("The README and the articles have not changed yet: nox -s readme")  # noqa: T201


if __name__ == "__main__":
    main()
