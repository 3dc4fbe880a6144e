"""Provenance of a result: versions, processor, state of the code."""

import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch

_BITS_DEPEND_ON = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NUMBA_CPU_FEATURES",
    "NUMBA_CPU_NAME",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)

Provenance = dict[str, str | int | bool]


@lru_cache(maxsize=1)
def provenance() -> Provenance:
    """Describe this process and its machine in flat values that JSON can hold."""
    return {
        "mnist_ablate": _version_of_this_package(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # plain text, so that reading it back does not load torch
        "numpy": version("numpy"),
        "numba": version("numba") if find_spec("numba") else "",
        **_git(),
        "platform": f"{sys.platform} {platform.machine()}",
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "environment": " ".join(f"{key}={os.environ[key]}" for key in _BITS_DEPEND_ON if key in os.environ),
        "threads": 1,
    }


def _version_of_this_package() -> str:
    try:
        return version("mnist-ablate")
    except PackageNotFoundError:  # run from a checkout
        return "not installed"


def _git() -> dict[str, str | bool]:
    """Return the commit of the checkout that holds this package, and whether the package has changed since."""
    here = Path(__file__).parents[1]  # the whole package
    try:
        commit = _git_output(here, "rev-parse", "HEAD")
        _git_output(here, "ls-files", "--error-unmatch", "training/provenance.py")
        return {"git_commit": commit, "git_dirty": bool(_git_output(here, "status", "--porcelain", "--", "."))}
    except subprocess.CalledProcessError as error:
        if "dubious ownership" in error.stderr:
            cause = "the checkout belongs to another user, which git refuses to read"
            return {"git_commit": f"not known, because {cause}", "git_dirty": False}
    except (OSError, subprocess.SubprocessError):
        pass
    return {"git_commit": "", "git_dirty": False}  # an installed package, perhaps inside another project's checkout


def _git_output(folder: Path, *arguments: str) -> str:
    """Return what git prints about `folder`, whatever repository a hook that runs us is for."""
    # Git sets GIT_DIR, GIT_INDEX_FILE and others for its hooks; they would lead us to the hook's repository.
    ours = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or "CONFIG" in key}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, timeout=10, check=True, env=ours | {"LC_ALL": "C"}
    )
    return done.stdout.strip()


def _processor() -> str:
    """Return the processor's model name, family and model number, since a virtual machine may hide the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    model = facts.get("model name", platform.machine())
    return f"{model} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"
