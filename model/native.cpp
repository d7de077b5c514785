// A decoding step of a model whose weights are integers of 4 and 8 bits: model/generation/step.py
// in one call. Inputs of a product are rounded to int8 in groups of 32, and multiplied as integers.
//
// Letters: B rows, N outputs, K inputs of a product, G = K / 32, C = d_model, H heads, D = C / H.
// A panel is 16 outputs, one in each lane of a vector, as model/adapt/layout.py lays weights out. A
// row is calculated in the same order whoever is beside it, by however many threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX512VNNI__
#include <immintrin.h>
#endif

constexpr int LANES = 16, GROUP = 32;
typedef float F __attribute__((vector_size(64)));
typedef float F8 __attribute__((vector_size(32)));
typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I __attribute__((vector_size(64)));
typedef uint8_t U __attribute__((vector_size(64)));
typedef uint16_t Half __attribute__((vector_size(32)));
typedef std::vector<float> Floats;

struct Linear { const uint8_t* data; const float* bias; int32_t N, K, bits, unused; };
struct Norm { const float *weight, *bias; };
struct Layer { Linear qkv, proj, gate, up, down; Norm norm1, norm2; };
struct Shape { int32_t layers, C, H, kv_heads, hidden, window, act, layernorm; float eps; };
struct Slots { float *k, *v; };  // (B,kv_heads,S,D) each, as a KVCache has them

template <class V, class T> inline V load(const T* p) { V v; memcpy(&v, p, sizeof v); return v; }
inline void store(float* p, F v) { memcpy(p, &v, sizeof v); }

// Add w x for four inputs of each output, w without a sign, x four int8.
inline I dot(I sum, U w, int x) {
#ifdef __AVX512VNNI__
    return (I)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, _mm512_set1_epi32(x));
#else
    for (int i = 0; i < 64; i++) sum[i / 4] += w[i] * (int8_t)(x >> 8 * (i % 4));
    return sum;
#endif
}

// 16 numbers of float16 as float32.
inline F halves(const uint8_t* p) {
#ifdef __AVX512VNNI__
    return (F)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#else
    I h = __builtin_convertvector(load<Half>(p), I);
    return (F)((h & 0x8000) << 16 | (h & 0x7fff) << 13) * 0x1p112f;
#endif
}

inline float sum(F v) {
    F8 half[2], one;
    F4 quarter[2], last;
    memcpy(half, &v, sizeof v), one = half[0] + half[1];
    memcpy(quarter, &one, sizeof one), last = quarter[0] + quarter[1];
    return (last[0] + last[1]) + (last[2] + last[3]);
}

// e^x: 2^n times a polynomial of the rest.
inline F exponential(F x) {
    x = x < -87.0f ? F{} - 87.0f : x > 88.0f ? F{} + 88.0f : x;
    F n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // to the nearest: no room for fractions
    F r = x - n * 0.693359375f + n * 2.12194440e-4f;
    F p = r * (1 / 720.0f) + 1 / 120.0f;
    p = p * r + 1 / 24.0f, p = p * r + 1 / 6.0f, p = p * r + 0.5f;
    return (p * r * r + r + 1.0f) * (F)((__builtin_convertvector(n, I) + 127) << 23);
}

// Rows (B,K) in integers: x = scale q, a scale for each group.
struct Rounded {
    int K, G;
    std::vector<int8_t> q;
    Floats scale, sum;  // sum: of what the group's integers stand for
    std::vector<int> start;  // 8 bits are 128 too large: what a sum has to begin with
    void round(const float* x, int B, int width, int stride) {
        K = width, G = K / GROUP;
        q.resize(B * K), scale.resize(B * G), sum.resize(B * G), start.resize(B * G);
        for (int i = 0; i < B * G; i++) group(x + i / G * (long)stride + i % G * GROUP, i);
    }
    void group(const float* x, int at) {
        float most = 0;
        for (int i = 0; i < GROUP; i++) most = std::max(most, std::fabs(x[i]));
        float inverse = most > 0 ? 127 / most : 0;
        int total = 0;
        for (int i = 0; i < GROUP; i++)
            total += q[at * GROUP + i] = (int8_t)std::nearbyint(x[i] * inverse);
        scale[at] = most / 127, sum[at] = scale[at] * total, start[at] = -128 * total;
    }
};

