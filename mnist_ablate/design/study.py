"""A study: what a TOML file says about factors, levels, seeds and hypotheses, validated and frozen.

`mnist_ablate.design.plan` makes its cells and runs, `mnist_ablate.design.problems` finds its mistakes.
"""

import hashlib
import itertools
import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, create_model, model_validator

from mnist_ablate.design.contrasts import Factor, Level
from mnist_ablate.design.design import VALUE_OBJECT, Design
from mnist_ablate.design.metrics import Expected, Metric, about_the_first
from mnist_ablate.design.plan import OWN, EngineName, Own, cells
from mnist_ablate.design.problems import alike_cells, contradictions, explain, untestable
from mnist_ablate.design.responses import RESPONSES, Probe, Response
from mnist_ablate.design.settings import CHANCE, KNOWN_FACTORS, Settings
from mnist_ablate.errors import StudyError
from mnist_ablate.paths import user_path

_MOST_MISTAKES = 20
"""More mistakes than this are only counted."""


class _Table(BaseModel):
    """A table by factor. It takes any name; `problems` decides whether a study may have factors of its own."""

    model_config = VALUE_OBJECT | ConfigDict(extra="allow")


class _CellTable(_Table):
    __pydantic_extra__: dict[str, Level] = Field(init=False)


class _FactorTable(_Table):
    __pydantic_extra__: dict[str, Annotated[tuple[Level, ...], Field(strict=False)]] = Field(init=False)


# Tables of levels and of factors have the names, types and ranges of Settings.
_LEVEL: dict[str, Any] = {
    name: Annotated[Settings.model_fields[name].annotation, *Settings.model_fields[name].metadata, Field(title=name)]
    for name in KNOWN_FACTORS
}
_CELL_FIELDS: dict[str, Any] = {name: (level, None) for name, level in _LEVEL.items()}
_FACTOR_FIELDS: dict[str, Any] = {
    name: (Annotated[tuple[level, ...], Field(strict=False)], ())  # type: ignore[valid-type]
    for name, level in _LEVEL.items()
}
_Cell: Any = create_model("_Cell", __base__=_CellTable, **_CELL_FIELDS)
_Factors: Any = create_model("_Factors", __base__=_FactorTable, **_FACTOR_FIELDS)


