"""From results to one self-contained page, a summary in Markdown, and figures and tables as files.

``python -m mnist_ablate.report [RESULTS] [--out DIR]``. The page needs no network and no script: its style and its
pictures are in it. Every number on it comes from the results. Nothing here needs torch.

`page` gathers the `sections`, renders and writes them. A section is one file with its tables, pictures and sentences.
"""

from mnist_ablate import plots  # noqa: F401 # before all that import matplotlib
from mnist_ablate.report.page import Report, write

__all__ = ["Report", "write"]
