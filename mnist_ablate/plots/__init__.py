"""Pictures of results: each function takes runs and returns a matplotlib `Figure`, and saves nothing.

>>> from mnist_ablate import load, plots
>>> results = load("results/factorial")
>>> plots.forest(results, smallest=0.1).savefig("effects.png", dpi=200)

Runs are what `load` returns, or their `mnist_ablate.inference.analysis.Analysis`, which computes each frame once for
several pictures. `accuracy`, `loss_curves` and `learning_curves` show the cells, `forest`, `interactions`, `by_epoch`
and `power` the effects, `confusion` and `images` the answers, `judged` what several studies say of one claim, `by_look`
the looks of a study that goes on until it is settled. `doses` and `variance_parts` are for studies of many levels and
of chance, `printed_accuracies` and `printed_losses` show a course notebook's numbers among the runs of its cells.
"""

from mnist_ablate.plots import _matplotlib  # noqa: F401 # before all that import matplotlib
from mnist_ablate.plots.answers import confusion, images
from mnist_ablate.plots.cells import LOSSES, accuracy, learning_curves, loss_curves
from mnist_ablate.plots.effects import by_epoch, forest, has_interactions, interactions, power
from mnist_ablate.plots.judged import JudgedRow, judged
from mnist_ablate.plots.levels import doses, variance_parts
from mnist_ablate.plots.looks import by_look
from mnist_ablate.plots.notebook import printed_accuracies, printed_losses
from mnist_ablate.plots.style import NARROW, THEMES, WIDTH, Theme, ThemeName

__all__ = [
    "LOSSES", "NARROW", "THEMES", "WIDTH", "JudgedRow", "Theme", "ThemeName", "accuracy", "by_epoch", "by_look",
    "confusion", "doses", "forest", "has_interactions", "images", "interactions", "judged", "learning_curves",
    "loss_curves", "power", "printed_accuracies", "printed_losses", "variance_parts",
]  # fmt: skip
