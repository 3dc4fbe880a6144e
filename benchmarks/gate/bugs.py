"""The planted bugs: each is a small patch to the code that trains."""

from typing import NamedTuple

TRAIN, FUSED, KERNELS, MODEL = (
    f"training/{name}.py" for name in ("protocol", "engines/fused", "engines/kernels", "model")
)

Edit = tuple[str, str, str]
"""A file, a text that it has exactly once, and the text to put in its place."""


class Bug(NamedTuple):
    """A mistake that people make: its name, what is wrong, and the edits that plant it."""

    name: str
    what: str
    edits: tuple[Edit, ...]


def _bug(name: str, what: str, *edits: Edit) -> Bug:
    return Bug(name, what, edits)


_KEPT = (KERNELS, "    v: Floats\n\n\nclass Sparse", "    v: Floats\n    g: Floats\n\n\nclass Sparse")
_BLOCK = "            gradient = block_of_lines(layer.columns, p, layer.dz, j, none)\n"
_NUMBER = "        value[j], m[j], v[j] = adam_of(value[j], m[j], v[j], gradient[j], adam)\n"
_SPLIT = "        train_rows, labels = train_rows[:used], images.train_labels\n"
_TRAIN_TENSORS = "            _tensors(images.train_images, labels),\n"
_TEST_TENSORS = "            _tensors(images.test_images, images.test_labels),\n"
_ORDER = '        order = permutation(stream(of_batches, f"batches/{passed}"), len(train_rows))\n'
_STEPS = "    steps = settings.epoch_steps or -(-len(task.train_rows) // settings.batch_size)\n"
_LOSS = "    loss = softmax_loss(output.z, labels, batch, output.dz)\n"
_EVALUATE = "        forward(pixels, part, layers, words, 0, no_dropout, layers[0].z[0], norm, False)\n"
_SOFTMAX_FIRST = """\
    for i in range(n):
        row, together, highest = output.z[i], output.z[i, 0] - output.z[i, 0], output.z[i].max()
        for j in range(len(row)):
            row[j] = math.exp(row[j] - highest)
            together += row[j]
        for j in range(len(row)):
            row[j] /= together
    loss = softmax_loss(output.z, labels, batch, output.dz)
    for i in range(n):
        row, d_row = output.z[i], output.dz[i]
        inner = dot(row, d_row)
        for j in range(len(row)):
            d_row[j] = row[j] * (d_row[j] - inner)
"""


def _labels(every: int) -> Edit:
    shifted = f"np.where(np.arange(len(labels)) % {every} == 0, (labels + 1) % 10, labels)"
    return TRAIN, _TRAIN_TENSORS, f"            _tensors(images.train_images, {shifted}.astype(np.uint8)),\n"


