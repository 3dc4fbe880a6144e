"""Write the planted runs with MLflow itself, into ``mlflow_folder.zip`` and ``mlflow_database.sql`` beside this file.

MLflow has some forty dependencies, so tests read what this wrote: `pip install mlflow-skinny sqlalchemy alembic pandas`
into an environment of its own, and run this file there.
"""

import os
import sqlite3
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
TABLES = ("runs", "params", "latest_metrics")


def write() -> None:
    """Write both."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    sys.path.insert(0, str(HERE.parent))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        log(f"file:{folder / 'mlruns'}")
        pack(folder / "mlruns", HERE / "mlflow_folder.zip")
        log(f"sqlite:///{folder / 'mlflow.db'}")
        dump(folder / "mlflow.db", HERE / "mlflow_database.sql")


def log(uri: str) -> None:
    """Log the planted runs to a store."""
    import mlflow  # type: ignore[import-not-found,unused-ignore]
    from planted import runs

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("planted")
    client = mlflow.MlflowClient()
    for planted in runs():
        with mlflow.start_run(run_name=planted.name) as run:
            mlflow.log_params({"optimizer": planted.optimizer, "seed": planted.seed, "epochs": 3})
            for epoch, value in enumerate(planted.val_acc):
                mlflow.log_metric("val_acc", value, step=epoch)
        if planted.failed:
            client.set_terminated(run.info.run_id, "FAILED")
    with mlflow.start_run(run_name="deleted") as run:
        mlflow.log_params({"optimizer": "adam", "seed": 99})
    client.delete_run(run.info.run_id)


def pack(store: Path, file: Path) -> None:
    """Write what a store says of its runs as an archive, without tags and without the folder that it was in."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(store.rglob("*")):
            if path.is_file() and "tags" not in path.parts:
                content = path.read_text(encoding="utf-8").replace(str(store.parent), "/store")
                archive.writestr(path.relative_to(store).as_posix(), content)


def dump(database: Path, file: Path) -> None:
    """Write the tables of runs as SQL, without the keys that point to other tables."""
    lines = []
    with sqlite3.connect(database) as source:
        for table in TABLES:
            columns = [row[1:3] for row in source.execute(f"PRAGMA table_info({table})")]
            lines.append(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns)});")
            rows = source.execute(f"SELECT * FROM {table}")  # noqa: S608 # names of our own
            lines += [f"INSERT INTO {table} VALUES ({', '.join(map(_literal, row))});" for row in rows]  # noqa: S608
    text = "\n".join(lines).replace(str(database.parent), "/store")
    file.write_text(f"{text}\n", encoding="utf-8")


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    return repr(value) if isinstance(value, int | float) else "'{}'".format(str(value).replace("'", "''"))


if __name__ == "__main__":
    write()
