// Random words: numpy's PCG64, of which `design.streams.words16` takes four words of 16 bits from each number.
//
// A state s becomes A s + inc, modulo 2**128. After k steps it is A**k s + (1 + A + ... + A**(k-1)) inc. The host
// provides both factors for k = 0 ... THREADS, so that each thread finds its own numbers.

DEVICE Wide plus(Wide a, Wide b) {
    const Bits64 low = a.low + b.low;
    return {a.high + b.high + (low < a.low), low};
}

DEVICE Wide times(Wide a, Wide b) {
    return {high_product(a.low, b.low) + a.high * b.low + a.low * b.high, a.low * b.low};
}

DEVICE Wide after(Wide state, Wide increment, Jump jump) {
    return plus(times(jump.power, state), times(jump.sum, increment));
}

DEVICE Bits64 output(Wide state) {
    const Bits64 mixed = state.high ^ state.low;
    const int turn = (int)(state.high >> 58);
    return turn ? mixed >> turn | mixed << (64 - turn) : mixed;
}

// Draw `count` words of 16 bits; the state after them goes to `next`.
DEVICE void draw(int t, const Jump *jumps, const Stream &stream, Wide &next, long long count, Word *words) {
    Wide state = after(stream.state, stream.increment, jumps[t + 1]);
    const Jump stride = jumps[THREADS];
    const long long numbers = (count + 3) / 4;
    for (long long k = t; k < numbers; k += THREADS) {
        ((Bits64 *)words)[k] = output(state);
        if (k == numbers - 1) next = state;
        state = after(state, stream.increment, stride);
    }
}
