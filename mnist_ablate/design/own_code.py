"""The user's own functions that a study names: where they are looked for, how they are imported, what code they have.

A function is named as ``module:function``. Nothing here needs torch.
"""

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mnist_ablate.errors import TrainingError

Code = dict[str, str]
"""SHA-256 of files, by their path within the user's folder."""

_IMPORTED: dict[Path, str] = {}
"""SHA-256 of the user's files as they were when this process first imported a function that needs them."""


def own_function(name: str, folder: str = "", key: str = "model", planned: Mapping[str, str] | None = None) -> Any:
    """Return a function of the user's.

    Parameters
    ----------
    name
        ``module:function``. The module is looked for beside the study file, in the current folder, and then where
        Python's import looks.
    folder
        The study file's; empty if it is not known.
    key
        What the study calls it, for messages: ``"model"``, ``"train"`` or ``"dataset"``.
    planned
        The code that it must have, as `code_of` returns it; by default any.

    Raises
    ------
    TrainingError
        If there is no such function, a module of the same name from another folder is in its place, or it has other
        code than planned.
    """
    module, _, attribute = name.partition(":")
    with looking_in(folder):
        try:
            check_present(name, folder, key)
            files = _own_files(name, folder)
            for path, sha256 in files.values():
                _IMPORTED.setdefault(path, sha256)
            function: Callable[..., Any] = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise TrainingError(f"{key} = {name!r}: {error}; {_looked_in(folder)}.") from error
    for file, (path, _) in files.items():
        if _IMPORTED[path] != (planned or {}).get(file, _IMPORTED[path]):
            raise TrainingError(
                f"{key} = {name!r}: {file} has changed since this Python imported it, or since the study began. Start "
                "Python again, and run the same command again."
            )
    return function


def check_present(name: str, folder: str = "", key: str = "model") -> None:
    """Check, without importing it, that there is the module of a function, and that no other took its name.

    Raises
    ------
    TrainingError
        If there is none, or another.
    """
    top = name.partition(":")[0].partition(".")[0]
    with looking_in(folder):
        mine, loaded = PathFinder.find_spec(top, _places(folder)), sys.modules.get(top)
        if loaded is None and find_spec(top) is None:
            raise TrainingError(f"{key} = {name!r}: No module named {top!r}; {_looked_in(folder)}.")
    other = getattr(loaded, "__file__", None)
    if mine and mine.origin and other and Path(other).resolve() != Path(mine.origin).resolve():
        raise TrainingError(
            f"{key} = {name!r}: {other} is imported already, and would hide {mine.origin}. Rename the module, or "
            "start Python again."
        )


@contextmanager
def looking_in(folder: str) -> Iterator[None]:
    """Have Python's import look in `folder` and in the current folder first, within the block."""
    places = _places(folder)
    sys.path[:0] = places
    try:
        yield
    finally:
        for place in places:
            with suppress(ValueError):  # the module has changed the path
                sys.path.remove(place)


def _places(folder: str) -> list[str]:
    return [*([folder] if folder else []), ""]  # "" is the current folder, whatever it is


def _looked_in(folder: str) -> str:
    beside = f"{folder} (the study file's folder), " if folder not in ("", str(_current())) else ""
    return f"looked in {beside}{_current()} (the current folder), and where Python's import looks"


def _current() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return Path()


# ---- What its code is ----


def code_of(name: str, folder: str = "") -> Code:
    """Return the SHA-256 of each file of the user's that a function needs, by its path within the user's folder.

    These are the function's module and all that it imports from the study file's folder, the current folder and its
    own, wherever an import statement stands. The files are read and not run, so a module whose name is computed is not
    found. Installed packages are not the user's. Line ends do not count.
    """
    return {file: sha256 for file, (_, sha256) in sorted(_own_files(name, folder).items())}


def _own_files(name: str, folder: str) -> dict[str, tuple[Path, str]]:
    """Return what `code_of` does, with the whole path of each file."""
    module = name.partition(":")[0]
    folders = _own_folders(module, folder)
    found: dict[str, tuple[Path, str]] = {}
    wanted, seen = [module], set[str]()
    while wanted:
        module = wanted.pop()
        if module in seen or module.partition(".")[0] == "mnist_ablate":
            continue
        seen.add(module)
        for path, file, package in _files_of(module, folders):
            with suppress(OSError):
                content = path.read_bytes()
                found[file] = path, hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()
                wanted += _imported_by(content, package)
    return found


def _own_folders(module: str, folder: str) -> list[Path]:
    """Return the folders whose modules are the user's."""
    folders = [Path(place).absolute() if place else _current() for place in _places(folder)]
    with looking_in(folder), suppress(ImportError, ValueError):
        spec = find_spec(module.partition(".")[0])
        if spec and spec.origin and spec.has_location:
            file = Path(spec.origin)
            place = file.parents[1 if spec.submodule_search_locations is not None else 0]
            libraries = [sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
            if not any(place.is_relative_to(library) for library in libraries):
                folders.append(place)
    return list(dict.fromkeys(folders))


def _files_of(module: str, folders: list[Path]) -> Iterator[tuple[Path, str, str]]:
    """Yield the files that importing `module` runs: whole path, path in the user's folder, and package."""
    parts = module.split(".")
    for folder in folders:
        if (folder / f"{parts[0]}.py").is_file() or (folder / parts[0] / "__init__.py").is_file():
            break
    else:
        folder = next((place for place in folders if (place / parts[0]).is_dir()), Path())  # a folder without one
    for n in range(1, len(parts) + 1):
        path = Path(*parts[:n])
        for file, package in ((path / "__init__.py", n), (path.with_suffix(".py"), n - 1)):
            if (folder / file).is_file():
                yield folder / file, file.as_posix(), ".".join(parts[:package])
                break


def _imported_by(content: bytes, package: str) -> Iterator[str]:
    """Yield the names that may be modules in the import statements of a file."""
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError):  # importing it says so better
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level and package else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from filter(None, [base])
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
