
// What the card does when a kernel is started: here block after block, thread after thread.
extern "C" int cuLaunchKernel(
    void *, unsigned blocks, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **arguments, void **
) {
    for (card::block = 0; card::block < (int)blocks; card::block++)
        card::train_epoch((card::Run *)*(Bits64_ *)arguments[0]);
    return 0;
}

// Functions of numbers, for arrays of n.
extern "C" void host_exp(const float *x, double *out, int n) {
    for (int i = 0; i < n; i++) out[i] = card::exp_of(x[i]);
}
extern "C" void host_log(const double *x, double *out, int n) {
    for (int i = 0; i < n; i++) out[i] = card::log_of(x[i]);
}
extern "C" void host_root(const float *x, float *out, int n) {
    for (int i = 0; i < n; i++) out[i] = card::usual_root(x[i]);
}
extern "C" void host_inverse(const float *x, float *out, int n) {
    for (int i = 0; i < n; i++) out[i] = card::usual_inverse(x[i]);
}
extern "C" void host_quotient(const float *a, const float *b, float *out, int n) {
    for (int i = 0; i < n; i++) out[i] = card::usual_quotient(a[i], b[i]);
}
extern "C" void host_rare(const float *x, unsigned *out, int n) {
    for (int i = 0; i < n; i++) out[i] = card::rare(x[i]) >> 31;
}
extern "C" void host_update(const card::Run *run, const float *gradients, float *value, float *m, float *v, int n) {
    const card::Rule rule = card::rule_of(*run, 0);
    for (int i = 0; i < n; i++) card::update(rule, gradients[i], value[i], m[i], v[i]);
}
// The same, four at a time where they may be.
extern "C" void host_update_fours(const card::Run *run, const float *gradients, float *value, float *m, float *v, int n) {
    const card::Rule rule = card::rule_of(*run, 0);
    for (int i = 0; i < n; i += 4) {
        typedef card::Four Four;
        if (!card::update(rule, *(const Four *)(gradients + i), *(Four *)(value + i), *(Four *)(m + i), *(Four *)(v + i)))
            for (int e = i; e < i + 4; e++) card::update(rule, gradients[e], value[e], m[e], v[e]);
    }
}
extern "C" int size_of_run() { return sizeof(card::Run); }
