"""Commands with closed streams, odd names and paths with a tilde, each as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_ablate.paths import user_path


def shell(line: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a line of a shell in which "$@" is the program with arguments."""
    command = ["/bin/sh", "-c", line, "sh", sys.executable, "-m", "mnist_ablate", *arguments]
    return subprocess.run(command, capture_output=True, check=False, env=os.environ | environment)  # noqa: S603


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(folder: Path, tmp_path: Path, closed: str) -> None:
    """With streams closed a command does what it does, its files are whole, and its status is 0."""
    out = tmp_path / "page"
    done = shell(f'"$@" {closed}', "report", str(folder), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert (out / "index.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert shell(f'"$@" {closed}', "doctor", str(folder)).returncode == 0


@pytest.mark.parametrize("program", ["mnist_ablate", "mnist_ablate.report"])
def test_the_report_is_a_command_like_the_others(folder: Path, tmp_path: Path, program: str) -> None:
    """By either name: a reader that has enough is no failure, and an unknown folder ends with one sentence and 2."""
    command = [sys.executable, "-m", program, *(["report"] if program == "mnist_ablate" else [])]
    out = str(tmp_path / "page")
    piped = subprocess.run(["/bin/sh", "-c", '("$@"; echo $? >&2) | true', "sh", *command, str(folder), "--out", out],  # noqa: S603
                           capture_output=True, text=True, check=False)  # fmt: skip
    assert piped.stderr == "0\n"
    refused = subprocess.run([*command, str(tmp_path / "nowhere")], capture_output=True, text=True, check=False)  # noqa: S603
    assert refused.returncode == 2
    assert refused.stderr.startswith("mnist-ablate: ")
    assert refused.stderr.count("\n") == 1


def test_names_that_are_no_text_are_printed_and_shown(folder: Path, tmp_path: Path) -> None:
    """A folder whose name is not UTF-8 is read, printed in ASCII too, and named on the page."""
    odd = os.fsencode(tmp_path) + b"/odd\xff"
    os.rename(folder, odd)  # noqa: PTH104 # bytes
    done = shell('"$@"', "report", os.fsdecode(odd), "--out", os.fsdecode(odd + b"-page"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert rb"odd\udcff-page" in done.stdout
    assert rb"odd\udcff" in Path(os.fsdecode(odd + b"-page/index.html")).read_bytes()


def test_a_tilde_is_the_home_folder(folder: Path, tmp_path: Path) -> None:
    """``--out=~/x``, which a shell does not expand, is in the home folder, and no folder is called ``~``."""
    done = shell('cd "$HOME"; "$@"', "report", str(folder), "--out=~/page", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page" / "index.html").exists()
    assert not (tmp_path / "~").exists()


def test_a_user_without_a_home_keeps_the_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system knows no home folder the path stays as it is."""
    monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("no home")))
    assert user_path("~/x") == Path("~/x")
