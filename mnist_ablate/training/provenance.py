"""Provenance of a result: versions, processor, state of the code."""

import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import version
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
        "mnist_ablate": version("mnist-ablate"),
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


def _git() -> dict[str, str | bool]:
    """Return the commit of the checkout that holds this package, and whether the package has changed since."""
    here = Path(__file__).parents[1]  # the whole package
    commit = _output("git", "-C", str(here), "rev-parse", "HEAD")
    ours = _output("git", "-C", str(here), "ls-files", "--error-unmatch", "training/provenance.py")
    if not commit or not ours:  # an installed package, perhaps inside another project's checkout
        return {"git_commit": "", "git_dirty": False}
    return {
        "git_commit": commit,
        "git_dirty": bool(_output("git", "-C", str(here), "status", "--porcelain", "--", ".")),
    }


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""


def _processor() -> str:
    """Return the processor's model name, family and model number, since a virtual machine may hide the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    model = facts.get("model name", platform.machine())
    return f"{model} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"
