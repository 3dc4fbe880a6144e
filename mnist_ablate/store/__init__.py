"""How results are kept: one Parquet file per run, whose damage is seen; compact folders for many."""
