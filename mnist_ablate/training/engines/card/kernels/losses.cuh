// The output layer, softmax and cross-entropy: see `engines/kernels/losses.py`.

DEVICE float largest(const float *row, int &place) {
    place = 0;
    for (int j = 1; j < CLASSES; j++)
        if (row[j] > row[place]) place = j;
    return row[place];
}

// Compute logit c of image i, with the whole row of inputs.
DEVICE void logit(const Layer &last, int i, int c) {
    const float *x = last.x + (long long)i * last.x_stride, *weight = last.weight.value + c;
    const int inputs = (int)last.inputs, stride = (int)last.stride, whole = inputs / 4 * 4;
    float sum = last.bias.value[c];
    UNROLL_SOME for (int k = 0; k < whole; k += 4) {
        Four four;
        load(four, x + k);
        UNROLL for (int d = 0; d < 4; d++) sum = fma(four[d], weight[(k + d) * stride], sum);
    }
    for (int k = whole; k < inputs; k++) sum = fma(x[k], weight[k * stride], sum);
    last.z[i * last.stride + c] = sum;
}

// Compute the exponential of logit c of image i, less the largest.
DEVICE void power_of(const Layer &last, double *powers, int i, int c) {
    const float *logits = last.z + (long long)i * last.stride;
    int place;
    const float highest = largest(logits, place);
    powers[i * CLASSES + c] = exp_of(logits[c] - highest);
}

DEVICE double sum_of(const double *powers, int i) {
    double together = 0;
    for (int c = 0; c < CLASSES; c++) together += powers[i * CLASSES + c];
    return together;
}

DEVICE double loss_of(const Layer &last, double together, int label, int i, int &place) {
    const float *logits = last.z + (long long)i * last.stride;
    const float highest = largest(logits, place);
    return log_of(together) + (highest - logits[label]);
}

// Compute the gradient of the mean loss with respect to logit c of image i.
DEVICE void d_logit(const Layer &last, const double *powers, double together, int label, int n, int i, int c) {
    const double probability = powers[i * CLASSES + c] / together;
    last.dz[i * last.stride + c] = flushed((float)((probability - (c == label ? 1.0 : 0.0)) / n));
}

APART void logits_and_powers(const Layer &last, double *powers, int n) {
    PHASE(for (int e = t; e < n * CLASSES; e += THREADS) logit(last, e / CLASSES, e % CLASSES));
    PHASE(for (int e = t; e < n * CLASSES; e += THREADS) power_of(last, powers, e / CLASSES, e % CLASSES));
}

// Update the weights from unit k to class c of the output layer.
DEVICE void update_output(Layer &last, const Rule &rule, int n, int k, int c) {
    const long long at = k * last.stride + c;
    float value = last.weight.value[at], m = last.weight.m[at], v = last.weight.v[at], gradient = 0;
    UNROLL_SOME for (int i = 0; i < n; i++)
        gradient = fma(last.x[i * last.x_stride + k], last.dz[i * last.stride + c], gradient);
    update(rule, gradient, value, m, v);
    last.weight.value[at] = value;
    last.weight.m[at] = m;
    last.weight.v[at] = v;
    last.flipped[c * last.flipped_stride + k] = value;
}

DEVICE void update_output_bias(Layer &last, const Rule &rule, int n, int c) {
    float gradient = 0;
    UNROLL_SOME for (int i = 0; i < n; i++) gradient += last.dz[i * last.stride + c];
    update(rule, gradient, last.bias, c);
}
