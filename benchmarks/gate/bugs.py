"""The planted bugs: each is a small patch to the code that trains."""

from typing import NamedTuple

TRAIN, FORM, FUSED, MODEL = (f"training/{name}.py" for name in ("protocol", "engines/form", "engines/fused", "model"))
ACTIVATIONS, ARITHMETIC, LISTS, LOSSES, NORMS, OPTIMISERS, PRODUCTS, ROOMS, STEPS = (
    f"training/engines/kernels/{name}.py"
    for name in (
        "activations", "arithmetic", "lists", "losses", "norms", "optimisers", "products", "rooms", "steps"
    )
)  # fmt: skip

Edit = tuple[str, str, str]
"""A file, a text that it has exactly once, and the text to put in its place."""


class Bug(NamedTuple):
    """A mistake that people make: its name, what is wrong, and the edits that plant it."""

    name: str
    what: str
    edits: tuple[Edit, ...]


def _bug(name: str, what: str, *edits: Edit) -> Bug:
    return Bug(name, what, edits)


_KEPT = (
    (ROOMS, "    v: Floats\n\n\nclass Sparse", "    v: Floats\n    g: Floats\n\n\nclass Sparse"),
    (FUSED, "Parameter(zeros, ", "Parameter(zeros, zeros.copy(), "),
)
_UPDATE = "    columns, wide = gradient.shape[1], gradient.shape[1] // WIDE * WIDE\n"
_SPLIT = "    train_rows, labels = train_rows[:used], images.train_labels\n"
_TRAIN_TENSORS = "        _tensors(images.train_images, labels),\n"
_TEST_TENSORS = "        _tensors(images.test_images, images.test_labels),\n"
_ORDER = "        rows = order(task, of_batches, passed)\n"
_STEPS = "        self.steps = steps_of_epoch(run.settings, len(self.task.train_rows))\n"
_LOSS = "    loss = softmax_loss(layers[last].z, labels, rows, network.classes, layers[last].dz)\n"
_SOFTMAX_FIRST = """\
    p, dz = layers[last].z, layers[last].dz
    for i in range(n):
        together, highest = 0.0, p[i, : network.classes].max()
        for j in range(network.classes):
            p[i, j] = math.exp(p[i, j] - highest)
            together += p[i, j]
        for j in range(network.classes):
            p[i, j] /= together
    loss = softmax_loss(p, labels, rows, network.classes, dz)
    for i in range(n):
        inner = 0.0
        for j in range(network.classes):
            inner += p[i, j] * dz[i, j]
        for j in range(network.classes):
            dz[i, j] = p[i, j] * (dz[i, j] - inner)
"""
_RATE = 'learning_rate / (1 - power1 if optimiser != "sgd" else 1)'


def _labels(every: int) -> Edit:
    shifted = f"np.where(np.arange(len(labels)) % {every} == 0, (labels + 1) % 10, labels)"
    return TRAIN, _TRAIN_TENSORS, f"        _tensors(images.train_images, {shifted}.astype(np.uint8)),\n"


