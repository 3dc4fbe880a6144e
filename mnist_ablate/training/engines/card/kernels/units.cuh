// What follows a linear layer: normalisation, ReLU, dropout, and the way back. See `engines/kernels/norms.py`,
// `activations.py` and, for the order of parts, `steps.py`.
//
// A thread has whole columns, so it needs no barrier; normalisations of groups of units have phases of their own,
// in which a thread has groups of an image.

struct Mode {
    bool training;
    int n;
};

DEVICE bool drops(const Run &run, const Mode mode) { return mode.training && run.threshold > 0; }

DEVICE float relu(float z) { return z <= 0 ? 0.0f : z; }  // NaN stays NaN

// Dropout of a column.
struct Dropout {
    const Word *words;
    int width, threshold;
    float gain;

    DEVICE float operator()(int i, float x) const { return words[i * width] >= threshold ? x * gain : 0.0f; }
};

DEVICE Dropout dropout_of(const Run &run, const Layer &layer, int j) {
    return {layer.words + j, (int)run.width, (int)run.threshold, (float)run.gain};
}

#define AT_ONCE 16

// Put value(i) into row i of a column. Of AT_ONCE rows all values are computed before one is stored, so what they load
// comes together: the compiler may not move a load before a store to what could be the same place.
template <class Value> DEVICE void fill(float *column, int n, int stride, const Value value) {
    int first = 0;
    KEEP_LOOP for (; first + AT_ONCE <= n; first += AT_ONCE) {
        float x[AT_ONCE];
        UNROLL for (int u = 0; u < AT_ONCE; u++) x[u] = value(first + u);
        UNROLL for (int u = 0; u < AT_ONCE; u++) column[(first + u) * stride] = x[u];
    }
    KEEP_LOOP for (; first < n; first++) column[first * stride] = value(first);
}

// ---- Forward ----

// Compute what comes before the normalisation of column j, and the normalisation over the batch.
DEVICE void unit_before(const Run &run, Layer &layer, const Mode mode, int j) {
    const int n = mode.n, stride = (int)layer.stride;
    float *z = layer.z + j, *normed = layer.normed + j;
    if (run.norm == NO_NORM) return;
    if (run.norm_after) {
        const Dropout dropout = dropout_of(run, layer, j);
        const bool drops_here = drops(run, mode) && !run.drop_after;
        fill(z, n, stride, [&](int i) {
            const float x = relu(z[i * stride]);
            return drops_here ? dropout(i, x) : x;
        });
    }
    if (run.norm != BATCH_NORM) return;
    if (!mode.training) {
        const float mean = layer.mean[j], spread = 1.0f / root(layer.variance[j] + (float)EPS);
        fill(normed, n, stride, [&](int i) { return (z[i * stride] - mean) * spread; });
        return;
    }
    const float count = (float)n, momentum = (float)MOMENTUM;
    float mean = 0, squares = 0;
    UNROLL_SOME for (int i = 0; i < n; i++) mean += z[i * stride];
    mean /= count;
    UNROLL_SOME for (int i = 0; i < n; i++) {
        const float centred = z[i * stride] - mean;
        squares = fma(centred, centred, squares);
    }
    layer.mean[j] = flushed(fma(momentum, mean - layer.mean[j], layer.mean[j]));
    if (n > 1) {
        const float variance = layer.variance[j];
        layer.variance[j] = flushed(fma(momentum, squares / (count - 1.0f) - variance, variance));
    }
    const float spread = 1.0f / root(squares / count + (float)EPS);
    layer.spread[j] = spread;
    fill(normed, n, stride, [&](int i) { return (z[i * stride] - mean) * spread; });
}

// Normalise group g of the units of image i.
DEVICE void unit_group(const Run &run, Layer &layer, int i, int g) {
    const int size = (int)(run.width / run.groups), first = g * size;
    const float *z = layer.z + (long long)i * layer.stride, count = (float)size;
    float *normed = layer.normed + (long long)i * layer.stride, total = 0, variance = 0;
    for (int j = first; j < first + size; j++) total += z[j];
    const float mean = total / count;
    for (int j = first; j < first + size; j++) {
        const float centred = z[j] - mean;
        variance = fma(centred, centred, variance);
    }
    const float spread = 1.0f / root(variance / count + (float)EPS);
    layer.spread[i * run.groups + g] = spread;
    fill(normed + first, size, 1, [&](int j) { return (z[first + j] - mean) * spread; });
}

// Compute what comes after: the inputs of the next layer.
DEVICE void unit_after(const Run &run, Layer &layer, const Layer &next, const Mode mode, int j) {
    const int stride = (int)layer.stride;
    const bool norms = run.norm != NO_NORM, relu_here = !run.norm_after;
    const bool drops_here = drops(run, mode) && (run.drop_after || relu_here);
    const float *from = (norms ? layer.normed : layer.z) + j;
    const float scale = layer.scale.value[j], shift = layer.shift.value[j];
    const Dropout dropout = dropout_of(run, layer, j);
    fill(next.x + j, mode.n, stride, [&](int i) {
        float x = from[i * stride];
        if (norms) x = fma(scale, x, shift);
        if (relu_here) x = relu(x);
        return drops_here ? dropout(i, x) : x;
    });
}

