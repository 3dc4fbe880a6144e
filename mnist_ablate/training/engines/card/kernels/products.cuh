// Products of matrices: out = left right + start, each number one chain of fused multiply-adds in increasing index.
//
// The block computes a tile of TILE rows and WIDE columns at a time, a thread PATCH rows and 4 columns of it, in
// registers. The left factor comes through shared memory, CHUNK indices at a time, in two chunks that take turns: one
// is filled while the other is multiplied. The right factor is read once, GROUP indices ahead.
// Values that are 0 are multiplied like others, except where `SKIP` says not to: see docs/arithmetic.md.

#define TILE 64
#define PATCH 16
#define WIDE (4 * THREADS / (TILE / PATCH))
#define CHUNK 32
#define PITCH (TILE + 4)
#ifndef GROUP
#define GROUP 8
#endif

struct Tile {
    float sum[PATCH][4];
    float4 ahead[GROUP];
};

struct Shape {
    int rows, columns, depth;
};

struct Right {
    const float *matrix;
    int stride;
};

// Read GROUP rows of the right factor, the first at `place`, of which `left` exist; the others are 0.
DEVICE void read_ahead(Tile &tile, const float *place, int stride, int left) {
    UNROLL for (int u = 0; u < GROUP; u++, place += stride)
        tile.ahead[u] = u < left ? *(const float4 *)place : float4{0, 0, 0, 0};
}

DEVICE int first_row(int t) { return PATCH * (t / (WIDE / 4)); }
DEVICE int first_column(int t) { return 4 * (t % (WIDE / 4)); }

DEVICE void begin(int t, Tile &tile, const Shape &shape, const float *start, const Right &right, int column) {
    const int own = column + first_column(t);
    if (own >= shape.columns) return;
    const float4 first = start ? *(const float4 *)(start + own) : float4{0, 0, 0, 0};
    UNROLL for (int r = 0; r < PATCH; r++) {
        tile.sum[r][0] = first.x;
        tile.sum[r][1] = first.y;
        tile.sum[r][2] = first.z;
        tile.sum[r][3] = first.w;
    }
    read_ahead(tile, right.matrix + own, right.stride, shape.depth);
}

template <bool SKIP> DEVICE float join(float a, float b, float sum) { return SKIP && a == 0 ? sum : fma(a, b, sum); }

// Multiply a chunk of the left factor, whose first index is `from`.
template <bool SKIP>
DEVICE void multiply(
    int t, Tile &tile, const Shape &shape, const float (*chunk)[PITCH], const Right &right, int row, int column, int from
) {
    const int own = column + first_column(t), mine = first_row(t);
    if (own >= shape.columns || row + mine >= shape.rows) return;
    const float *place = right.matrix + (long long)from * right.stride + own;
    KEEP_LOOP for (int g = 0; g < CHUNK && from + g < shape.depth; g += GROUP) {
        place += GROUP * right.stride;
        float4 now[GROUP];
        UNROLL for (int u = 0; u < GROUP; u++) now[u] = tile.ahead[u];
        read_ahead(tile, place, right.stride, shape.depth - from - g - GROUP);
        UNROLL for (int u = 0; u < GROUP; u++) {
            UNROLL for (int r = 0; r < PATCH; r += 4) {
                const float4 four = *(const float4 *)&chunk[g + u][mine + r];
                const float left[4] = {four.x, four.y, four.z, four.w};
                UNROLL for (int d = 0; d < 4; d++) {
                    tile.sum[r + d][0] = join<SKIP>(left[d], now[u].x, tile.sum[r + d][0]);
                    tile.sum[r + d][1] = join<SKIP>(left[d], now[u].y, tile.sum[r + d][1]);
                    tile.sum[r + d][2] = join<SKIP>(left[d], now[u].z, tile.sum[r + d][2]);
                    tile.sum[r + d][3] = join<SKIP>(left[d], now[u].w, tile.sum[r + d][3]);
                }
            }
        }
    }
}

struct Room {
    float chunk[2][CHUNK][PITCH];
    float white[256];  // pixel / 255, rounded once
    Rule rule;         // of this step
};

SHARED Room room;

template <bool SKIP, class Left, class Done>
APART void product_of(
    const Shape shape, const Left left, const Right right, const float *start, const Done done
) {
    for (int row = 0; row < shape.rows; row += TILE)
        for (int column = 0; column < shape.columns; column += WIDE) {
            OWN(Tile, tile);
            PHASE(begin(t, MINE(tile), shape, start, right, column);
                  left.put(t, left.fetch(t, row, 0), room.chunk[0]));
            for (int k = 0; k < shape.depth; k += CHUNK)
                PHASE(const typename Left::Fetched next = left.fetch(t, row, k + CHUNK);
                      multiply<SKIP>(t, MINE(tile), shape, room.chunk[k / CHUNK % 2], right, row, column, k);
                      left.put(t, next, room.chunk[1 - k / CHUNK % 2]));
            PHASE(if (column + first_column(t) < shape.columns) done(
                MINE(tile), row + first_row(t), column + first_column(t)));
        }
}

