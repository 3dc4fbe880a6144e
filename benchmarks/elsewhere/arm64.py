"""An ARM64 Python with what training needs, run by qemu on another processor: everything lies in one folder.

Needs Debian's apt-get and dpkg-deb, not root, and changes nothing outside the folder. It takes a minute and 1.2 GB.
"""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

DEBIAN = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
TORCH = "torch==2.8.0"  # of newer ones, the wheels for ARM64 need CUDA's libraries
_APT = """\
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
"""


def python(folder: Path) -> list[str]:
    """Return the command that is the ARM64 Python in `folder`."""
    folder = folder.absolute()
    qemu, root = folder / "qemu" / "usr" / "bin" / "qemu-aarch64-static", folder / "root"
    return [str(qemu), "-L", str(root), str(root / "usr" / "bin" / "python3")]


def make(folder: Path) -> str:
    """Fetch what is needed into `folder` unless it is there; return why that cannot be done, or an empty string."""
    if platform.machine() in ("aarch64", "arm64"):
        return "this is an ARM64 processor"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return "apt-get and dpkg-deb of Debian are needed"
    stamp = folder / "made-by-arm64.txt"
    if not stamp.exists():
        try:
            _unpack(folder / "apt-arm64", "arm64", DEBIAN, folder / "root")
            _unpack(folder / "apt-amd64", "amd64", ("qemu-user-static",), folder / "qemu")
            _install(folder)
        except subprocess.CalledProcessError as error:
            return f"{error.cmd[0]}: {(error.stderr.strip().splitlines() or ['no message'])[-1]}"
        stamp.write_text(TORCH)
    return ""


def _unpack(apt: Path, architecture: str, packages: tuple[str, ...], to: Path) -> None:
    """Download Debian packages of an architecture with all that they need, and unpack them."""
    for part in ("lists/partial", "archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()  # nothing is installed, so everything is downloaded
    (apt / "apt.conf").write_text(_APT.format(architecture=architecture, folder=apt.absolute()))
    variables = {"APT_CONFIG": str(apt.absolute() / "apt.conf")}
    _run("apt-get", "update", variables=variables)
    install = ("install", "--yes", "--download-only", "--no-install-recommends")
    _run("apt-get", *install, *packages, variables=variables)
    to.mkdir(exist_ok=True)
    for package in sorted((apt / "archives").glob("*.deb")):
        _run("dpkg-deb", "--extract", str(package), str(to))


def _install(folder: Path) -> None:
    """Let pip itself run as ARM64, so that it takes wheels for it: this Python's versions, except of torch."""
    tools = str(folder / "pip")
    _run(sys.executable, "-m", "pip", "download", "--no-deps", "--dest", tools, "pip")
    (pip,) = Path(tools).glob("pip-*.whl")
    same = [f"{name}=={version(name)}" for name in ("numpy", "numba", "pydantic", "platformdirs", "filelock")]
    options = ("--no-compile", "--only-binary=:all:", "--target", str(folder / "site"))
    _run(*python(folder), str(pip / "pip"), "install", *options, TORCH, *same, variables={"PYTHONPATH": ""})


def _run(*command: str, variables: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=os.environ | (variables or {}), capture_output=True, text=True, check=False)  # noqa: S603
    done.check_returncode()
