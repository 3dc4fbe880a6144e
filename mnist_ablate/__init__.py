"""A factorial, seed-paired, deterministic ablation of L2, dropout and BatchNorm on MNIST.

>>> import mnist_ablate
>>> results = mnist_ablate.run("factorial", seeds=2, epochs=1)
>>> mnist_ablate.report(results)

Everything in ``__all__`` is public and described in ``docs/python.md``; all else may move. Each name is imported at its
first use, so reading results never loads torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_ablate import errors, plots
    from mnist_ablate.checks.compare import compare
    from mnist_ablate.checks.doctor import doctor
    from mnist_ablate.checks.judge import judge
    from mnist_ablate.checks.plan import plan, power
    from mnist_ablate.checks.run import run
    from mnist_ablate.checks.verify import verify
    from mnist_ablate.design.study import Study, bundled_studies, load_study, parse_study
    from mnist_ablate.gate.accept import accept_reference
    from mnist_ablate.gate.reference import Reference, load_reference
    from mnist_ablate.gate.runs import gate
    from mnist_ablate.inference.analysis import Analysis, analyse
    from mnist_ablate.report import write as report
    from mnist_ablate.store.compact import write_compact
    from mnist_ablate.store.results import Results, load

    __version__: str

__all__ = [
    "Analysis", "Reference", "Results", "Study", "__version__", "accept_reference", "analyse", "bundled_studies",
    "compare", "doctor", "errors", "gate", "judge", "load", "load_reference", "load_study", "parse_study", "plan",
    "plots", "power", "report", "run", "verify", "write_compact",
]  # fmt: skip

_HOMES = {
    "Analysis": "inference.analysis.Analysis",
    "Reference": "gate.reference.Reference",
    "Results": "store.results.Results",
    "Study": "design.study.Study",
    "accept_reference": "gate.accept.accept_reference",
    "analyse": "inference.analysis.analyse",
    "bundled_studies": "design.study.bundled_studies",
    "compare": "checks.compare.compare",
    "doctor": "checks.doctor.doctor",
    "gate": "gate.runs.gate",
    "judge": "checks.judge.judge",
    "load": "store.results.load",
    "load_reference": "gate.reference.load_reference",
    "load_study": "design.study.load_study",
    "parse_study": "design.study.parse_study",
    "plan": "checks.plan.plan",
    "power": "checks.plan.power",
    "report": "report.write",
    "run": "checks.run.run",
    "verify": "checks.verify.verify",
    "write_compact": "store.compact.write_compact",
}


if not TYPE_CHECKING:  # to a type checker, this function would make every name valid

    def __getattr__(name: str) -> object:
        if name == "__version__":
            return _version()
        if name in _HOMES:
            module, attribute = _HOMES[name].rsplit(".", 1)
            return getattr(import_module(f"mnist_ablate.{module}"), attribute)
        if name in __all__:  # a public module
            return import_module(f"mnist_ablate.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    """Return the version of the installed package; a checkout that is not installed has none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mnist-ablate")
    except PackageNotFoundError:
        return "not installed"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps the functions ``report`` and ``gate`` where Python would put the folders of these names.

    Importing ``mnist_ablate.report`` ends with ``mnist_ablate.report = <module>``, which would hide the function. The
    folders stay importable: ``from mnist_ablate.report import Report`` (but ``import mnist_ablate.report as x`` is the
    function).
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