template <bool SKIP, class Left, class Done>
DEVICE void product(Shape shape, Left left, Right right, const float *start, Done done) {
    call<Shape, Left, Right, const float *, Done>(product_of<SKIP, Left, Done>, shape, left, right, start, done);
}

// ---- Left factors: `fetch` reads eight numbers of a chunk into registers, `put` stores them in shared memory ----

struct Eight {
    float4 a, b;
};

DEVICE Eight eight_at(const float *place) { return {*(const float4 *)place, *(const float4 *)(place + 4)}; }

DEVICE void put_across(const Eight &values, float (*chunk)[PITCH], int k, int r) {
    const float v[8] = {values.a.x, values.a.y, values.a.z, values.a.w, values.b.x, values.b.y, values.b.z, values.b.w};
    UNROLL for (int d = 0; d < 8; d++) chunk[k + d][r] = v[d];
}

DEVICE void put_along(const Eight &values, float (*chunk)[PITCH], int k, int r) {
    *(float4 *)&chunk[k][r] = values.a;
    *(float4 *)&chunk[k][r + 4] = values.b;
}

// Rows of a matrix (n, depth): left(row, k) = x[row, k].
struct Rows {
    typedef Eight Fetched;
    const float *x;
    int n, stride;

    DEVICE Fetched fetch(int t, int row, int k) const {
        const int i = row + t % TILE, from = k + 8 * (t / TILE);
        return i < n && from < stride ? eight_at(x + (long long)i * stride + from) : Eight{};
    }
    DEVICE void put(int t, const Fetched &values, float (*chunk)[PITCH]) const {
        put_across(values, chunk, 8 * (t / TILE), t % TILE);
    }
};

// Columns of a matrix (n, inputs): left(row, k) = x[k, row].
struct Columns {
    typedef Eight Fetched;
    const float *x;
    int n, stride;

    DEVICE Fetched fetch(int t, int row, int k) const {
        const int i = k + t / 8, from = row + 8 * (t % 8);
        return i < n && from < stride ? eight_at(x + (long long)i * stride + from) : Eight{};
    }
    DEVICE void put(int t, const Fetched &values, float (*chunk)[PITCH]) const {
        put_along(values, chunk, t / 8, 8 * (t % 8));
    }
};

// Images, scaled to [0, 1], with dropout of pixels in training.
struct Pixels {
    const Byte *images;
    const int *rows;
    int n;
    const Word *words;
    unsigned threshold;  // 0: no dropout
    float gain;

    struct Fetched {
        uint2 pixels;  // eight bytes
        uint4 words;   // eight words of 16 bits
    };

    DEVICE Fetched eight(int i, int from) const {
        Fetched found = {};
        if (i < n && from < PIXELS) {
            found.pixels = *(const uint2 *)(images + (long long)rows[i] * PIXELS + from);
            if (threshold) found.words = *(const uint4 *)(words + (long long)i * PIXELS + from);
        }
        return found;
    }
    DEVICE Eight scaled(const Fetched &found) const {
        const Bits32 fours[2] = {found.pixels.x, found.pixels.y};
        const Bits32 twos[4] = {found.words.x, found.words.y, found.words.z, found.words.w};
        float v[8];
        UNROLL for (int d = 0; d < 8; d++) {
            v[d] = room.white[fours[d / 4] >> 8 * (d % 4) & 0xFF];
            if (threshold) v[d] = (twos[d / 2] >> 16 * (d % 2) & 0xFFFF) >= threshold ? v[d] * gain : 0.0f;
        }
        return {{v[0], v[1], v[2], v[3]}, {v[4], v[5], v[6], v[7]}};
    }
};

struct PixelRows : Pixels {
    DEVICE Fetched fetch(int t, int row, int k) const { return eight(row + t % TILE, k + 8 * (t / TILE)); }
    DEVICE void put(int t, const Fetched &found, float (*chunk)[PITCH]) const {
        put_across(scaled(found), chunk, 8 * (t / TILE), t % TILE);
    }
};