// y[b] = 16 outputs of NB rows, from row `first` on; p is their panel.
template <int BITS, int NB> void tile(const uint8_t* p, const Rounded& x, int first, F* y) {
    F sums[NB] = {};
    for (int g = 0; g < x.G; g++) {
        I total[NB];
        for (int b = 0; b < NB; b++) total[b] = I{} + (BITS == 8) * x.start[(first + b) * x.G + g];
        for (int j = 0; j < GROUP; j += 32 / BITS, p += 64) {
            U w = load<U>(p);
            for (int b = 0; b < NB; b++) {
                const int8_t* q = &x.q[(first + b) * x.K + g * GROUP + j];
                total[b] = dot(total[b], BITS == 4 ? w & 15 : w, load<int>(q));
                if (BITS == 4) total[b] = dot(total[b], w >> 4, load<int>(q + 4));
            }
        }
        F scale = BITS == 4 ? halves(p) : F{} + 1.0f, zero = BITS == 4 ? halves(p + 32) : F{};
        for (int b = 0; b < NB; b++) {
            int at = (first + b) * x.G + g;
            sums[b] += __builtin_convertvector(total[b], F) * (scale * x.scale[at]);
            if (BITS == 4) sums[b] += zero * x.sum[at];
        }
        p += BITS == 4 ? 64 : 0;
    }
    for (int b = 0; b < NB; b++) y[first + b] = BITS == 4 ? sums[b] : sums[b] * load<F>(p);
}
template <int BITS> void tiles(const uint8_t* p, const Rounded& x, int B, F* y) {
    int b = 0;
    for (; b + 8 <= B; b += 8) tile<BITS, 8>(p, x, b, y);
    for (; b + 4 <= B; b += 4) tile<BITS, 4>(p, x, b, y);
    for (; b < B; b++) tile<BITS, 1>(p, x, b, y);
}
void panel_of(const Linear& w, const Rounded& x, int panel, int B, F* y) {
    if (w.bits == 4) tiles<4>(w.data + panel * (x.G * 320L), x, B, y);
    else tiles<8>(w.data + panel * (x.G * 512L + 64), x, B, y);
    for (int b = 0; b < B && w.bias; b++) y[b] += load<F>(w.bias + panel * LANES);
}
inline int panels(int N) { return (N + LANES - 1) / LANES; }

// ACTS of model/generation/native_step.py.
F activation(int kind, F x) {
    if (kind == 0) return x / (1.0f + exponential(-x));
    for (int i = 0; i < LANES; i++) {
        float a = x[i], cube = 0.79788456f * (a + 0.044715f * a * a * a);
        x[i] = kind == 1 ? a * 0.5f * (1 + std::erf(a * 0.70710678f))
             : kind == 2 ? a * 0.5f * (1 + std::tanh(cube))
             : std::max(a, 0.0f) * (kind == 3 ? 1 : a);
    }
    return x;
}

void normed(const Shape& s, const Norm& norm, const float* x, float* y) {
    double mean = 0, square = 0;
    for (int i = 0; i < s.C; i++) mean += x[i];
    mean = s.layernorm ? mean / s.C : 0;
    for (int i = 0; i < s.C; i++) square += (x[i] - mean) * (x[i] - mean);
    float one_over = 1 / std::sqrt((float)(square / s.C) + s.eps);
    for (int i = 0; i < s.C; i++) {
        y[i] = (x[i] - (float)mean) * one_over * norm.weight[i];
        if (norm.bias) y[i] += norm.bias[i];
    }
}

// One head's query, or key, at its position; `turn` are D/2 cosines and D/2 sines, or none.
void rotated(const float* x, const float* turn, int D, float size, float* y) {
    for (int i = 0; i < D / 2; i++) {
        float a = x[i], b = x[i + D / 2];
        float cos = turn ? turn[i] : 1, sin = turn ? turn[i + D / 2] : 0;
        y[i] = (a * cos - b * sin) * size, y[i + D / 2] = (b * cos + a * sin) * size;
    }
}

