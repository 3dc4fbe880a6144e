"""A factorial, seed-paired, deterministic ablation of L2, dropout and BatchNorm on MNIST.

>>> import mnist_ablate
>>> results = mnist_ablate.run("factorial", seeds=2, epochs=1)
>>> mnist_ablate.load("results/factorial")
>>> mnist_ablate.report(results)

Each is imported when it is first used: reading results needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_ablate.execution.runner import run
    from mnist_ablate.report import write as report
    from mnist_ablate.store.results import load

__all__ = ["load", "report", "run"]

_HOME = {"run": "mnist_ablate.execution.runner", "load": "mnist_ablate.store.results"}


def __getattr__(name: str) -> Any:
    if name == "report":  # the module is callable: the function and the submodule share the name
        return import_module("mnist_ablate.report")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
