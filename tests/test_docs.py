"""The documents: their commands exist, the quick ones run, their numbers are those of the result files."""

import contextlib
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from matplotlib.figure import Figure
from pages import Page

from mnist_ablate import cli, plots
from mnist_ablate.claims import judge as claims
from mnist_ablate.claims import page as claims_page
from mnist_ablate.design.plan import cells
from mnist_ablate.design.settings import KNOWN_FACTORS
from mnist_ablate.design.study import parse_study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.verdicts import judge
from mnist_ablate.report.__main__ import main as report_main
from mnist_ablate.report.sections.cells import table as cells_table
from mnist_ablate.report.sections.certainty import verdicts
from mnist_ablate.report.sections.effects import table as effects_table
from mnist_ablate.store.results import load

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    """Return every fenced block of `language` in the documents."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


COMMANDS = [shlex.split(line) for block in blocks("bash") for line in block.splitlines() if line.strip()]


def readme_module() -> ModuleType:
    """Import docs/readme.py."""
    return import_file(ROOT / "docs" / "readme.py")


def import_file(path: Path) -> ModuleType:
    """Import a file that is not part of the package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_exists(command: list[str]) -> None:
    """Each command of the documents is one that its program takes."""
    match command:
        case ["pip", "install", "nox"] | [".venv/bin/pre-commit", "install"]:
            return
        case ["nox", "-s", *sessions]:
            noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
            for session in sessions[: sessions.index("--")] if "--" in sessions else sessions:
                assert f"\ndef {session}(session" in noxfile
        case [".venv/bin/python", "-m", "mnist_ablate", *arguments]:
            cli._parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "mnist_ablate.report", *_]:
            with contextlib.suppress(SystemExit):
                report_main(["--help"])
        case [".venv/bin/dask", kind, *options]:
            program = importlib.import_module(f"distributed.cli.dask_{kind}").main
            known = {name for parameter in program.params for name in parameter.opts}
            assert {word for word in options if word.startswith("--")} <= known
        case _:
            pytest.fail(f"no check for this command: {command}")


