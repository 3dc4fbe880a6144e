// The optimisers: see `engines/kernels/optimisers.py`.

struct Rule {
    int kind;
    bool still;
    float l1, decay, shrink, keep_m, keep_v, new_m, new_v, rate, correction, eps;
};

DEVICE Rule rule_of(const Run &run, long long step) {
    Rule rule;
    rule.kind = (int)run.kind;
    rule.still = run.still != 0;
    rule.l1 = (float)run.l1;
    rule.decay = (float)run.decay;
    rule.shrink = (float)run.shrink;
    rule.keep_m = (float)run.keep_m;
    rule.keep_v = (float)run.keep_v;
    rule.new_m = (float)run.new_m;
    rule.new_v = (float)run.new_v;
    rule.rate = run.rate[step];
    rule.correction = run.correction[step];
    rule.eps = (float)run.eps;
    return rule;
}

// Update a number of a parameter, and its moments, with its gradient.
DEVICE void update(const Rule &rule, float gradient, float &value, float &m, float &v) {
    float g = gradient;
    if (!rule.still) {
        if (rule.l1 > 0) g = fma(rule.l1, (float)((value > 0) - (value < 0)), g);
        if (rule.kind == SGD) {
            value = flushed(fma(-rule.rate, fma(rule.decay, value, g), value));
            return;
        }
        g = fma(rule.decay, value, g);
    }
    const float new_m = fma(rule.new_m, g, rule.keep_m * m);
    const float new_v = fma(rule.new_v * g, g, rule.keep_v * v);
    const float step = rule.rate * new_m / fma(rule.correction, root(new_v), rule.eps);
    value = rule.still ? value - step : flushed(value - fma(rule.shrink, value, step));
    m = flushed(new_m);
    v = flushed_square(new_v);
}

DEVICE void update(const Rule &rule, float gradient, const Parameter &parameter, long long at) {
    update(rule, gradient, parameter.value[at], parameter.m[at], parameter.v[at]);
}