BUGS = (
    _bug("eval_dropout", "evaluation mode forgotten: dropout acts in evaluations",
         (STEPS, "    drops = training and network.threshold > 0\n", "    drops = network.threshold > 0\n"),
         (FUSED, "        size = size if training and size else max(n, 1)\n", "        size = self._settings.batch_size\n"),
         (FUSED, "self._evaluation_masks.draw(len(chosen) if training else 0, 1)", "self._training_masks.draw(len(chosen), 1)")),
    _bug("eval_batch_statistics", "evaluation mode forgotten: BatchNorm uses the batch's statistics in evaluations",
         (NORMS, "    elif training:\n", "    elif training or True:\n")),
    _bug("shared_batch_norm", "one BatchNorm used for both layers",
         (FORM, "shared=settings.shared_norm and settings.batch_norm", "shared=settings.batch_norm"),
         (FUSED, "    if settings.shared_norm and settings.batch_norm:\n", "    if settings.batch_norm:\n")),
    _bug("dropout_half", "dropout rate 0.5 for 0.2",
         (FORM, " gain=numbers(dtype, 1 / (1 - settings.dropout))", " gain=numbers(dtype, 2.0 if settings.dropout else 1.0)"),
         (FORM, " threshold=drop_threshold(settings.dropout)", " threshold=drop_threshold(0.5 if settings.dropout else 0.0)")),
    _bug("dropout_one_layer", "dropout in the wrong layers: the second hidden one only",  # the first has no room for x
         (STEPS, "    drops = training and network.threshold > 0\n", "    drops = training and network.threshold > 0 and len(layer.x) > 0\n"),
         (STEPS, "    dz, gain = layer.dz, network.gain[0]\n", "    dz, gain = layer.dz, network.gain[0]\n    if len(layer.x) == 0:\n        gain /= gain\n")),
    _bug("decay_1000", "weight decay 1e-2 for 1e-5",
         (FORM, "decay=numbers(dtype, 0.0 if decoupled else settings.l2)", "decay=numbers(dtype, 1000 * settings.l2)")),
    _bug("decay_missing", "weight decay not passed on",
         (FORM, "decay=numbers(dtype, 0.0 if decoupled else settings.l2)", "decay=numbers(dtype, 0.0)")),
    _bug("rate_times_3", "learning rate three times too high", (FORM, _RATE, "3 * " + _RATE)),
    _bug("rate_third", "learning rate three times too low", (FORM, _RATE, "1 / 3 * " + _RATE)),
    _bug("no_shuffling", "batches in the order of the split, in every epoch",
         (TRAIN, _ORDER, "        rows = task.train_rows.numpy()\n")),
    _bug("never_reshuffled", "every epoch has the batch order of the first",
         (TRAIN, _ORDER, _ORDER.replace("passed", "1"))),
    _bug("last_batch_dropped", "the last batch of an epoch is dropped",
         (TRAIN, "    of_pass = [size] * (n // size) + [n % size] * (n % size > 0)\n",
          "    of_pass = [size] * (-(-n // size) - 1)\n"), (TRAIN, _ORDER, _ORDER + "        rows = rows[: sum(of_pass)]\n")),
    _bug("labels_1_percent", "1 % of the training and validation labels shifted by one", _labels(100)),
    _bug("labels_5_percent", "5 % of the training and validation labels shifted by one", _labels(20)),
    _bug("validation_leak", "validation images are trained on, too",
         (TRAIN, _SPLIT, _SPLIT + "    train_rows = np.concatenate([train_rows, val_rows])\n")),
    _bug("gradients_not_zeroed", "gradients add up from step to step",
         *_KEPT,
         (OPTIMISERS, _UPDATE, _UPDATE +
          "    for j in range(0, columns, COLUMNS):\n"
          "        store(gradient, of, j, load_narrow(parameter.g, row, j) + load_narrow(gradient, of, j))\n"
          "        store(parameter.g, row, j, load_narrow(gradient, of, j))\n")),
    _bug("step_before_backward", "the optimiser steps before the backward pass, with the gradients of the last batch",
         *_KEPT,
         (OPTIMISERS, _UPDATE, _UPDATE +
          "    for j in range(0, columns, COLUMNS):\n"
          "        fresh = load_narrow(gradient, of, j)\n"
          "        store(gradient, of, j, load_narrow(parameter.g, row, j))\n"
          "        store(parameter.g, row, j, fresh)\n")),
    _bug("softmax_twice", "softmax applied before the cross-entropy", (STEPS, _LOSS, _SOFTMAX_FIRST)),
    _bug("initial_scale", "initial weights 2.4 times too large",
         (MODEL, "    bound = 1 / math.sqrt(fans[settings.init])\n", "    bound = math.sqrt(6 / inputs)\n")),
    _bug("pixels_0_to_255", "pixels in 0..255",
         (LISTS, "found.value.dtype.type(255), 0, ", "found.value.dtype.type(1), 0, ")),
    _bug("test_transposed", "test images transposed",
         (TRAIN, _TEST_TENSORS, "        _tensors(np.ascontiguousarray(images.test_images.reshape(-1, 28, 28).transpose(0, 2, 1))"
          ".reshape(-1, 784), images.test_labels),\n")),
    _bug("no_relu", "ReLU missing",
         (ACTIVATIONS, "            out[i, j] = zero if z[i, j] <= zero else z[i, j]  #", "            out[i, j] = z[i, j]  #")),
    _bug("half_the_epochs", "half of the epochs",
         (TRAIN, ">= self.run.settings.epochs\n", ">= self.run.settings.epochs // 2\n")),
    _bug("batch_640", "batches of 640 for 64",
         (TRAIN, "        course = Course(run, images)\n",
          "        object.__setattr__(run, 'settings', run.settings.model_copy(update={'batch_size': 640}))\n"
          "        course = Course(run, images)\n")),
    _bug("accuracy_denominator", "accuracies over 10,000, however many images there are",
         (TRAIN, "_mean(losses), right / len(labels)", "_mean(losses), right / 10_000")),
    _bug("betas_swapped", "Adam's betas swapped",
         (FORM, "_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8", "_BETA1, _BETA2, _EPS = 0.999, 0.9, 1e-8")),
    _bug("layer_not_trained", "parameters of the second layer not given to the optimiser",
         (STEPS, "        if listed:\n            update_from_lists",
          "        if i == 1:\n            continue\n        if listed:\n            update_from_lists")),
    _bug("output_bias_not_trained", "the output's bias not given to the optimiser",
         (STEPS, "        update_bias(layer, n, i < last and ", "        if i < last:\n            update_bias(layer, n, ")),
    _bug("no_bias_correction", "Adam without its bias correction",
         (FORM, _RATE, "learning_rate"), (FORM, "1 / math.sqrt(1 - power2)", "1.0")),
    _bug("running_statistics", "BatchNorm's running mean and variance never updated",
         (NORMS, "        layer.mean[0, j] = flushed(fma(momentum, mean[j] - layer.mean[0, j], layer.mean[0, j]))\n", ""),
         (NORMS, "            layer.variance[0, j] = flushed(fma(momentum, spread[j] / (count - one) - variance, variance))\n", "")),
    _bug("running_variance_biased", "BatchNorm's running variance is the biased one",
         (NORMS, "spread[j] / (count - one) - variance", "spread[j] / count - variance")),
    _bug("norm_gradient", "BatchNorm's gradient without the term of the mean",
         (NORMS, "fma(-normed[i, j], d_scale[j], dz[i, j] - d_shift[j])", "fma(-normed[i, j], d_scale[j], dz[i, j])")),
    _bug("dropout_not_scaled", "what dropout keeps is not scaled up",
         (FORM, " gain=numbers(dtype, 1 / (1 - settings.dropout))", " gain=numbers(dtype, 1.0)")),
    _bug("dropout_same_mask", "dropout has the same masks in every step",
         (FUSED, "words16(bits, (n, self._width), steps)",
          "np.repeat(words16(type(bits)(0), (n, self._width)), steps, axis=0)")),
    _bug("validation_on_training", "the validation loss is taken on training images",
         (TRAIN, "(*self.train, self.val_rows)", "(*self.train, self.train_rows[-len(self.val_rows) :])")),
    _bug("one_seed_for_all", "initial weights and dropout of seed 0 in every run",
         (TRAIN, "run.seed, run.folder, images.sizes, device)\n        if nudge:\n",
          "0, run.folder, images.sizes, device)\n        if nudge:\n")),
    _bug("rate_falls_late", "learning rate a tenth from the second epoch on",
         (TRAIN, "            losses = engine.train(",
          "            if course._rows:\n                engine._pace._settings = run.settings.model_copy(update={'learning_rate': run.settings.learning_rate / 10})\n"
          "            losses = engine.train(")),
    _bug("tenth_of_the_data", "a tenth of the training images, left over from debugging",
         (TRAIN, _ORDER, _ORDER + "        rows = rows[:n]\n"),
         (TRAIN, "    n = len(task.train_rows)\n", "    n = len(task.train_rows) // 10\n"), (TRAIN, _STEPS, _STEPS.replace(
             "len(self.task.train_rows)", "len(self.task.train_rows) // 10"))),
)  # fmt: skip