def test_quick_look_runs(tmp_path: Path) -> None:
    """The quick command of the README does what it says, on real MNIST, and its page is there."""
    (command,) = (c for c in COMMANDS if "--epochs" in c)
    arguments = [str(tmp_path / "out") if word.startswith("/tmp/") else word for word in command[1:]]  # noqa: S108
    done = subprocess.run([sys.executable, *arguments, "--report"], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert "l2+dropout+batch_norm" in done.stdout
    assert (tmp_path / "out" / "report" / "index.html").exists()
    assert len(load(tmp_path / "out").documents) == 16


@pytest.mark.parametrize("block", blocks("toml"))
def test_every_study_in_the_documents_is_valid(block: str) -> None:
    """A study that a document shows can be run."""
    assert cells(parse_study(tomllib.loads(block)))


def test_the_settings_are_all_named() -> None:
    """The README lists every setting that can be a factor."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("| settings | what they are |")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)))
    assert sorted(named) == sorted(KNOWN_FACTORS)


def test_the_table_is_that_of_the_results() -> None:
    """The README's table is, to the digit, what the reference results give."""
    module = readme_module()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    results = load(module.REFERENCE)
    assert module.with_table(text, results) == text
    assert text.count("batch_norm |") >= 4


def test_the_answers_are_those_of_the_results() -> None:
    """The README's verdicts are what the rules give on the reference results, none of them provisional."""
    module = readme_module()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    results = load(module.REFERENCE)
    judgements = judge(results)
    assert module.with_answers(text, results) == text
    assert all(judgement.hypothesis.statement in text for judgement in judgements)
    assert {judgement.provisional for judgement in judgements} == {""}
    assert f"{judgements[0].sample.n} seeds of each cell" in text


@pytest.fixture(scope="module")
def found() -> list[claims.ClaimAnswer]:
    """Answer the claims from the reference results."""
    return claims.answer_all(claims.References.read(readme_module().REFERENCES))


def test_the_claims_are_those_of_the_results(found: list[claims.ClaimAnswer]) -> None:
    """The README's table of claims is, to the digit, what the reference results give."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_module().with_claims(text, found) == text
    assert all(answer.claim.claim in text for answer in found)


def test_the_article_is_that_of_the_results(found: list[claims.ClaimAnswer]) -> None:
    """docs/findings.md is, to the byte, what the reference results give."""
    module = readme_module()
    assert module.FINDINGS.read_text(encoding="utf-8") == module.findings(found)


def test_the_answers_page_is_that_of_the_results(
    found: list[claims.ClaimAnswer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The committed page is, but for its pictures, what the reference results give, and its links lead somewhere."""
    folder = ROOT / "reports" / "reference"
    kept = (folder / "index.html").read_text(encoding="utf-8")
    monkeypatch.setattr(plots, "judged", lambda *_, **__: Figure((1, 1)))
    assert without_pictures(claims_page.page(found)) == without_pictures(kept)
    links = set(re.findall(r'href="([^"#]+)"', kept))
    assert links
    assert all((folder / link).exists() for link in links)


def without_pictures(page: str) -> str:
    """Take the drawings, which differ between versions of matplotlib, out of a page."""
    return re.sub(r"<svg .*?</svg>", "", page, flags=re.DOTALL)


def test_reference_results_are_planned() -> None:
    """Every study that claims ask for can be made, also on Fashion-MNIST; the gate has a reference of its own."""
    names = import_file(ROOT / "docs" / "reference.py").names()
    asked = {place.hypothesis.partition("/")[0] for claim in claims.claims() for _, _, place in claim.places}
    assert asked <= set(names)
    assert "gate" not in names
    assert {"variance", "notebook", "factorial-fashion-mnist"} <= set(names)


def test_a_missing_mark_is_an_error() -> None:
    """A README without the place of a table is refused, rather than left as it is."""
    module = readme_module()
    with pytest.raises(SystemExit, match="verdicts of results/reference/factorial"):
        module.with_answers("no marks", load(module.REFERENCE))


def test_the_reference_page_is_that_of_the_results() -> None:
    """The committed page's tables are, byte for byte, what the reference results give."""
    page = Page((ROOT / "reports" / "reference" / "factorial" / "index.html").read_text(encoding="utf-8"))
    links = {link["download"]: str(link["href"]) for link in page.all("a") if "download" in link}
    analysis = analyse(load(readme_module().REFERENCE))
    for table in (cells_table(analysis), effects_table(analysis), verdicts(analysis.judgements)):
        with urllib.request.urlopen(links[f"{table.name}.csv"]) as file:  # noqa: S310 # data in the page
            assert file.read().decode() == table.csv
    assert all(row["difference"] in page.text for row in cells_table(analysis).rows)


def test_code_for_notebooks_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented calls work as they stand, one block after another, and draw a picture."""
    text = (ROOT / "docs" / "in-a-notebook.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)  # noqa: S102 # our own document
    assert (tmp_path / "effects.png").stat().st_size > 10_000
    assert len(names["verdicts"]) == 9  # type: ignore[arg-type]


def test_the_performance_table_is_that_of_the_measurements() -> None:
    """The README's times are, to the digit, those of the measurements, with the processor they were taken on."""
    module = readme_module()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    measurements = pd.read_parquet(module.PERFORMANCE)
    assert module.with_performance(text, measurements) == text
    assert str(measurements["processor"].iloc[0]) in text
    assert all(label in text for label in module.performance.LABELS.values())


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    """The documented model and study, under 30 lines together, run as they stand, with one column per factor."""
    text = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
    (code,), (study,) = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "toml"))
    assert len([line for line in (code + study).splitlines() if line.strip()]) < 30
    assert "numba" not in text.lower()
    (tmp_path / "my_models.py").write_text(code)
    (tmp_path / "activation.toml").write_text(study.replace("seeds = 2", "seeds = 1"))
    command = [sys.executable, "-m", "mnist_ablate", "run", "activation.toml", "--report"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    results = load(tmp_path / "results" / "activation")
    assert set(results.final["activation"]) == {"relu", "gelu", "tanh"}
    assert results.final["test_accuracy"].between(0.8, 0.97).all()
    assert results.final["test_loss"].nunique() == 6
    assert (tmp_path / "reports" / "activation" / "index.html").exists()


def test_a_study_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented study, cut to one seed, runs to its page, and its Python blocks work as they stand."""
    text = (ROOT / "docs" / "your-own-study.md").read_text(encoding="utf-8")
    (study,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert study.count("seeds = 6") == 1
    monkeypatch.chdir(tmp_path)
    Path("depth.toml").write_text(study.replace("seeds = 6", "seeds = 1"))
    assert cli.main(["plan", "depth.toml"]) == 0
    assert cli.main(["run", "depth.toml", "--report", "--workers", "1"]) == 0
    page = Path("reports/depth/index.html").read_text(encoding="utf-8")
    assert all(words in page for words in ("Four layers gain more accuracy", 'id="levels-depth"'))
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)  # noqa: S102 # our own document
    shuffled, depth = load("results/shuffled"), load("results/depth")
    assert len(shuffled.documents) == len(depth.documents) == 6
    assert not shuffled.final["test_loss"].isin(depth.final["test_loss"]).any()
    assert shuffled.final["test_accuracy"].between(0.5, 0.97).all()
    assert Path("reports/shuffled/index.html").exists()


def test_a_cluster_on_this_machine(tmp_path: Path) -> None:
    """The documented study on a cluster of processes runs as it stands, and ends without a complaint."""
    text = (ROOT / "docs" / "many-machines.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "8 runs"
    assert "Traceback" not in done.stderr
    assert len(load(tmp_path / "results" / "local-cluster").documents) == 8


def test_the_gate_on_any_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The documented gate for training of one's own, under 20 lines, runs as it stands, and passes."""
    text = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) < 20
    exec(compile(code, "gate.md", "exec"), {})  # noqa: S102  # it is our own document
    assert capsys.readouterr().out.startswith("Pass: value moved by ")