struct PixelColumns : Pixels {
    DEVICE Fetched fetch(int t, int row, int k) const { return eight(k + t / 8, row + 8 * (t % 8)); }
    DEVICE void put(int t, const Fetched &found, float (*chunk)[PITCH]) const {
        put_along(scaled(found), chunk, t / 8, 8 * (t % 8));
    }
};

// ---- What is done with a patch of sums: PATCH rows from `row` on, 4 columns from `column` on ----

typedef float Four[4];

DEVICE void load(Four &four, const float *place) {
    const float4 found = *(const float4 *)place;
    four[0] = found.x, four[1] = found.y, four[2] = found.z, four[3] = found.w;
}

DEVICE void store(const Four &four, float *place) { *(float4 *)place = float4{four[0], four[1], four[2], four[3]}; }

// Four columns of a row of a layer's weights, and their moments.
struct Weights {
    Four value, m, v;
};

DEVICE void load(Weights &weights, const Parameter &from, int at) {
    load(weights.value, from.value + at);
    load(weights.m, from.m + at);
    load(weights.v, from.v + at);
}

DEVICE void store(const Weights &weights, const Parameter &to, int at) {
    store(weights.value, to.value + at);
    store(weights.m, to.m + at);
    store(weights.v, to.v + at);
}

// Update one by one the rows whose bits are set in `which`.
APART void update_rows(const float (*gradients)[4], Layer *layer, int row, int column, int which) {
    KEEP_LOOP for (int e = 0; e < 4 * PATCH; e++) {
        const int r = e / 4, c = e % 4;
        if (!(which >> r & 1)) continue;
        const long long at = (row + r) * layer->stride + column + c;
        update(room.rule, gradients[r][c], layer->weight, at);
        const float value = layer->weight.value[at];
        if (layer->flipped) layer->flipped[(column + c) * layer->flipped_stride + row + r] = value;
        if (!is_finite(value)) layer->broken = 1;
    }
}

// Update four rows at a time. Rows are padded to a multiple of 16 with zeros, which stay zeros unless the run diverges.
APART void update_patch(const float (*gradients)[4], Layer *layer, int row, int column) {
    const Rule rule = room.rule;
    const Parameter weight = layer->weight;
    const int stride = (int)layer->stride, flipped_stride = (int)layer->flipped_stride;
    const int rows = (int)layer->inputs - row < PATCH ? (int)layer->inputs - row : PATCH;
    const int first = row * stride + column;
    float *flipped = layer->flipped ? layer->flipped + column * flipped_stride + row : nullptr;
    int rare_rows = 0;
    float nothing = 0;  // NaN after what is not finite
    if (rows <= 0) return;
    Weights four[4];
    UNROLL for (int d = 0; d < 4; d++) load(four[d], weight, first + d * stride);
    KEEP_LOOP for (int r = 0; r < rows; r += 4) {
        Four gradient[4], mirrored[4];
        UNROLL for (int d = 0; d < 4; d++) load(gradient[d], gradients[r + d]);
        UNROLL for (int d = 0; d < 4; d++) {
            const int at = first + (r + d) * stride;
            if (!update(rule, gradient[d], four[d].value, four[d].m, four[d].v)) rare_rows |= 1 << (r + d);
            store(four[d], weight, at);
            UNROLL for (int c = 0; c < 4; c++) {
                mirrored[c][d] = four[d].value[c];
                nothing = fma(four[d].value[c], 0.0f, nothing);
            }
            if (r + 4 < rows) load(four[d], weight, at + 4 * stride);
        }
        if (flipped) UNROLL for (int c = 0; c < 4; c++) store(mirrored[c], flipped + c * flipped_stride + r);
    }
    if (nothing != 0) layer->broken = 1;
    if (rare_rows)
        call<const float(*)[4], Layer *, int, int, int>(update_rows, gradients, layer, row, column, rare_rows);
}

struct Store {
    float *out;
    int rows, stride;

    DEVICE void operator()(const Tile &tile, int row, int column) const {
        UNROLL for (int r = 0; r < PATCH; r++) if (row + r < rows)
            *(float4 *)(out + (long long)(row + r) * stride + column) =
                float4{tile.sum[r][0], tile.sum[r][1], tile.sum[r][2], tile.sum[r][3]};
    }
};

// Update weights with their gradients, and the transposed copy, where there is one.
struct Update {
    Layer *layer;

    DEVICE void operator()(const Tile &tile, int row, int column) const {
        float gradients[PATCH][4];
        UNROLL for (int r = 0; r < PATCH; r++) UNROLL for (int c = 0; c < 4; c++) gradients[r][c] = tile.sum[r][c];
        call<const float(*)[4], Layer *, int, int>(update_patch, gradients, layer, row, column);
    }
};
