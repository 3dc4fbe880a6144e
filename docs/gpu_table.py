"""The table of docs/gpu.md, from what `benchmarks/gpu/card.py` measured."""

import pandas as pd
from marks import table


def markdown(rows: pd.DataFrame | None) -> str:
    """Return what was measured, a line each; None where nothing was."""
    if rows is None:
        return "Not measured yet."
    card = rows.iloc[0]
    of = f"{card['card']}, {card['multiprocessors']} multiprocessors, driver for CUDA {card['driver'] / 1000:g}"
    lines = [
        [row["part"], row["what"], row["note"] or f"{row['value']:,.4g} {row['unit']}".strip()]
        for row in rows.to_dict("records")
    ]
    return f"{of}:\n\n" + table(["Part", "What", "Measured"], lines, left=(0, 1))