def test_the_examples_name_what_there_is() -> None:
    """The workflow and the hook run commands that exist, and show files that the gate writes."""
    workflow = (ROOT / "docs" / "examples" / "regression-gate.yml").read_text(encoding="utf-8")
    hook = (ROOT / "docs" / "examples" / "pre-commit-gate.yaml").read_text(encoding="utf-8")
    assert "run: nox -s regression\n" in workflow
    assert "\ndef regression(session" in (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert all(f"results/gate/{name}" in workflow for name in ("gate.md", "gate.xml"))
    (entry,) = re.findall(r"entry: \.venv/bin/python -m mnist_ablate (.*)", hook)
    assert cli._parser().parse_args(shlex.split(entry)).out == Path("results/gate")


def test_the_power_table_is_that_of_the_measurements() -> None:
    """The gate's tables are, to the digit, what the committed measurements give."""
    module = import_file(ROOT / "docs" / "gate_power.py")
    text = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    measured = module.measurements()
    assert module.with_power(text, *measured) == text
    assert all(bug.what in text for bug in module.BUGS if bug.name in set(measured[0]["item"]))


def test_the_tables_across_versions_are_those_of_the_measurements() -> None:
    """The README's table of versions, and those of docs/reproducibility.md, are what the committed files give."""
    module = readme_module()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    promises = (ROOT / "docs" / "reproducibility.md").read_text(encoding="utf-8")
    assert module.with_compat(readme) == readme
    assert module.with_reproducibility(promises) == promises
    measured = pd.read_parquet(ROOT / "results" / "reference" / "reproducibility.parquet")
    assert all(name in promises for name in measured["processor"])


def test_every_promise_names_a_test_that_exists() -> None:
    """Each line on what is promised, and on what is not, names at least one test, and each of those is there."""
    text = (ROOT / "docs" / "reproducibility.md").read_text(encoding="utf-8").partition("## How much other bits")[0]
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(lines) >= 14
    for line in lines:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", line)
        assert named, line
        for path, test in named:
            assert f"\ndef {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{test}"


def test_the_tables_of_reliability_are_those_of_the_measurements() -> None:
    """The counts of faults are, to the digit, those of the committed file."""
    module = import_file(ROOT / "docs" / "reliability.py")
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.page(text) == text


def test_no_row_is_lost_double_or_different() -> None:
    """Of 200 faults and more, five of each kind at each stage, none left anything wrong."""
    faults = pd.read_parquet(ROOT / "results" / "reference" / "faults.parquet")
    assert len(faults) >= 200
    assert faults.groupby(["kind", "part", "stage"])["seed"].nunique().min() >= 5
    assert not faults[["lost", "double", "different", "left_over", "unseen", "hung", "traceback"]].to_numpy().any()
    assert not faults["bad"].any()