// Head h of a row with n tokens before this one, k and v (S,D): softmax(q k^T / sqrt(D)) v.
void attend(const Shape& s, const float* qkv, const float* turn, int h, int n, float* k, float* v,
            Floats& score, float* out) {
    int D = s.C / s.H, share = s.H / s.kv_heads;
    int from = s.window ? std::max(0, n + 1 - s.window) : 0, T = n + 1 - from;
    Floats q(D), own(D);
    rotated(qkv + h * D, turn, D, 1 / std::sqrt((float)D), q.data());
    rotated(qkv + (s.H + h / share) * D, turn, D, 1, own.data());
    const float* value = qkv + (s.H + s.kv_heads + h / share) * D;
    if (h % share == 0)  // the first of those that share it keeps it; nobody reads this slot yet
        memcpy(k + n * (long)D, &own[0], D * 4), memcpy(v + n * (long)D, value, D * 4);
    score.assign((T + LANES - 1) / LANES * LANES, -1e30f);
    float most = -1e30f;
    for (int t = 0; t < T; t++) {
        const float* key = t + 1 < T ? k + (from + t) * (long)D : own.data();
        F dot = {};
        for (int d = 0; d < D; d += LANES) dot += load<F>(&q[d]) * load<F>(key + d);
        most = std::max(most, score[t] = sum(dot));
    }
    F total = {};
    for (int t = 0; t < T; t += LANES) {
        F e = exponential(load<F>(&score[t]) - most);
        for (int i = T - t; i < LANES; i++) e[i] = 0;  // of scores that are not there
        store(&score[t], e), total += e;
    }
    float one_over = 1 / sum(total);
    for (int d = 0; d < D; d += LANES) {
        F y[4] = {load<F>(value + d) * score[T - 1]};  // four: the next need not wait for the last
        const float* at = v + from * (long)D + d;
        int t = 0;
        for (; t + 4 < T; t += 4)
            for (int j = 0; j < 4; j++) y[j] += load<F>(at + (t + j) * (long)D) * score[t + j];
        for (; t + 1 < T; t++) y[0] += load<F>(at + t * (long)D) * score[t];
        store(out + d, ((y[0] + y[1]) + (y[2] + y[3])) * one_over);
    }
}

extern "C" void product(const Linear* w, int B, int threads, const float* x, float* y) {
#pragma omp parallel num_threads(threads)
    {
        Rounded rows;
        std::vector<F> out(B);
        rows.round(x, B, w->K, w->K);
#pragma omp for schedule(static)
        for (int p = 0; p < panels(w->N); p++) {
            panel_of(*w, rows, p, B, out.data());
            for (int b = 0; b < B; b++)
                memcpy(y + b * (long)w->N + p * LANES, &out[b], 4 * std::min(16, w->N - p * 16));
        }
    }
}

// x (B,C) through all layers; lengths (B) are tokens that the slots hold, which get one more each.
// `turns` (B,D) are a row's cosines and sines, or none. Strides count floats, of a row and a head.
extern "C" void step(const Shape* shape, const Layer* layers, int B, int threads, float* x,
                     const float* turns, const int64_t* lengths, const Slots* slots, int64_t row,
                     int64_t head) {
    const Shape s = *shape;
    const int D = s.C / s.H, Q = (s.H + 2 * s.kv_heads) * D, W = panels(s.hidden) * LANES;
    Floats qkv(B * Q), heads(B * s.C), wide(B * W);
#pragma omp parallel num_threads(threads)
    {
        Rounded rows;
        Floats own(B * s.C), score;
        std::vector<F> a(B), b(B);
        auto read = [&](const Norm& norm) {
            for (int i = 0; i < B; i++) normed(s, norm, x + i * s.C, &own[i * s.C]);
            rows.round(own.data(), B, s.C, s.C);
        };
        auto add = [&](const Linear& w) {
#pragma omp for schedule(static)
            for (int p = 0; p < s.C / LANES; p++) {
                panel_of(w, rows, p, B, a.data());
                for (int i = 0; i < B; i++) {
                    float* at = x + i * s.C + p * LANES;
                    store(at, load<F>(at) + a[i]);
                }
            }
        };
        for (int l = 0; l < s.layers; l++) {
            const Layer& layer = layers[l];
            const bool gated = layer.gate.data;
            read(layer.norm1);
#pragma omp for schedule(static)
            for (int p = 0; p < Q / LANES; p++) {
                panel_of(layer.qkv, rows, p, B, a.data());
                for (int i = 0; i < B; i++) store(&qkv[i * Q + p * LANES], a[i]);
            }
#pragma omp for schedule(static)
            for (int j = 0; j < B * s.H; j++) {
                int i = j / s.H, h = j % s.H;
                long at = i * row + h / (s.H / s.kv_heads) * head;
                attend(s, &qkv[i * Q], turns ? turns + i * D : nullptr, h, lengths[i],
                       slots[l].k + at, slots[l].v + at, score, &heads[i * s.C + h * D]);
            }
            rows.round(heads.data(), B, s.C, s.C);
            add(layer.proj);
            read(layer.norm2);
#pragma omp for schedule(static)
            for (int p = 0; p < W / LANES; p++) {
                panel_of(layer.up, rows, p, B, a.data());
                if (gated) panel_of(layer.gate, rows, p, B, b.data());
                for (int i = 0; i < B; i++) {
                    F y = gated ? activation(s.act, b[i]) * a[i] : activation(s.act, a[i]);
                    store(&wide[i * W + p * LANES], y);
                }
            }
            rows.round(wide.data(), B, s.hidden, W);
            add(layer.down);
        }
    }
}