APART void unit(const Run &run, Layer &layer, const Layer &next, const Mode mode) {
    if (run.norm == GROUP_NORM) {
        if (run.norm_after) PHASE(for (int j = t; j < run.width; j += THREADS) unit_before(run, layer, mode, j));
        PHASE(for (int e = t; e < mode.n * run.groups; e += THREADS)
                  unit_group(run, layer, e / (int)run.groups, e % (int)run.groups));
        PHASE(for (int j = t; j < run.width; j += THREADS) unit_after(run, layer, next, mode, j));
    } else
        PHASE(for (int j = t; j < run.width; j += THREADS) {
            unit_before(run, layer, mode, j);
            unit_after(run, layer, next, mode, j);
        });
}

// ---- Backward ----

DEVICE float back_through_relu(float dx, float x, float gain) { return x == 0 ? 0.0f : dx * gain; }

// Turn column j of dz from the gradient of the layer's outputs into that of (scale normed + shift); with a batch
// normalisation, into that of the normalisation's inputs.
DEVICE void back_before(const Run &run, Layer &layer, const Layer &next, int n, int j) {
    const int stride = (int)layer.stride;
    const float gain = (float)run.gain;
    float *dz = layer.dz + j;
    if (!run.norm_after) {
        const float *x = next.x + j;
        fill(dz, n, stride, [&](int i) { return back_through_relu(dz[i * stride], x[i * stride], gain); });
    } else if (run.drop_after && run.threshold > 0) {
        const Dropout dropout = dropout_of(run, layer, j);
        fill(dz, n, stride, [&](int i) { return dropout(i, dz[i * stride]); });
    }
    if (run.norm == NO_NORM) return;
    const float *normed = layer.normed + j;
    float d_shift = 0, d_scale = 0;
    UNROLL_SOME for (int i = 0; i < n; i++) {
        d_shift += dz[i * stride];
        d_scale = fma(dz[i * stride], normed[i * stride], d_scale);
    }
    layer.d_scale[j] += d_scale;
    layer.d_shift[j] += d_shift;
    if (run.norm != BATCH_NORM) return;
    const float count = (float)n, factor = layer.scale.value[j] * layer.spread[j];
    d_scale /= count;
    d_shift /= count;
    fill(dz, n, stride, [&](int i) { return factor * fma(-normed[i * stride], d_scale, dz[i * stride] - d_shift); });
}

// Turn group g of dz of image i into the gradient of the normalisation's inputs.
DEVICE void back_group(const Run &run, Layer &layer, int i, int g) {
    const int size = (int)(run.width / run.groups), first = g * size;
    const long long at = (long long)i * layer.stride + first;
    const float *normed = layer.normed + at, *scale = layer.scale.value + first, count = (float)size;
    const float spread = layer.spread[i * run.groups + g];
    float *dz = layer.dz + at, total = 0, along = 0;
    fill(dz, size, 1, [&](int j) { return dz[j] * scale[j]; });
    UNROLL_SOME for (int j = 0; j < size; j++) {
        total += dz[j];
        along = fma(dz[j], normed[j], along);
    }
    const float mean = total / count, of_normed = along / count;
    fill(dz, size, 1, [&](int j) { return spread * fma(-normed[j], of_normed, dz[j] - mean); });
}

// Finish column j of dz, and update what the unit has: bias, scale and shift.
DEVICE void back_after(const Run &run, Layer &layer, const Rule &rule, int n, int j, bool updates_norm) {
    const int stride = (int)layer.stride;
    float *dz = layer.dz + j;
    if (run.norm_after) {
        const float gain = run.drop_after ? 1.0f : (float)run.gain, *z = layer.z + j;
        fill(dz, n, stride, [&](int i) { return back_through_relu(dz[i * stride], z[i * stride], gain); });
    }
    if (updates_norm) {
        update(rule, layer.d_scale[j], layer.scale, j);
        update(rule, layer.d_shift[j], layer.shift, j);
    }
    float d_bias = 0;
    UNROLL_SOME for (int i = 0; i < n; i++) d_bias += dz[i * stride];
    if (!is_finite(d_bias)) layer.wild = 1;
    if (run.norm == BATCH_NORM && !run.norm_after) d_bias *= 0.0f;  // NaN stays NaN
    update(rule, d_bias, layer.bias, j);
    if (!is_finite(layer.bias.value[j])) layer.broken = 1;
}

APART void back_through_unit(
    const Run &run, Layer &layer, const Layer &next, const Rule &rule, int n, bool updates_norm
) {
    if (run.norm == GROUP_NORM) {
        PHASE(for (int j = t; j < run.width; j += THREADS) back_before(run, layer, next, n, j));
        PHASE(for (int e = t; e < n * run.groups; e += THREADS)
                  back_group(run, layer, e / (int)run.groups, e % (int)run.groups));
        PHASE(for (int j = t; j < run.width; j += THREADS) back_after(run, layer, rule, n, j, updates_norm));
    } else
        PHASE(for (int j = t; j < run.width; j += THREADS) {
            back_before(run, layer, next, n, j);
            back_after(run, layer, rule, n, j, updates_norm);
        });
}
