"""What the last epoch changed: whether there is more to learn."""

import pandas as pd

from mnist_ablate.inference.effects import cell_names, in_units, mean_interval
from mnist_ablate.store.results import Results

_MEASURED = {"loss": "val_loss", "accuracy": "val_accuracy"}


def changes(results: Results) -> pd.DataFrame:
    """Return the mean change of validation loss and accuracy in the last epoch.

    Returns
    -------
    pandas.DataFrame
        One row per cell of the design: ``cell``, ``n`` (runs of two epochs or more), ``loss`` in nats and ``accuracy``
        in points, each with the ends of its 95 % t interval: ``loss_low``, ``loss_high``, ...
    """
    epochs = results.epochs.assign(**{name: in_units(results.epochs, column) for name, column in _MEASURED.items()})
    ends = epochs.groupby("run_id")["epoch"].transform("max")
    last, before = (epochs[epochs["epoch"] == end].set_index("run_id") for end in (ends, ends - 1))
    columns = list(_MEASURED)
    change = (last[columns] - before[columns]).assign(cell=last["cell"]).dropna()
    rows = []
    for cell in cell_names(results.study):
        runs = change[change["cell"] == cell]
        row: dict[str, object] = {"cell": cell, "n": len(runs)}
        for name in columns:
            names = (name, f"{name}_low", f"{name}_high")
            row |= zip(names, mean_interval(runs[name].to_numpy(dtype=float)), strict=True)
        rows.append(row)
    return pd.DataFrame(rows)
