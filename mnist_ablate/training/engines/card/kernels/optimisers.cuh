// The optimisers: see `engines/kernels/optimisers.py`.

struct Rule {
    int kind;
    bool still;
    float l1, decay, shrink, keep_m, keep_v, new_m, new_v, rate, correction, eps;
    bool usual;  // whether usual moments make usual divisors: 2**-50 to 2**26
    float lifted_rate, lifted_correction, lifted_eps;
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
    rule.usual = rule.correction >= 1 && rule.correction <= 1024 && rule.eps > 0 && rule.eps <= 1;
    // A power of 2 on both sides leaves Adam's quotient, and makes moments usual that have decayed for long.
    const float lift = rule.correction <= 2 ? 1024 : 1;
    rule.lifted_rate = lift * rule.rate;
    rule.lifted_correction = lift * rule.correction;
    rule.lifted_eps = lift * rule.eps;
    return rule;
}

// Compute Adam's steps of N numbers; return false if one needs the card's own root and division.
template <int N> DEVICE bool take_steps(const Rule &rule, const float (&m)[N], const float (&v)[N], float (&steps)[N]) {
    Bits32 any = rule.usual ? 0 : RARE;
    UNROLL for (int e = 0; e < N; e++) {
        const float rise = rule.lifted_rate * m[e];
        const bool none = rise == 0 && v[e] >= 0;  // as where pixels are black: 0 divided by a positive number
        const float a = none ? 1.0f : rise, variance = none ? 1.0f : v[e];
        any |= rare(a) | rare(variance);
        const float b = fma(rule.lifted_correction, usual_root(variance), rule.lifted_eps);
        const float quotient = usual_quotient(a, b);
        steps[e] = none ? rise : quotient;
    }
    return !(any & RARE);
}

// Update N numbers of a parameter, and their moments, with their gradients. Return false, and change nothing, if one
// of them must be updated alone.
template <int N>
DEVICE bool update(const Rule &rule, const float (&gradients)[N], float (&values)[N], float (&m)[N], float (&v)[N]) {
    float g[N], new_m[N], new_v[N], steps[N];
    UNROLL for (int e = 0; e < N; e++) g[e] = gradients[e];
    if (!rule.still) {
        if (rule.l1 > 0)
            UNROLL for (int e = 0; e < N; e++)
                g[e] = fma(rule.l1, (float)((values[e] > 0) - (values[e] < 0)), g[e]);
        UNROLL for (int e = 0; e < N; e++) g[e] = fma(rule.decay, values[e], g[e]);
        if (rule.kind == SGD) {
            UNROLL for (int e = 0; e < N; e++) values[e] = flushed(fma(-rule.rate, g[e], values[e]));
            return true;
        }
    }
    UNROLL for (int e = 0; e < N; e++) {
        new_m[e] = fma(rule.new_m, g[e], rule.keep_m * m[e]);
        new_v[e] = fma(rule.new_v * g[e], g[e], rule.keep_v * v[e]);
    }
    if (N == 1)
        steps[0] = rule.rate * new_m[0] / fma(rule.correction, root(new_v[0]), rule.eps);
    else if (!take_steps(rule, new_m, new_v, steps))
        return false;
    UNROLL for (int e = 0; e < N; e++) {
        values[e] = rule.still ? values[e] - steps[e] : flushed(values[e] - fma(rule.shrink, values[e], steps[e]));
        m[e] = flushed(new_m[e]);
        v[e] = flushed_square(new_v[e]);
    }
    return true;
}

DEVICE void update(const Rule &rule, float gradient, float &value, float &m, float &v) {
    float values[1] = {value}, of_m[1] = {m}, of_v[1] = {v};
    const float gradients[1] = {gradient};
    update(rule, gradients, values, of_m, of_v);
    value = values[0], m = of_m[0], v = of_v[0];
}

DEVICE void update(const Rule &rule, float gradient, const Parameter &parameter, long long at) {
    update(rule, gradient, parameter.value[at], parameter.m[at], parameter.v[at]);
}
