"""The settings of a run: everything that decides its result except seed and engine, each with its type and range.

Any of them can be a factor of a study. Each default is the baseline of the protocol, so adding a setting changes no
stored run.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mnist_ablate.design.contrasts import Level
from mnist_ablate.language import figures, say, told, told_as

DatasetName = Literal["mnist", "fashion-mnist"]
_FUNCTION = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
GROUPS = 8
"""Number of groups of units that ``norm = "group"`` normalises."""

Rate = Annotated[float, Field(ge=0, lt=1)]
Variant = Annotated[int, Field(ge=0, le=1_000_000)]


class Settings(BaseModel):
    """Everything that decides a run's result except its seed and engine.

    The order of the fields is the order of factors in cell names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    l2: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay w: the optimiser gets the gradient plus w times the parameter."""
    dropout: Rate = 0.0
    """Probability that a hidden unit's pre-activation is set to zero in a training step."""
    batch_norm: bool = False
    """Batch normalisation after each hidden linear layer, before the activation."""
    l1: Annotated[float, Field(ge=0)] = 0.0
    """L1 penalty: the optimiser gets the gradient plus this times the sign of the parameter."""
    input_dropout: Rate = 0.0
    """Probability that a pixel is set to zero in a training step."""
    dropout_place: Literal["before", "after"] = "before"
    """Dropout before or after the activation; the same with ReLU, unless a normalisation follows it."""
    norm: Literal["none", "layer", "group"] = "none"
    """Another normalisation instead of BatchNorm: over all units of a layer, or over each of `GROUPS` groups."""
    norm_place: Literal["before", "after"] = "before"
    """Any normalisation, before or after the activation."""
    shared_norm: bool = False
    """Use one BatchNorm for all hidden layers, a mistake that the course notebook makes."""
    dataset: Annotated[
        str,
        Field(
            pattern=rf"^({'|'.join(get_args(DatasetName))}|{_FUNCTION})$",
            json_schema_extra={"allowed": 'one of "mnist", "fashion-mnist", or "module:function" of your own'},
        ),
    ] = "mnist"
    """The images, or ``module:function`` of a function that returns arrays: see `mnist_ablate.data.own`."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the training images held out for validation."""
    train_images: Annotated[int, Field(ge=0)] = 0
    """Number of images to train on, the first of the split's training part; 0: all of them."""
    label_noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the training images whose label is replaced by another digit."""
    depth: Annotated[int, Field(ge=1, le=64)] = 2
    """Number of hidden layers."""
    width: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Units in each hidden layer."""
    init: Literal["default", "kaiming", "xavier"] = "default"
    """Initial weights: torch's default, or uniform as in He et al. 2015 or Glorot and Bengio 2010, with biases of 0."""
    init_scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor on all initial weights and biases."""
    epochs: Annotated[int, Field(ge=1, le=32_767)] = 5
    epoch_steps: Annotated[int, Field(ge=0)] = 0
    """Steps per epoch, which continues through the images where the last one stopped; 0: once through the images."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 0.001
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam; Adam with decoupled weight decay (Loshchilov and Hutter 2019); plain gradient descent."""
    evaluation: Literal["eval", "train"] = "eval"
    """Mode of evaluation; in train mode dropout drops units, and BatchNorm uses the statistics of each batch."""
    loss_mean: Literal["images", "batches"] = "images"
    """Whether losses are means over images or over batches, where a short last batch weighs too much."""
    split_seed: Variant = 0
    """Which split of the seed; this and the next three settings vary one part of chance alone."""
    init_seed: Variant = 0
    """Which initial weights."""
    batch_seed: Variant = 0
    """Which orders of the images."""
    dropout_seed: Variant = 0
    """Which dropout masks."""
    model: Annotated[str, Field(pattern=rf"^({_FUNCTION})?$")] = ""
    """``module:function`` of a function (settings, seed) that returns an ``nn.Module``; empty: the perceptron."""
    train: Annotated[str, Field(pattern=rf"^({_FUNCTION})?$")] = ""
    """``module:function`` of a function (settings, seed, data) that yields the metrics of each epoch; empty: ours."""
    own: dict[str, Level] = {}
    """Levels of the study's own factors, which `model` or `train` reads."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        mistakes = list(_contradictions(self))
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    @property
    def for_autograd(self) -> list[str]:
        """Names of the settings whose value the engine ``fused`` cannot train."""
        default = type(self)()
        return [name for name in _FOR_AUTOGRAD if getattr(self, name) != getattr(default, name)]

    @property
    def own_dataset(self) -> bool:
        """Whether the data set is of the user's own."""
        return ":" in self.dataset

    @property
    def functions(self) -> dict[str, str]:
        """The user's own functions, by the setting that names them."""
        named = {"model": self.model, "train": self.train, "dataset": self.dataset if self.own_dataset else ""}
        return {key: name for key, name in named.items() if name}

    def reduced(self) -> "Settings":
        """Return the settings with defaults for those without effect, such as the place of an absent BatchNorm.

        So settings that train the same network are equal, and are one run.
        """
        return self if self.model or self.train else self.model_copy(update=dict(_idle(self)))


