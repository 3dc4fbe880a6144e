"""Import matplotlib, whatever backend ``MPLBACKEND`` names: pictures here need none.

A notebook's kernel exports ``MPLBACKEND=module://matplotlib_inline.backend_inline`` to every process that it starts,
and where that module is missing, ``import matplotlib`` raises a ValueError.
"""

import contextlib
import os
import sys


def _import() -> None:
    asked = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib as mpl
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked
    if asked:  # as matplotlib does it: for others in this process who may want a backend
        with contextlib.suppress(ValueError):
            mpl.rcParams["backend"] = asked


if "matplotlib" not in sys.modules:
    _import()