class Study(Design):
    """A design with our protocol: factors that are settings, and what all runs share.

    Parameters
    ----------
    engine
        What computes the training steps, the same in all cells; by default the fastest that can train them all.
    protocol
        The settings that all runs share.
    factors
        The settings that vary, each with its levels, the reference level first.
    exclude
        Combinations of levels to leave out; a table excludes every cell that matches all of it.
    cells
        The cells to run, instead of all combinations; a factor that a cell does not name is at its reference.
    probes
        What else to measure on each trained network, see `mnist_ablate.training.probes`; this changes no run.
    metrics
        What a training of the user's own yields after each epoch; the page is about the first.
    code
        Whether the code of the user's own functions, and the arrays of a data set of their own, are part of a run's
        ``"identity"``, so that a change of them makes runs anew; or are only ``"recorded"`` with each run.
    name, title, seeds, first_seed, settle, futility, hypotheses, alpha
        As of any `mnist_ablate.design.design.Design`.
    """

    engine: EngineName | None = None
    protocol: Settings = Settings()
    factors: _Factors
    exclude: Annotated[tuple[_Cell, ...], Field(strict=False)] = ()
    cells: Annotated[tuple[_Cell, ...], Field(strict=False)] = ()
    probes: Annotated[tuple[Probe, ...], Field(strict=False)] = ()
    metrics: dict[str, Metric] = Field(default_factory=dict)
    code: Literal["identity", "recorded"] = "identity"

    _folder: str = PrivateAttr("")
    _own: Own = PrivateAttr(Own())
    _digits: dict[str, int] = PrivateAttr({})

    @property
    def folder(self) -> str:
        """The folder of the study's file, where its functions are looked for; empty if there is no file, or none."""
        return self._folder

    def in_folder(self, folder: str) -> "Study":
        """Return the study with the `folder` of its file, if it has functions of the user's."""
        study = self.model_copy()
        if self.functions:
            study._folder = folder
        return study

    @property
    def functions(self) -> dict[str, str]:
        """The user's functions that its cells name, each with the key that names it."""
        return {name: key for cell in cells(self) for key, name in cell.settings.functions.items()}

    @property
    def own(self) -> Own:
        """What there is of the user's own, if somebody has looked."""
        return self._own

    def with_own(self, own: Own) -> "Study":
        """Return the study with what there is of the user's own."""
        study = self.model_copy()
        study._own = own
        return study

    def with_digits(self, digits: Mapping[str, int]) -> "Study":
        """Return the study with the number of digits that each of its `metrics` is shown with."""
        study = self.model_copy()
        study._digits = dict(digits)
        return study

    @property
    def trains_itself(self) -> bool:
        """Whether a training of the user's own makes the runs."""
        return any((self.protocol.train, *self._levels_of("train")))

    def _levels_of(self, setting: str) -> tuple[str, ...]:
        levels: tuple[str, ...] = getattr(self.factors, setting)
        return levels

    @property
    def expected(self) -> tuple[Expected, ...]:
        """What a training of the user's own must yield after each epoch."""
        return tuple(metric.expected(name) for name, metric in self.metrics.items())

    @property
    def varied(self) -> tuple[Factor, ...]:
        """The factors, in the order of `Settings`, then the study's own."""
        given = [name for name in KNOWN_FACTORS if name in self.factors.model_fields_set]
        return tuple(Factor(name, getattr(self.factors, name)) for name in [*given, *(self.factors.model_extra or {})])

    @property
    def cell_levels(self) -> dict[str, dict[str, Level]]:
        """The levels of each cell, by its name, in the order of the design."""
        return {cell.name: cell.levels for cell in cells(self)}

    @property
    def run_under(self) -> dict[str, str]:
        """The name under which each cell is run: cells with the same settings are run once, as the first of them."""
        first_with: dict[str, str] = {}
        return {cell.name: first_with.setdefault(repr(cell.settings), cell.name) for cell in cells(self)}

    @property
    def responses(self) -> Mapping[str, Response]:
        """What is measured of each run, and how it is shown."""
        if self.metrics:
            metrics = {name: metric.response(name) for name, metric in self.metrics.items()}
            return {name: replace(r, digits=self._digits.get(name, r.digits)) for name, r in metrics.items()}
        if any(
            ":" in name for name in (self.protocol.dataset, *self._levels_of("dataset"))
        ):  # of which nobody knows what guessing gives
            return {name: replace(response, guessing=None) for name, response in RESPONSES.items()}
        return RESPONSES

    @property
    def metric(self) -> str:
        """The response that the page is about first."""
        return next(iter(self.metrics), "test_accuracy")

    @property
    def chance(self) -> Mapping[str, str]:
        """The settings that only redraw one part of chance, with what they draw."""
        return CHANCE

    @property
    def chosen_engine(self) -> str:
        """The engine that the study names, or else the fastest that can train all its cells."""
        if self.trains_itself:
            return OWN
        return self.engine or ("autograd" if self._for_autograd else "fused")

    @property
    def _for_autograd(self) -> list[str]:
        """The settings of the cells that only autograd can train."""
        return list(dict.fromkeys(name for cell in cells(self) for name in cell.settings.for_autograd))

    @model_validator(mode="before")
    @classmethod
    def _first_metric(cls, document: Any) -> Any:
        """Make hypotheses that name no metric about the first, if the study has metrics of its own."""
        return about_the_first(document)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        mistakes = list(contradictions(self.model_dump(exclude_unset=True)))
        if not mistakes and not cells(self):
            mistakes = ["exclude: leaves no cell to run"]
        elif not mistakes:
            mistakes = list(alike_cells(cells(self))) or list(untestable(self))
        if not mistakes and self.engine == "fused" and self._for_autograd:
            mistakes = [f'engine = "fused": has no code for {", ".join(self._for_autograd)}; allowed here: "autograd"']
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def with_options(self, *, seeds: int | None = None, engine: str | None = None, **protocol: Any) -> "Study":
        """Return the study with other seeds, engine or shared settings (`protocol`); None changes nothing.

        Raises
        ------
        StudyError
            If an option is out of range, or is one of the study's factors.
        """
        document = self.model_dump(exclude_unset=True)
        document["protocol"] = document.get("protocol", {}) | _given(protocol)
        if seeds is not None:  # a fixed number has no rule to stop by
            document = {key: value for key, value in document.items() if key not in ("settle", "futility")}
        changed = parse_study(document | _given({"seeds": seeds, "engine": engine}), f"options for {self.name}")
        return changed.in_folder(self.folder).with_own(self.own)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def bundled_studies() -> list[str]:
    """Return the names of the studies that come with the package."""
    return sorted(path.name.removesuffix(".toml") for path in _bundle().iterdir() if path.name.endswith(".toml"))


