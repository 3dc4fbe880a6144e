"""The trained perceptron as probes see it: what each part gives in evaluation mode, and the gradient of the loss.

It computes with numpy and the arithmetic of the engine that trained it. After the engine ``fused``, all that is
measured of it has the same bits on every machine, too.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from mnist_ablate.design.settings import GROUPS, Settings
from mnist_ablate.training.arithmetic import Arithmetic, Floats, total
from mnist_ablate.training.model import parts

_EPS = 1e-5  # as torch's normalisations have it
CHUNK = 256
"""Images in a forward pass: few enough to stay in cache."""

Change = Callable[[Floats], Floats]


class Perceptron:
    """The network of `training.model.mlp` with the weights of a run.

    Parameters
    ----------
    weights
        Its parameters and running statistics, named and shaped as in torch.
    settings
        Those of the run.
    arithmetic
        That of the run's engine.
    dtype
        float32; float64 to check the gradients.
    """

    def __init__(
        self,
        weights: Mapping[str, NDArray[np.generic]],
        settings: Settings,
        arithmetic: Arithmetic,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        self.settings = settings
        self.parts = parts(settings)
        self.linears = [name for name in self.parts if name.startswith(("linear", "output"))]
        self.weights: dict[str, Floats] = {name: values.astype(dtype) for name, values in weights.items()}
        self.arithmetic = arithmetic
        self._dtype = dtype
        self._affine = {
            name: arithmetic.affine(self.weights[f"{name}.weight"].T, self.weights[f"{name}.bias"])
            for name in self.linears
        }

    def outputs(
        self, x: Floats, first: int = 0, stop: int | None = None, changes: Mapping[str, Change] | None = None
    ) -> Floats:
        """Return the outputs of some consecutive parts.

        Parameters
        ----------
        x
            The inputs of the first of them: of all parts, images, (n, pixels) in [0, 1].
        first, stop
            The places of the first one and of the one after the last; by default all, whose outputs are the logits.
        changes
            By the name of a part, what to do to its inputs.
        """
        found, changes = [], changes or {}
        for i in range(0, len(x), CHUNK):
            values = x[i : i + CHUNK]
            for name in self.parts[first:stop]:
                values = self.apply(name, changes[name](values) if name in changes else values)
            found.append(values)
        return np.concatenate(found)

    def apply(self, name: str, x: Floats) -> Floats:
        """Return the outputs of a part for its inputs."""
        if name in self._affine:
            return self._affine[name](x)
        if name.startswith("relu"):
            return np.maximum(x, self._dtype(0))
        if "norm" in name:
            normed, _ = self._normed(name, x)
            return normed * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return x  # dropout

    def _normed(self, name: str, x: Floats) -> tuple[Floats, Floats]:
        """Return `x` with mean 0 and variance 1, and 1 / its standard deviation."""
        eps = self._dtype(_EPS)
        if self.settings.batch_norm:
            spread = 1 / np.sqrt(self.weights[f"{name}.running_var"] + eps)
            return (x - self.weights[f"{name}.running_mean"]) * spread, spread
        centred = x - self._means(x)
        spread = 1 / np.sqrt(self._means(centred * centred) + eps)
        return centred * spread, spread

    def _means(self, x: Floats) -> Floats:
        """Return the mean over a unit's group, for each unit of each image."""
        groups = GROUPS if self.settings.norm == "group" else 1
        size = x.shape[1] // groups
        sums = total(np.moveaxis(x.reshape(len(x), groups, size), 2, 0))
        return np.repeat(sums / self._dtype(size), size, axis=1)

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        """Return the softmax of `logits` (n, classes)."""
        doubles = logits.astype(np.float64)
        exps = self.arithmetic.exp(doubles - doubles.max(axis=1, keepdims=True))
        return exps / total(exps.T)[:, None]

    def gradients(self, images: Floats, labels: NDArray[np.int64]) -> dict[str, Floats]:
        """Return the gradient of the mean cross-entropy with respect to each parameter.

        In evaluation mode the statistics of BatchNorm are constants.
        """
        entering, x = {}, images
        for name in self.parts:
            entering[name], x = x, self.apply(name, x)
        d_logits = self.probabilities(x)
        d_logits[np.arange(len(labels)), labels] -= 1
        d: Floats = (d_logits / len(labels)).astype(self._dtype)
        found: dict[str, Floats] = {}
        for name in reversed(self.parts):
            x = entering[name]
            if name in self._affine:
                found |= {f"{name}.weight": self._product(d.T, x), f"{name}.bias": total(d)}
                d = self._product(d, self.weights[f"{name}.weight"])
            elif name.startswith("relu"):
                d = np.where(x > 0, d, self._dtype(0))
            elif "norm" in name:
                normed, spread = self._normed(name, x)
                of = name.rstrip("0123456789") + "1" if self.settings.shared_norm else name
                for key, gradient in ((f"{of}.weight", total(d * normed)), (f"{of}.bias", total(d))):
                    found[key] = found[key] + gradient if key in found else gradient
                d = d * self.weights[f"{name}.weight"]
                if not self.settings.batch_norm:
                    d = d - self._means(d) - normed * self._means(d * normed)
                d = d * spread
        return found

    def _product(self, a: Floats, b: Floats) -> Floats:
        return self.arithmetic.affine(b, np.zeros(b.shape[1], self._dtype))(a)