BUGS = (
    _bug("eval_dropout", "evaluation mode forgotten: dropout acts in evaluations",
         (KERNELS, "def predict(pixels, batch, layers, words, norm, out):", "def predict(pixels, batch, layers, words, threshold, keep, norm, out):"),
         (KERNELS, _EVALUATE,
          "        now = (words[0][:, first : first + room], words[1][:, first : first + room])\n"
          "        forward(pixels, part, layers, now, 0, threshold, keep, norm, False)\n"),
         (FUSED, "        predict(self._pixels(images), rows.numpy(), self._layers, self._no_words, self._settings.batch_norm, outputs)\n",
          "        threshold = np.int32(drop_threshold(self._settings.dropout))\n"
          "        words = self._dropout_words(1, len(rows))\n"
          "        norm = self._settings.batch_norm\n"
          "        predict(self._pixels(images), rows.numpy(), self._layers, words, threshold, self._keep, norm, outputs)\n")),
    _bug("eval_batch_statistics", "evaluation mode forgotten: BatchNorm uses the batch's statistics in evaluations",
         (KERNELS, _EVALUATE, _EVALUATE.replace("False", "True"))),
    _bug("shared_batch_norm", "one BatchNorm used for both layers",
         (FUSED, "    return (*first, _layer(",
          '    shared = {name: getattr(first[0], name) for name in ("scale", "shift", "mean", "variance")}\n'
          "    first = [layer._replace(**shared) for layer in first]\n    return (*first, _layer(")),
    _bug("dropout_half", "dropout rate 0.5 for 0.2",
         (FUSED, "self._keep = self._constant(1 - settings.dropout)", "self._keep = self._constant(0.5 if settings.dropout else 1.0)"),
         (FUSED, "            np.int32(drop_threshold(settings.dropout)),\n",
          "            np.int32(drop_threshold(0.5 if settings.dropout else 0.0)),\n")),
    _bug("dropout_one_layer", "dropout in the wrong layers: the second hidden one only",
         (KERNELS, "        activate(layer, n, norm, words[i][s], threshold, keep[0], layers[i + 1].x)\n",
          "        activate(layer, n, norm, words[i][s], threshold * (i == last - 1), keep[0], layers[i + 1].x)\n"),
         (KERNELS, "            back_through(layer, n, threshold, keep[0], layers[i - 1].dz)\n",
          "            back_through(layer, n, 0, keep[0], layers[i - 1].dz)\n")),
    _bug("decay_1000", "weight decay 1e-2 for 1e-5",
         (FUSED, "constants = (settings.l2, ", "constants = (1000 * settings.l2, ")),
    _bug("decay_missing", "weight decay not passed on",
         (FUSED, "constants = (settings.l2, ", "constants = (0.0, ")),
    _bug("rate_times_3", "learning rate three times too high",
         (FUSED, "self._settings.learning_rate / (1 - _BETA1", "3 * self._settings.learning_rate / (1 - _BETA1")),
    _bug("rate_third", "learning rate three times too low",
         (FUSED, "self._settings.learning_rate / (1 - _BETA1", "self._settings.learning_rate / 3 / (1 - _BETA1")),
    _bug("no_shuffling", "batches in the order of the split, in every epoch",
         (TRAIN, _ORDER, "        order = np.arange(len(train_rows))\n")),
    _bug("never_reshuffled", "every epoch has the batch order of the first",
         (TRAIN, _ORDER, '        order = permutation(stream(of_batches, "batches/1"), len(train_rows))\n')),
    _bug("last_batch_dropped", "the last batch of an epoch is dropped",
         (TRAIN, "run.settings.batch_size)\n\n\ndef _train_epoch", "run.settings.batch_size)[:-1]\n\n\ndef _train_epoch"),
         (TRAIN, _STEPS, _STEPS.replace("settings.batch_size)", "settings.batch_size) - 1"))),
    _bug("labels_1_percent", "1 % of the training and validation labels shifted by one", _labels(100)),
    _bug("labels_5_percent", "5 % of the training and validation labels shifted by one", _labels(20)),
    _bug("validation_leak", "validation images are trained on, too",
         (TRAIN, _SPLIT, _SPLIT + "        train_rows = np.concatenate([train_rows, val_rows])\n")),
    _bug("gradients_not_zeroed", "gradients add up from step to step",
         _KEPT,
         (KERNELS, _BLOCK, _BLOCK.replace("none", "load(weight.g, p, j)") + "            store(weight.g, p, j, gradient)\n"),
         (KERNELS, _NUMBER, "        parameter.g[row, column + j] += gradient[j]\n" + _NUMBER.replace("gradient[j]", "parameter.g[row, column + j]"))),
    _bug("step_before_backward", "the optimiser steps before the backward pass, with the gradients of the last batch",
         _KEPT,
         (KERNELS, _BLOCK, _BLOCK.replace("gradient", "fresh") + "            gradient = load(weight.g, p, j)\n            store(weight.g, p, j, fresh)\n"),
         (KERNELS, _NUMBER, _NUMBER.replace("gradient[j]", "parameter.g[row, column + j]") + "        parameter.g[row, column + j] = gradient[j]\n")),
    _bug("softmax_twice", "softmax applied before the cross-entropy", (KERNELS, _LOSS, _SOFTMAX_FIRST)),
    _bug("initial_scale", "initial weights 2.4 times too large",
         (MODEL, "    bound = 1 / math.sqrt(fans[settings.init])\n", "    bound = math.sqrt(6 / inputs)\n")),
    _bug("pixels_0_to_255", "pixels in 0..255",
         (KERNELS, "found.value.dtype.type(255), 0\n", "found.value.dtype.type(1), 0\n")),
    _bug("test_transposed", "test images transposed",
         (TRAIN, _TEST_TENSORS, "            _tensors(np.ascontiguousarray(images.test_images.reshape(-1, 28, 28).transpose(0, 2, 1))"
          ".reshape(-1, 784), images.test_labels),\n")),
    _bug("no_relu", "ReLU missing",
         (KERNELS, "            out[i, j] = zero if y <= zero else y  #", "            out[i, j] = y  #")),
    _bug("half_the_epochs", "half of the epochs",
         (TRAIN, "    for epoch in range(1, settings.epochs + 1):\n", "    for epoch in range(1, settings.epochs // 2 + 1):\n")),
    _bug("batch_640", "batches of 640 for 64",
         (TRAIN, "    with steady_arithmetic():\n        task = _Task.of(run, images)\n        engine = make_engine(run.engine, run.settings, run.seed, run.folder)\n        if nudge:\n",
          "    with steady_arithmetic():\n        object.__setattr__(run, 'settings', run.settings.model_copy(update={'batch_size': 640}))\n"
          "        task = _Task.of(run, images)\n        engine = make_engine(run.engine, run.settings, run.seed, run.folder)\n        if nudge:\n")),
    _bug("accuracy_denominator", "accuracies over 10,000, however many images there are",
         (TRAIN, "(prediction == truth).sum().item() / len(rows)", "(prediction == truth).sum().item() / 10_000")),
    _bug("betas_swapped", "Adam's betas swapped",
         (FUSED, "_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8", "_BETA1, _BETA2, _EPS = 0.999, 0.9, 1e-8")),
    _bug("layer_not_trained", "parameters of the second layer not given to the optimiser",
         (KERNELS, "        update_weight(layer, adam)\n        update_bias(layer, n, norm, adam)\n",
          "        if i != 1:\n            update_weight(layer, adam)\n            update_bias(layer, n, norm, adam)\n")),
    _bug("output_bias_not_trained", "the output's bias not given to the optimiser",
         (KERNELS, "    update_bias(layer, n, False, adam)\n", "")),
    _bug("no_bias_correction", "Adam without its bias correction",
         (FUSED, "self._settings.learning_rate / (1 - _BETA1**t)", "self._settings.learning_rate"),
         (FUSED, "1 / math.sqrt(1 - _BETA2**t)", "1.0")),
    _bug("running_statistics", "BatchNorm's running mean and variance never updated",
         (KERNELS, "        layer.mean[0, j] += momentum * (mean[j] - layer.mean[0, j])\n", ""),
         (KERNELS, "        layer.variance[0, j] += momentum * (spread[j] / (count - one) - layer.variance[0, j])\n", "")),
    _bug("running_variance_biased", "BatchNorm's running variance is the biased one",
         (KERNELS, "spread[j] / (count - one) - layer.variance", "spread[j] / count - layer.variance")),
    _bug("norm_gradient", "BatchNorm's gradient without the term of the mean",
         (KERNELS, "centred = dz[i, j] - d_shift[j] / count - ", "centred = dz[i, j] - ")),
    _bug("dropout_not_scaled", "what dropout keeps is not scaled up",
         (FUSED, "self._keep = self._constant(1 - settings.dropout)", "self._keep = self._constant(1.0)")),
    _bug("dropout_same_mask", "dropout has the same masks in every step",
         (FUSED, "tuple(words16(bits, shape, steps) for bits in self._dropout)",
          "tuple(np.repeat(words16(type(bits)(0), shape), steps, axis=0) for bits in self._dropout)")),
    _bug("validation_on_training", "the validation loss is taken on training images",
         (TRAIN, "    val = evaluate(engine, *task.train, task.val_rows, **how)\n",
          "    val = evaluate(engine, *task.train, task.train_rows[-len(task.val_rows) :])\n")),
    _bug("one_seed_for_all", "initial weights and dropout of seed 0 in every run",
         (TRAIN, "        engine = make_engine(run.engine, run.settings, run.seed, run.folder)\n        if nudge:\n",
          "        engine = make_engine(run.engine, run.settings, 0, run.folder)\n        if nudge:\n")),
    _bug("rate_falls_late", "learning rate a tenth from the second epoch on",
         (FUSED, "self._settings.learning_rate / (1 - _BETA1**t)",
          "self._settings.learning_rate * (0.1 if t > self._per_epoch else 1.0) / (1 - _BETA1**t)"),
         (TRAIN, _STEPS, _STEPS + "    engine._per_epoch = steps\n")),
    _bug("tenth_of_the_data", "a tenth of the training images, left over from debugging",
         (TRAIN, _ORDER, _ORDER + "        order = order[: len(order) // 10]\n"),
         (TRAIN, _STEPS, _STEPS.replace("len(task.train_rows)", "(len(task.train_rows) // 10)"))),
)  # fmt: skip
