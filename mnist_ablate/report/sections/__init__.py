"""The sections of the page, each a file with its tables, pictures and sentences, in the order of the page.

A new section is a file with a function ``section``, and its place in `SECTIONS`.
"""

from collections.abc import Callable

from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.report.section import Section
from mnist_ablate.report.sections import (
    answers,
    cells,
    certainty,
    coefficients,
    curves,
    effects,
    errors,
    levels,
    looks,
    losses,
    methods,
    notebook,
    notices,
    probes,
    provenance,
    variance,
)

SECTIONS: tuple[Callable[[Analysis], Section | None], ...] = (
    notices.section,
    answers.section,
    effects.section,
    coefficients.section,
    variance.section,
    levels.section,
    probes.section,
    notebook.section,
    cells.section,
    losses.section,
    curves.section,
    errors.section,
    looks.section,
    certainty.section,
    methods.section,
    provenance.section,
)
"""Each returns its section, or None where the study has nothing for it."""
