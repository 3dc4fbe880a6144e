// An epoch of a run: its steps of training, then its evaluations. See `engines/kernels/steps.py`.

// Compute the inputs of the output layer.
APART void forward(const Run &run, const int *rows, const Byte *images, const Mode mode) {
    const bool drops_pixels = mode.training && run.pixel_threshold > 0;
    for (int i = 0; i < run.depth; i++) {
        Layer &layer = run.layers[i];
        const Shape shape = {mode.n, (int)layer.stride, (int)layer.inputs};
        const Right right = {layer.weight.value, (int)layer.stride};
        const Store store = {layer.z, mode.n, (int)layer.stride};
        if (i == 0) {
            PixelRows left;
            left.images = images;
            left.rows = rows;
            left.n = mode.n;
            left.words = run.pixel_words;
            left.threshold = drops_pixels ? (unsigned)run.pixel_threshold : 0;
            left.gain = (float)run.pixel_gain;
            if (layer.broken)  // black pixels are left out, so their weights matter to no sum
                product<true>(shape, left, right, layer.bias.value, store);
            else
                product<false>(shape, left, right, layer.bias.value, store);
        } else
            product<false>(
                shape, Rows{layer.x, mode.n, (int)layer.x_stride}, right, layer.bias.value, store);
        unit(run, layer, run.layers[i + 1], mode);
    }
}

// Draw the random words of a batch of n images, from the streams for training or for evaluation.
APART void draw_words(const Run &run, Stream *streams, int n) {
    int place = 0;
    if (run.pixel_threshold > 0) {
        PHASE(draw(t, run.jumps, streams[place], *run.next, (long long)n * PIXELS, run.pixel_words));
        PHASE(if (t == 0) streams[place].state = *run.next);
        place++;
    }
    if (run.threshold > 0)
        for (int i = 0; i < run.depth; i++) {
            PHASE(draw(t, run.jumps, streams[place + i], *run.next, n * run.width, run.layers[i].words));
            PHASE(if (t == 0) streams[place + i].state = *run.next);
        }
}

// Return whether weights and biases between hidden layers are finite.
DEVICE bool sound(const Run &run) {
    for (int i = 1; i < run.depth; i++)
        if (run.layers[i].broken) return false;
    return true;
}

// Update the weights of a hidden layer with x' dz.
template <class Left> DEVICE void update_weights(Layer &layer, const Left left, int n) {
    const Shape shape = {(int)layer.inputs, (int)layer.stride, n};
    const Right right = {layer.dz, (int)layer.stride};
    if (layer.first && layer.wild)  // of the first layer's inputs, zeros are left out
        product<true>(shape, left, right, nullptr, Update{&layer});
    else
        product<false>(shape, left, right, nullptr, Update{&layer});
}

APART void backward(const Run &run, const int *rows, int n) {
    const Rule &rule = room.rule;
    Layer &last = run.layers[run.depth];
    if (run.norm != NO_NORM)
        PHASE(for (int i = 0; i < run.depth; i++) for (int j = t; j < run.width; j += THREADS)
                  run.layers[i].d_scale[j] = run.layers[i].d_shift[j] = 0);
    for (int i = run.depth - 1; i >= 0; i--) {
        Layer &layer = run.layers[i], &next = run.layers[i + 1];
        product<false>(
            Shape{n, (int)layer.stride, (int)next.outputs}, Rows{next.dz, n, (int)next.stride},
            Right{next.flipped, (int)next.flipped_stride}, nullptr, Store{layer.dz, n, (int)layer.stride});
        // The weights of the layer above are no longer needed as they were.
        if (i == run.depth - 1)
            PHASE(for (int e = t; e < last.inputs * CLASSES; e += THREADS)
                      update_output(last, rule, n, e / CLASSES, e % CLASSES);
                  if (t < CLASSES) update_output_bias(last, rule, n, t));
        else
            update_weights(next, Columns{next.x, n, (int)next.x_stride}, n);
        back_through_unit(run, layer, next, rule, n, run.norm != NO_NORM && (i == 0 || !run.shared));
    }
    PixelColumns left;
    left.images = run.train.images;
    left.rows = rows;
    left.n = n;
    left.words = run.pixel_words;
    left.threshold = (unsigned)run.pixel_threshold;
    left.gain = (float)run.pixel_gain;
    update_weights(run.layers[0], left, n);
}

// Compute the loss of n images, and its gradient.
APART void softmax_loss(const Run &run, const Layer &last, const int *rows, int n, double *loss) {
    PHASE(for (int i = t; i < n; i += THREADS) {
        int place;
        run.together[i] = sum_of(run.powers, i);
        run.batch_losses[i] = loss_of(last, run.together[i], run.train.labels[rows[i]], i, place);
    });
    PHASE(for (int e = t; e < n * CLASSES; e += THREADS) {
        const int i = e / CLASSES;
        d_logit(last, run.powers, run.together[i], run.train.labels[rows[i]], n, i, e % CLASSES);
    } if (t == 0) {
        double total = 0;
        UNROLL_SOME for (int i = 0; i < n; i++) total += run.batch_losses[i];
        *loss = total / n;
    });
}

// Take a step on n images; its loss goes to `loss`.
APART void train_step(const Run &run, const int *rows, int n, double *loss) {
    Layer &last = run.layers[run.depth];
    draw_words(run, run.training_streams, n);
    if (!sound(run)) {
        PHASE(if (t == 0) *loss = NOT_A_NUMBER);
        return;
    }
    forward(run, rows, run.train.images, Mode{true, n});
    logits_and_powers(last, run.powers, n);
    softmax_loss(run, last, rows, n, loss);
    backward(run, rows, n);
}

// Evaluate the network on some images.
APART void evaluate(const Run &run, const Part &part) {
    const Layer &last = run.layers[run.depth];
    const bool training = run.evaluates_training;
    const int most = (int)(training ? run.batch : run.room);
    if (!sound(run)) {
        PHASE(for (long long i = t; i < part.n; i += THREADS) part.losses[i] = NOT_A_NUMBER);
        return;
    }
    for (long long first = 0; first < part.n; first += most) {
        const int n = (int)(part.n - first < most ? part.n - first : most);
        const int *rows = part.rows + first;
        if (training) draw_words(run, run.evaluation_streams, n);
        forward(run, rows, part.images, Mode{training, n});
        logits_and_powers(last, run.powers, n);
        PHASE(for (int i = t; i < n; i += THREADS) {
            int place;
            const double together = sum_of(run.powers, i);
            part.losses[first + i] = loss_of(last, together, part.labels[rows[i]], i, place);
            part.predictions[first + i] = (Byte)place;
            part.confidences[first + i] = (float)(1.0 / together);
        });
    }
}

KERNEL train_epoch(Run *runs) {
    Run &run = runs[BLOCK];
    PHASE(for (int v = t; v < 256; v += THREADS) room.white[v] = (float)v / 255.0f);
    const long long began = nanoseconds();
    long long at = 0, step = 0;
    bool finite = true;
    for (; finite && step < run.steps; step++) {
        const int n = (int)run.sizes[step];
        PHASE(if (t == 0) room.rule = rule_of(run, step));
        train_step(run, run.batches + at, n, run.losses + step);
        finite = is_finite(run.losses[step]);
        at += n;
    }
    const long long trained = nanoseconds();
    for (int p = 0; finite && p < PARTS; p++) evaluate(run, (&run.part0)[p]);
    PHASE(if (t == 0) {
        run.taken = step;
        run.train_nanoseconds = trained - began;
        run.eval_nanoseconds = nanoseconds() - trained;
    });
}