def _bundle() -> Any:
    return files("mnist_ablate.studies")


def load_study(name_or_path: str | os.PathLike[str]) -> Study:
    """Read a bundled study by its name, or a study file by its path.

    Raises
    ------
    StudyError
        If there is no such study, or the file is not valid; the message lists the mistakes, see `parse_study`.
    """
    file, source = _study_file(name_or_path), str(name_or_path)
    try:
        text = file.read_text(encoding="utf-8-sig")  # editors on Windows write a byte order mark
        if "\0" in text:
            raise UnicodeError("it holds zeros, as UTF-16 does")
        document = tomllib.loads(text)
    except UnicodeError as error:
        raise StudyError(f"{source}: not a TOML file: it is not text in UTF-8 ({error}). Save it as UTF-8.") from error
    except OSError as error:
        known = ", ".join(bundled_studies())
        raise StudyError(
            f"{source}: no such study ({error.strerror}). Give the path of a TOML file, or one of: {known}."
        ) from error
    except (ValueError, RecursionError) as error:  # not TOML, not text, thousands of digits, or nested too deeply
        raise StudyError(f"{source}: not a TOML file: {error}") from error
    study = parse_study(document, source)
    return study.in_folder(str(file.parent.absolute())) if isinstance(file, Path) else study


def _study_file(name_or_path: object) -> Any:
    try:
        source = os.fsdecode(name_or_path)  # type: ignore[arg-type]  # or it is refused
    except TypeError as error:
        raise StudyError(f"study = {name_or_path!r}: allowed: a Study, a bundled study's name or a path") from error
    return _bundle() / f"{source}.toml" if source in bundled_studies() else user_path(source)


def study_sha256(name_or_path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the file that `load_study` reads, in hexadecimal."""
    return hashlib.sha256(_study_file(name_or_path).read_bytes()).hexdigest()


def parse_study(document: dict[str, Any], source: str = "study") -> Study:
    """Return the study that a dictionary with the keys of a study file describes.

    Parameters
    ----------
    document
        The keys and values, which may be numpy's or pandas' own.
    source
        What to call the document in messages.

    Raises
    ------
    StudyError
        If it is not valid. The message has one line per mistake, up to 20: source, key, value and what is allowed.
    """
    document = _plain(document)
    try:
        return Study.model_validate(document)
    except ValidationError as error:
        invalid = itertools.chain.from_iterable(explain(detail, Study) for detail in error.errors())
        mistakes = list(dict.fromkeys([*contradictions(document), *invalid]))
        lines = mistakes[:_MOST_MISTAKES]
        if len(mistakes) > _MOST_MISTAKES:
            lines.append(f"and {len(mistakes) - _MOST_MISTAKES:,} more")
        raise StudyError("\n".join(f"{source}: {line}" for line in lines)) from error
    except UnicodeEncodeError as error:  # half a surrogate pair, which JSON allows
        raise StudyError(f"{source}: {error.object!r}: allowed: text in Unicode") from error
    except OverflowError as error:
        raise StudyError(f"{source}: a whole number is too large for a level of a factor ({error})") from error


def _plain(value: Any) -> Any:
    """Return `value` with Python's own numbers and lists instead of numpy's and pandas'."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
