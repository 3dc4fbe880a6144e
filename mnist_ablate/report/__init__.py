"""From results to one self-contained page, a summary in Markdown, and figures and tables as files.

``python -m mnist_ablate.report [RESULTS] [--out DIR]``. The page needs no network and no script: its style and its
pictures are in it. Every number on it comes from the results. Nothing here needs torch.

`page` gathers the `sections`, renders and writes them. A section is one file with its tables, pictures and sentences.
"""

import sys
from pathlib import Path
from types import ModuleType

from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.report.page import Report, write
from mnist_ablate.store.results import Results

__all__ = ["Report", "write"]


class _CallableModule(ModuleType):
    """A module that is called as its function `write`.

    ``mnist_ablate.report(...)`` is the documented name of the function, and importing this module makes
    ``mnist_ablate.report`` the module, whichever comes first. Python allows this replacement of a module's class
    ("Customizing module attribute access" in its reference).
    """

    def __call__(
        self, results: Results | Analysis | str | Path = "results/factorial", out: str | Path | None = None
    ) -> Report:
        """Write the report of `results`; see `write`."""
        return write(results, out)


sys.modules[__name__].__class__ = _CallableModule