KNOWN_FACTORS = tuple(name for name in Settings.model_fields if name != "own")
"""The settings; a study with a `model` or `train` may have factors of its own beside them."""

CHANCE: Mapping[str, str] = MappingProxyType({
    "split_seed": "split", "init_seed": "initial weights", "batch_seed": "order of the images",
    "dropout_seed": "dropout masks",
})  # fmt: skip
"""The settings that redraw one part of chance, with what they draw; their levels are not techniques."""

LABELS: Mapping[str, str] = MappingProxyType({name: name.replace("_", " ") for name in KNOWN_FACTORS} | {
    "l1": "L1", "l2": "L2", "batch_norm": "BatchNorm", "shared_norm": "shared BatchNorm", "norm": "normalisation",
    "norm_place": "place of normalisation", "dropout_place": "place of dropout", "dataset": "data set",
    "train_images": "training images", "epoch_steps": "steps per epoch", "init": "initialisation",
    "init_scale": "initial scale", "evaluation": "evaluation mode",
} | dict(CHANCE))  # fmt: skip
"""What people call each setting. A study's own factors go by their own names."""

LEVELS = ("before", "after", "none", "default", "layer", "group", "train", "eval", "images", "batches")
"""Levels of settings that are words; other levels are numbers and names."""

_SETTING = re.compile(rf"(?<![\w=:.])({'|'.join(KNOWN_FACTORS)})(?![\w:.])(?:=(\S*))?")
_NUMBER = re.compile(r"-?\d[\d.]*(?:e[+-]?\d+)?")
_TREND = re.compile(r"trend per (doubling|unit) of (.+)", re.DOTALL)


def in_words(name: str) -> str:
    """Write the name of a factor, a cell or an effect as people do.

    >>> in_words("l2+learning_rate=0.001")
    'L2 + learning rate 0.001'
    >>> in_words("trend per doubling of batch_size")
    'trend per doubling of batch size'
    """
    if trend := _TREND.fullmatch(name):
        factor = in_words(trend[2])
        if trend[1] == "doubling":
            return say("trend per doubling of {factor}", factor=factor)
        return say("trend per unit of {factor}", factor=factor)
    if name.endswith(" alone"):
        return say("{technique} alone", technique=in_words(name.removesuffix(" alone")))
    if name.startswith("without "):
        return say("without {technique}", technique=in_words(name.removeprefix("without ")))
    spaced = re.sub(r"\+(?=[A-Za-z_])", " + ", name)  # not the plus of 1e+06
    return _SETTING.sub(_setting_in_words, spaced)


def _setting_in_words(match: re.Match[str]) -> str:
    label = told(LABELS[match[1]])
    return label if match[2] is None else f"{label} {level_in_words(match[2])}"


def level_in_words(level: str) -> str:
    """Write a level of a setting: a number in the language's figures, a word translated, a name as it is."""
    return figures(level) if _NUMBER.fullmatch(level) else told_as("level", level)


_FOR_AUTOGRAD = ("model",)


def _contradictions(settings: Settings) -> Iterator[str]:
    if settings.batch_norm and settings.batch_size == 1:
        yield "batch_norm needs a batch_size of at least 2: one image has no variance"
    if settings.batch_norm and settings.norm != "none":
        yield f'batch_norm and norm = "{settings.norm}" cannot both be given: a layer has one normalisation'
    if settings.norm == "group" and settings.width % GROUPS:
        yield f'norm = "group" needs a width that is a multiple of {GROUPS}, and {settings.width} is not'
    if settings.train and settings.model:
        yield "train and model cannot both be given: a training of your own makes its own model"
    if settings.evaluation == "train" and settings.model:
        yield 'evaluation = "train" is for the perceptron: a model of your own may draw from torch as it likes'
    if settings.epoch_steps and settings.epochs * settings.epoch_steps > 10**9:
        yield f"epochs x epoch_steps = {settings.epochs * settings.epoch_steps}: allowed: at most 1,000,000,000 steps"


def _idle(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yield the settings without effect, each with its default."""
    normed = settings.batch_norm or settings.norm != "none"
    if not normed:
        yield "norm_place", "before"
    if not settings.batch_norm or settings.depth == 1:
        yield "shared_norm", False
    # relu(m x) = m relu(x) for m >= 0: the place of the masks matters only to a normalisation behind ReLU.
    if not settings.dropout or not normed or settings.norm_place == "before":
        yield "dropout_place", "before"
    if settings.optimiser == "adamw" and not settings.l2:  # they differ in weight decay only
        yield "optimiser", "adam"
    if not settings.dropout and not settings.input_dropout:
        yield "dropout_seed", 0
        yield from () if settings.batch_norm else [("evaluation", "eval")]
