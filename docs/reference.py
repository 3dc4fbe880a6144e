"""Make the reference results and their pages: ``nox -s reference``, all of them or those named after ``--``.

Each study is run, resumably, in ``results/<study>``, and kept as a compact folder in ``results/reference/<study>``.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from mnist_ablate import runner
from mnist_ablate.report import write
from mnist_ablate.store import write_compact

ROOT = Path(__file__).parent.parent
SEEDS = {"factorial": 120}
"""Seeds of each study: what its hypotheses need, by `python -m mnist_ablate plan STUDY --power PILOT`."""


def make(study: str) -> None:
    """Run a study to its end, then put its results and its page in the place of the old ones."""
    results = runner.run(study, seeds=SEEDS[study], out=ROOT / "results" / study)
    kept = ROOT / "results" / "reference" / study
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        new = write_compact(results, Path(folder) / study)
        shutil.rmtree(kept, ignore_errors=True)
        new.rename(kept)
    write(kept.relative_to(Path.cwd()), ROOT / "reports" / "reference" / study)


def main() -> None:
    """Make those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(SEEDS)}; by default all")
    for study in parser.parse_args().studies or SEEDS:
        if study not in SEEDS:
            parser.error(f"{study}: no reference results are planned; allowed: {', '.join(SEEDS)}")
        make(study)


if __name__ == "__main__":
    main()
