"""The documents: their commands, code and links work, and their numbers are those of the result files."""

import argparse
import functools
import importlib
import io
import re
import runpy
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import nox
import numpy as np
import pandas as pd
import pytest
import synthetic
import yaml
from matplotlib.figure import Figure
from outside import import_file
from pages import Page

import mnist_ablate
from mnist_ablate import cli, plots
from mnist_ablate.claims import judge as claims
from mnist_ablate.claims import page as claims_page
from mnist_ablate.design.plan import cells
from mnist_ablate.design.settings import KNOWN_FACTORS
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.store.results import Results, load
from mnist_ablate.tables import design as tables_design

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "notebooks/README.md")
] + sorted((ROOT / "docs").glob("*.md"))  # fmt: skip
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]


def read(name: str) -> str:
    """Read a document."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(language: str, *names: str) -> list[str]:
    """Return every fenced block of `language` in the documents, by default in all."""
    text = "\n".join(map(read, names or NAMES))
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def spans() -> list[str]:
    """Return everything that stands between backticks within the lines of the documents."""
    prose = re.sub(r"^```.*?^```", "", "\n".join(map(read, NAMES)), flags=re.DOTALL | re.MULTILINE)
    return list(dict.fromkeys(re.findall(r"`([^`\n]+)`", prose)))


@functools.cache
def readme_module() -> ModuleType:
    """Import docs/readme.py."""
    return import_file(ROOT / "docs" / "readme.py")


# ---- Commands ----

COMMANDS = {" ".join(words): words for block in blocks("bash") for words in map(shlex.split, block.splitlines())}
COMMANDS |= {span: shlex.split(span) for span in spans() if re.match(r"(nox|pip|\.venv/bin/\S+) -?\w", span)}
SUBCOMMANDS = ("run", "report", "plan", "judge", "claims", "verify", "doctor", "compare", "data", "gate")


class Parsed(Exception):  # noqa: N818 # no error
    """A parser has taken its arguments."""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], argparse.Namespace]:
    """Return what runs a program until its own parser has taken its arguments, and returns what it made of them."""
    real = argparse.ArgumentParser.parse_args

    def parse_and_stop(*arguments: object, **options: object) -> None:
        raise Parsed(real(*arguments, **options))  # type: ignore[call-overload]

    def until_parsed(program: Callable[[], object]) -> argparse.Namespace:
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        with pytest.raises(Parsed) as parsed:
            program()
        namespace: argparse.Namespace = parsed.value.args[0]
        return namespace

    return until_parsed


class Session:
    """Stands in for a session of nox, and keeps the commands that it is told to run."""

    bin = "no such folder"

    def __init__(self, posargs: list[str]) -> None:
        self.posargs = posargs
        self.commands: list[list[str]] = []

    def run(self, *command: str, **_: object) -> None:
        """Keep a command."""
        self.commands.append(list(command))

    def install(self, *_: str) -> None:
        """Install nothing."""


@functools.cache
def sessions() -> dict[str, Callable[[Session], None]]:
    """Return the sessions of the noxfile by name."""
    import_file(ROOT / "noxfile.py")
    return dict(nox.registry.get())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists(
    command: str,
    parse: Callable[[Callable[[], object]], argparse.Namespace],
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
) -> None:
    """Each program takes the arguments that the documents give it, also through a session of nox."""

    def check(words: list[str]) -> None:
        match words:
            case [_, "-m", "mnist_ablate"]:  # the program is named, not called
                pass
            case [_, "-m", "mnist_ablate", *arguments]:
                parse(lambda: cli.main(arguments))
            case [_, "-m", "mnist_ablate.report", *arguments]:
                report = importlib.import_module("mnist_ablate.report.__main__")
                parse(lambda: report.main(arguments))
            case [_, "-m", "pytest", *arguments]:
                for option in (word.partition("=")[0] for word in arguments if word.startswith("-")):
                    pytestconfig.getoption(option)  # raises where there is no such option
            case [_, "-m", "ruff" | "mypy" | "sphinx", *_] | [_, "-m", "pip", "list", "--format=freeze"]:
                pass
            case [_, script, *arguments] if script.endswith(".py"):
                assert (ROOT / script).exists()
                if arguments:
                    assert ".parse_args(" in (ROOT / script).read_text(encoding="utf-8")
                    monkeypatch.setattr(sys, "argv", [script, *arguments])
                    monkeypatch.syspath_prepend(ROOT / script.rpartition("/")[0])
                    parse(lambda: runpy.run_path(str(ROOT / script), run_name="__main__"))
            case [program] if program.endswith("lint-imports"):
                pass
            case ["pip", "install", wanted] if wanted.startswith("mnist-ablate["):
                extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
                assert set(wanted[13:-1].split(",")) <= extras["optional-dependencies"].keys()
            case ["pip", "download", "--no-deps", *_]:
                pass
            case _:
                pytest.fail(f"no check for this command: {words}")

    match COMMANDS[command]:
        case ["pip", "install", "nox" | "mnist-ablate[cluster]" | "mnist-ablate[tensorboard]"] | ["nox", "-l"]:
            pass
        case ["pip", "install", "torch" | ".[fast]", *_]:
            pass
        case ["jupyter", "lab", folder]:
            assert (ROOT / folder).is_dir()
        case [".venv/bin/pre-commit", "install"]:
            assert (ROOT / ".pre-commit-config.yaml").exists()
        case ["nox", "-s", *names]:
            names, arguments = (
                (names[: names.index("--")], names[names.index("--") + 1 :]) if "--" in names else (names, [])
            )
            assert set(names) <= set(sessions())
            for name in set(names) - {"env", "lowest"}:  # which make environments
                session = Session(arguments)
                sessions()[name](session)
                assert not arguments or any(run[-len(arguments) :] == arguments for run in session.commands)
                for run in session.commands:
                    check(run)
        case [".venv/bin/dask", kind, *options]:
            program = importlib.import_module(f"distributed.cli.dask_{kind}").main
            known = {name for parameter in program.params for name in parameter.opts}
            assert {word for word in options if word.startswith("--")} <= known
        case words:
            check(words)


def options_of(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Return the options that the help text of a command names, without ``--help``."""
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    return set(re.findall(r"(?<![\w-])--[\w-]+", capsys.readouterr().out)) - {"--help"}


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_every_option_of_a_command_is_documented(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/commands.md names every option of every command in its row, and none that there is not."""
    (row,) = re.findall(rf"^\| `{command}\b.*$", read("docs/commands.md"), re.MULTILINE)
    assert set(re.findall(r"--[\w-]+", row)) == options_of(command, capsys)


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_every_option_in_passing_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that is named with options within a sentence has these options."""
    named = {option for span in spans() if span.startswith(f"{command} ") for option in re.findall(r"--[\w-]+", span)}
    assert named <= options_of(command, capsys)


def test_quick_look_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick command of the README trains on real MNIST, and its Python reads the runs and writes the report."""
    (command,) = (words for words in COMMANDS.values() if "--epochs" in words)
    out = tmp_path / "out"
    arguments = [str(out) if word == "/tmp/quick-look" else word for word in command[1:]]  # noqa: S108
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    results = load(out)
    assert len(results.documents) == 8
    assert all(f"{100 * accuracy:.2f}" in done.stdout for accuracy in results.final["test_accuracy"])
    (code,) = blocks("python", "README.md")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code.replace("/tmp/quick-look", str(out)), names)  # noqa: S102, S108 # our own document
    pd.testing.assert_frame_equal(names["results"].epochs, results.epochs)  # type: ignore[attr-defined]
    assert (out / "report" / "index.html").exists()


# ---- Links, files and settings ----


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    """Each link to a file of the repository finds the file, and the heading that it names."""
    prose = re.sub(r"^```.*?^```", "", read(name), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"(?:\]\(|src=\"|srcset=\")([^)\"\s]+)", prose):
        if link.startswith("https://"):
            continue
        path, _, place = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE) if place else []
        assert not place or place in map(anchor, headings), link


def test_every_page_is_found_from_the_readme() -> None:
    """The README links to every page in docs/ but those that only Sphinx can show, and is short."""
    text = read("README.md")
    pages = [name for name in NAMES if name.startswith("docs/") and "```{" not in read(name)]
    assert all(f"]({name})" in text for name in pages)
    assert len(pages) > 15
    assert len(text.splitlines()) <= 120


def test_the_house_is_that_of_the_package() -> None:
    """CONTRIBUTING.md names each folder of the package, and every file that it names is there."""
    text = read("CONTRIBUTING.md")
    (tree,) = blocks("text", "CONTRIBUTING.md")
    package = ROOT / "mnist_ablate"
    folders = {path.parent.relative_to(package).parts[0] for path in package.glob("*/__init__.py")}
    assert set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)) == folders
    files = re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?)`", text)
    assert len(files) > 20
    missing = [file for file in files if not any((folder / file).exists() for folder in (package, ROOT))]
    assert missing == []


@pytest.mark.parametrize("block", blocks("toml"))
def test_every_study_in_the_documents_is_valid(block: str) -> None:
    """A study that a document shows can be run, and one of a table has cells to judge."""
    document = tomllib.loads(block)
    if "table" in document:
        assert tables_design.parse(document, "document", "document").cell_levels
    else:
        assert cells(parse_study(document))


def test_the_settings_are_all_named() -> None:
    """docs/study-files.md lists every setting that can be a factor."""
    table = read("docs/study-files.md").partition("| settings | what they are |")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)))
    assert sorted(named) == sorted(KNOWN_FACTORS)


# ---- Numbers ----

WRITTEN_ELSEWHERE = {"benchmarks/README.md", "docs/calibration.md", "docs/gate-power.md"}
"""Documents whose tables the benchmark itself writes."""


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, str]]:
    """Make the tables of the documents from the reference results."""
    tables: dict[str, dict[str, str]] = readme_module().tables()
    return tables


def test_every_table_is_that_of_the_results(made: dict[str, dict[str, str]]) -> None:
    """Each table of a document is, to the digit, what the committed result files give, and each place is filled."""
    marks = import_file(ROOT / "docs" / "marks.py")
    for name, tables in made.items():
        text = read(name)
        assert all(marks.between(source, table, text) == text for source, table in tables.items()), name
    places = {name: set(re.findall(r"<!-- table: (.*?) -->", read(name))) for name in set(NAMES) - WRITTEN_ELSEWHERE}
    assert {name: sources for name, sources in places.items() if sources} == {
        name: set(tables) for name, tables in made.items()
    }


def test_a_missing_mark_is_an_error() -> None:
    """A document without the place of a table is refused, rather than left as it is; so is one with two."""
    marks = import_file(ROOT / "docs" / "marks.py")
    place = "<!-- table: a -->\n<!-- end -->\n"
    assert marks.between("a", "new", place) == "<!-- table: a -->\nnew\n<!-- end -->\n"
    for text in ("no marks", place.replace("a", "b"), place + place):
        with pytest.raises(SystemExit, match="the table from a"):
            marks.between("a", "new", text)


def test_what_the_tables_show(made: dict[str, dict[str, str]]) -> None:
    """The tables show all hypotheses, cells, claims and arrangements, and say what they were measured on."""
    module = readme_module()
    results = claims.as_declared("factorial", load(module.REFERENCE))
    judgements = Analysis(results).judgements
    (verdicts,) = (table for name, table in made["README.md"].items() if name.startswith("verdicts"))
    rows = verdicts.splitlines()[2:]
    for judgement, row in zip(judgements, rows, strict=True):
        assert judgement.hypothesis.statement in row
        assert (", provisional |" in row) == bool(judgement.provisional)
    assert f"{judgements[0].sample.n} seeds of each cell" in read("README.md")
    found = made["docs/results.md"]
    assert found["results/reference/factorial"].count("\n") == 1 + len(cells(results.study)) == 9
    assert all(claim.claim in found["claims"] for claim in claims.claims())
    (performance,) = made["docs/performance.md"].values()
    measurements = pd.read_parquet(module.REFERENCES / "performance.parquet")
    assert str(measurements["processor"].iloc[0]) in performance
    assert all(label in performance for label in module.performance.LABELS.values())
    measured = pd.read_parquet(module.REFERENCES / "reproducibility.parquet")
    assert all(name in read("docs/reproducibility.md") for name in measured["processor"])


def test_the_answers_page_is_that_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The committed page is, except for its pictures, what the reference results give, and its links lead somewhere."""
    folder = ROOT / "reports" / "reference"
    kept = (folder / "index.html").read_text(encoding="utf-8")
    monkeypatch.setattr(plots, "judged", lambda *_, **__: Figure((1, 1)))
    module = readme_module()
    assert without_pictures(claims_page.page(module.answers(), module.found())) == without_pictures(kept)
    links = set(re.findall(r'href="([^"#]+)"', kept))
    assert links
    assert all((folder / link).exists() for link in links)


def without_pictures(page: str) -> str:
    """Take the drawings, which differ between versions of matplotlib, out of a page."""
    return re.sub(r"base64,[A-Za-z0-9+/=]+", "", re.sub(r"<svg\b.*?</svg>", "", page, flags=re.DOTALL))


def test_the_reference_page_is_that_of_the_results() -> None:
    """The tables that the committed page offers are, byte for byte, what the reference results give."""
    page = Page(read("reports/reference/factorial/index.html"))
    analysis = Analysis(claims.as_declared("factorial", load(readme_module().REFERENCE)))
    for name, frame in (("cells", analysis.cells()), ("effects-test-accuracy", analysis.effects())):
        assert page.offered(name) == frame.to_csv(index=False, lineterminator="\n")
    verdicts = pd.read_csv(io.StringIO(page.offered("verdicts")))
    expected = [(judgement.hypothesis.id, judgement.verdict, judgement.sample.n) for judgement in analysis.judgements]
    assert list(verdicts[["id", "verdict", "n"]].itertuples(index=False, name=None)) == expected


def test_reference_results_are_planned() -> None:
    """Every study that claims ask for can be made, also on Fashion-MNIST; the gate has a reference of its own."""
    names = claims.reference_names()
    asked = {place.hypothesis.partition("/")[0] for claim in claims.claims() for _, _, place in claim.places}
    assert asked <= set(names)
    assert "gate" not in names
    assert {"variance", "notebook", "factorial-fashion-mnist"} <= set(names)


@pytest.mark.parametrize(("name", "kept"), [("factorial", 10), ("factorial-fashion-mnist", 10), ("variance", 12)])
def test_reference_results_end_where_their_study_stops(name: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies with a rule go on until they are settled, and what was trained beyond that is not kept; others have all.

    So what is kept does not depend on who was training when the study stopped.
    """
    asked = []

    def run(study: str, **options: object) -> Results:
        asked.append((study, options["dataset"], options["until_settled"], options["device"], options["out"]))
        return synthetic.results(load_study(study).reaching(12), declared={})

    monkeypatch.setattr(mnist_ablate, "run", run)
    results = import_file(ROOT / "docs" / "reference.py")._run(name, "cuda")
    special, out = claims.special_references().get(name), Path("results") / name
    wanted = (name, None) if special is None else (special.study, special.dataset)
    assert asked == [(*wanted, name != "variance", "cuda", out)]
    assert results.final["seed"].unique().tolist() == list(range(1000, 1000 + kept))
    assert results.study.n_seeds == kept
    assert results.study.title == (load_study(name) if special is None else special).title


def test_the_power_table_is_that_of_the_measurements() -> None:
    """The gate's tables are, to the digit, what the committed measurements give."""
    module = import_file(ROOT / "docs" / "gate_power.py")
    text = read("docs/gate-power.md")
    measured = module.measurements()
    assert module.with_power(text, *measured) == text
    assert all(bug.what in text for bug in module.BUGS if bug.name in set(measured[0]["item"]))


def test_every_promise_names_a_test_that_exists() -> None:
    """Each line on what is promised, and on what is not, names at least one test, and each of those is there."""
    text = read("docs/reproducibility.md").partition("## How much other bits")[0]
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(lines) >= 14
    for line in lines:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", line)
        assert named, line
        for path, test in named:
            assert f"\ndef {test}(" in read(path), f"{path}::{test}"


def test_no_row_is_lost_double_or_different() -> None:
    """Of 200 faults and more, five of each kind at each stage, none left anything wrong."""
    faults = pd.read_parquet(ROOT / "results" / "reference" / "faults.parquet")
    assert len(faults) >= 200
    assert faults.groupby(["kind", "part", "stage"])["seed"].nunique().min() >= 5
    assert not faults[["lost", "double", "different", "left_over", "unseen"]].to_numpy().any()
    assert not faults["bad"].any()


# ---- Code ----


def test_code_for_notebooks_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented calls work as they stand, one block after another, and draw a picture."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    names: dict[str, object] = {}
    for block in blocks("python", "docs/in-a-notebook.md"):
        exec(block, names)  # noqa: S102 # our own document
    assert (tmp_path / "effects.png").stat().st_size > 10_000
    assert len(names["verdicts"]) == 9  # type: ignore[arg-type]
    assert len(names["z"]) == load(ROOT / "results" / "reference" / "factorial").final["seed"].nunique()  # type: ignore[arg-type]


def test_the_pictures_for_notebooks_exist() -> None:
    """Each picture that docs/in-a-notebook.md lists is public."""
    named = re.findall(r"^\| `plots\.(\w+)` \|", read("docs/in-a-notebook.md"), re.MULTILINE)
    assert len(named) >= 7
    assert set(named) <= set(plots.__all__)


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    """The documented model and study, under 30 lines together, run as they stand, with one column per factor."""
    text = read("docs/own-model.md")
    (code,), (study,) = (blocks(kind, "docs/own-model.md") for kind in ("python", "toml"))
    assert len([line for line in (code + study).splitlines() if line.strip()]) < 30
    assert "numba" not in text.lower()
    (tmp_path / "my_models.py").write_text(code)
    (tmp_path / "activation.toml").write_text(study.replace("seeds = 2", "seeds = 1"))
    ((_, *arguments),) = (shlex.split(block) for block in blocks("bash", "docs/own-model.md"))
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    results = load(tmp_path / "results" / "activation")
    assert set(results.final["activation"]) == {"relu", "gelu", "tanh"}
    assert results.final["test_accuracy"].between(0.8, 0.97).all()
    assert results.final["test_loss"].nunique() == 6
    assert (tmp_path / "reports" / "activation" / "index.html").exists()


OWN = {"momentum": "test_accuracy", "trees": "error", "pools": "test_accuracy"}
"""The studies of docs/own-training.md, and what each is about."""


@pytest.fixture
def own_folder(in_folder: Path) -> Iterator[Path]:
    """Write the documented functions, each file in at most 30 lines, and their studies; forget them afterwards."""
    *codes, _ = blocks("python", "docs/own-training.md")
    modules = ["nets" if name == "pools" else name for name in OWN]
    for module, name, code, study in zip(modules, OWN, codes, blocks("toml", "docs/own-training.md"), strict=True):
        assert len([line for line in code.splitlines() if line.strip()]) <= 30
        assert f'name = "{name}"' in study
        (in_folder / f"{module}.py").write_text(code)
        (in_folder / f"{name}.toml").write_text(study)
    yield in_folder
    for module in modules:
        sys.modules.pop(module, None)


@pytest.mark.parametrize("name", OWN)
def test_a_training_of_ones_own(name: str, own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each documented training is planned, run, killed in between, resumed and shown, as it stands."""
    assert cli.main(["plan", f"{name}.toml"]) == 0
    assert (
        f" to do: {'about' if name == 'pools' else 'how long a training of your own takes'}" in capsys.readouterr().out
    )
    command = [sys.executable, "-m", "mnist_ablate", "run", f"{name}.toml", "--workers", "0"]
    stored = own_folder / "results" / name / "runs"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:  # noqa: S603
        while first.poll() is None and not (stored.is_dir() and any(stored.glob("*.parquet"))):
            time.sleep(0.05)
        first.kill()
    n = len(list(stored.glob("*.parquet")))
    assert n > 0
    assert cli.main(["run", f"{name}.toml", "--workers", "0", "--report"]) == 0
    assert f"{n} of " in capsys.readouterr().err
    results = load(own_folder / "results" / name)
    assert results.missing == []
    assert results.problems == []
    assert results.study.metric == OWN[name]
    assert Analysis(results).judgements[0].verdict != "no verdict"
    assert (own_folder / "reports" / name / "index.html").exists()


@pytest.mark.usefixtures("own_folder")
def test_a_gate_for_a_training_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    """The documented gate passes what has not changed, and fails a training that has got worse."""
    assert cli.main(["run", "trees.toml", "--workers", "0"]) == 0
    *_, code = blocks("python", "docs/own-training.md")
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 # our own document
    assert capsys.readouterr().out.splitlines()[-1].startswith("Pass: ")
    worse = names["accepted"].assign(value=names["accepted"]["value"] + 50)
    assert mnist_ablate.gate(worse, reference=names["reference"]).outcome == "fail"


def test_a_study_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented study, cut to one seed, runs to its page, and its Python works as it stands."""
    (study,) = blocks("toml", "docs/your-own-study.md")
    assert study.count("seeds = 6") == 1
    monkeypatch.chdir(tmp_path)
    Path("depth.toml").write_text(study.replace("seeds = 6", "seeds = 1"))
    assert cli.main(["plan", "depth.toml"]) == 0
    assert cli.main(["run", "depth.toml", "--workers", "0", "--report"]) == 0
    names: dict[str, object] = {}
    (code,) = blocks("python", "docs/your-own-study.md")
    exec(code, names)  # noqa: S102 # our own document
    final = load("results/depth").final
    assert len(final) == 6
    assert final["test_accuracy"].between(0.5, 0.97).all()
    page = Path("reports/depth/index.html").read_text(encoding="utf-8")
    assert all(words in page for words in ("Four layers gain more accuracy", 'id="levels-depth"'))


def test_judging_runs_that_one_has(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The documented table, study, commands and Python work as they stand, and give the same verdict."""
    (table, means), studies, (code,) = (blocks(kind, "docs/judge.md") for kind in ("csv", "toml", "python"))
    study, search, summary = studies
    Path("runs.csv").write_text(table)
    Path("optimizers.toml").write_text(study)
    for block in blocks("bash", "docs/judge.md"):
        for line in block.splitlines():
            assert cli.main(shlex.split(line)[3:]) == 0
    out = capsys.readouterr().out
    assert "factor optimizer: adam, sgd" in out
    assert "sgd: Supported" in out
    proposed = tables_design.load("proposed.toml", "x")
    assert proposed.factors == tables_design.load("optimizers.toml", "x").factors
    assert (in_folder / "reports" / "runs" / "index.html").exists()
    page = (in_folder / "reports" / "optimizers" / "index.html").read_text(encoding="utf-8")
    assert "SGD has a lower validation accuracy than Adam" in page
    assert "Provisional" not in page
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 # our own document
    assert [judgement.verdict for judgement in names["judged"].analysis.judgements] == ["supported"]
    Path("means.csv").write_text(means, encoding="utf-8")
    of_means = mnist_ablate.judge("means.csv", tomllib.loads(summary)).analysis.effects()
    of_runs = pd.read_csv("runs.csv").groupby("optimizer")["val_acc"]
    assert of_means["estimate"].item() == pytest.approx(100 * of_runs.mean().diff().iloc[-1], abs=0.01)
    assert list(of_runs.std() * 100) == pytest.approx([0.80, 0.80], abs=0.005)
    rng = np.random.default_rng(0)
    drawn = pd.DataFrame({"lr": 10 ** rng.uniform(-4, -1, 200), "optimizer": rng.choice(["sgd", "adam"], 200)})
    drawn["val_acc"] = np.log2(drawn["lr"]) + rng.normal(size=200)
    judged = mnist_ablate.judge(drawn, tomllib.loads(search))
    assert [judgement.verdict for judgement in judged.analysis.judgements] == ["supported"]


def test_a_cluster_on_this_machine(tmp_path: Path) -> None:
    """The documented study on a cluster of processes runs as it stands, and ends without a complaint."""
    (code,) = blocks("python", "docs/many-machines.md")
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "8 runs"
    assert "Traceback" not in done.stderr
    assert len(load(tmp_path / "results" / "local-cluster").documents) == 8


def test_the_gate_on_any_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The documented gate for training of one's own, under 20 lines, runs as it stands, and passes."""
    code, _ = blocks("python", "docs/gate.md")
    assert len([line for line in code.splitlines() if line.strip()]) < 20
    exec(compile(code, "gate.md", "exec"), {})  # noqa: S102 # our own document
    assert capsys.readouterr().out.startswith("Pass: value moved by ")


def test_the_gate_in_a_suite_of_ones_own(in_folder: Path) -> None:
    """The documented test, under 20 lines, is recorded, accepted and judged as it stands; a worse training fails."""
    _, code = blocks("python", "docs/gate.md")
    assert len([line for line in code.splitlines() if line.strip()]) < 20
    (block,) = (block for block in blocks("bash", "docs/gate.md") if "--gate-record" in block)
    # As after an installation: pytest may know the plugin by itself, or not yet.
    plugin = ["-p", "mnist_ablate.gate.pytest_plugin"]

    def run(line: str) -> subprocess.CompletedProcess[str]:
        _, *words = shlex.split(line)
        command = [sys.executable, *words, *(plugin if "pytest" in words else [])]
        return subprocess.run(command, cwd=in_folder, capture_output=True, text=True, check=False)  # noqa: S603

    Path("test_training.py").write_text(code)
    *first, last = block.splitlines()
    for line in first:
        done = run(line)
        assert done.returncode == 0, done.stdout + done.stderr
    done = run(last)
    assert done.returncode == 0, done.stdout
    for said in ("test_training: Pass: accuracy moved by ", "8 of 8 seeds", "accuracy, mean of all cells: "):
        assert said in done.stdout
    Path("test_training.py").write_text(code.replace("x / 16", "0 * x"))
    done = run(last)
    assert done.returncode == 1
    assert "Regression: accuracy" in done.stdout


def test_the_files_for_a_paper(in_folder: Path) -> None:
    """The documented call writes the files that the table names, and prints the methods."""
    (code,) = blocks("python", "docs/papers.md")
    assert '"results/reference/factorial", "/tmp/for-a-paper"' in code
    folder = synthetic.make(in_folder / "results", parse_study({"name": "pair", "factors": {"dropout": [0.0, 0.2]}}))
    code = code.replace("results/reference/factorial", str(folder)).replace("/tmp/for-a-paper", "out")  # noqa: S108
    exec(code, {})  # noqa: S102 # our own document
    named = re.findall(r"`([\w/*]+\.\w+)`", read("docs/papers.md").partition("In Python")[0])
    assert {"tables/*.tex", "figures/*.pdf", "methods.txt", "methods.tex", "paper.tex"} <= set(named)
    assert all(list((in_folder / "out" / "paper").glob(name)) for name in named if name != "verdicts.tex")


def test_the_examples_name_what_there_is(
    parse: Callable[[Callable[[], object]], argparse.Namespace],
) -> None:
    """The workflow and the hook run commands that exist, and show files that the gate writes."""
    workflow, hook = (read(f"docs/examples/{name}") for name in ("regression-gate.yml", "pre-commit-gate.yaml"))
    assert re.findall(r"run: nox -s (.*)", workflow) == ["regression"]
    assert "regression" in sessions()
    assert all(f"results/gate/{name}" in workflow for name in ("gate.md", "gate.xml"))
    action, own = yaml.safe_load(read("action.yml")), yaml.safe_load(read("docs/examples/own-training-gate.yml"))
    given = own["jobs"]["gate"]["steps"][-1]["with"]
    assert set(given) <= set(action["inputs"])
    assert given["command"].endswith(f"--gate-page {action['inputs']['results']['default']}/gate.md")
    (entry,) = re.findall(r"entry: \.venv/bin/python -m mnist_ablate (.*)", hook)
    assert parse(lambda: cli.main(shlex.split(entry))).out == Path("results/gate")


def test_the_action_is_pinned_and_runs_what_there_is(
    parse: Callable[[Callable[[], object]], argparse.Namespace],
) -> None:
    """The action pins what it uses as our workflows do, puts no input into a script, and shows what the gate writes."""
    action = yaml.safe_load(read("action.yml"))
    steps = action["runs"]["steps"]
    pinned = set(re.findall(r"uses: (\S+@[0-9a-f]{40})", read(".github/workflows/ci.yml")))
    assert {step["uses"] for step in steps if "uses" in step} <= pinned
    scripts = [step["run"] for step in steps if "run" in step]
    assert len(scripts) == 3
    assert not any("${{" in script for script in scripts)
    assert all(step["shell"] == "bash" for step in steps if "run" in step)
    named = set(re.findall(r"inputs\.([\w-]+)", read("action.yml")))
    assert named == set(action["inputs"])
    _, _, _, *arguments = shlex.split(action["inputs"]["command"]["default"])
    assert parse(lambda: cli.main(arguments)).out == Path(action["inputs"]["results"]["default"])
