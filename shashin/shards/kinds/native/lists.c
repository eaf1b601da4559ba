/* Search over inverted lists of 4-bit codes.
 *
 * A quantizer divides the space into lists, one around each centroid. A row is stored as the nearest
 * centroid, its list, and 4 bits for each component of what remains, after a rotation that spreads it
 * evenly over the components. The signs of the components are stored once more, apart. A search scores the
 * signs of all rows in the nearest lists, the codes of those that may then be among the best, and the
 * best of these by their float16 vectors: it reads 20 bytes of most rows.
 *
 * A run has the codes of one or more members (indexes of shards), list by list. The row of a code, and
 * its member, say what may be found: flags and filter are read for those codes alone whose score is
 * good enough, so that a hidden row costs nothing.
 *
 * A run of rows that still arrive has no codes: they are one list, scored by signs and then by vectors.
 *
 * Everything that is read was checked by the caller, who also keeps it alive during a call.
 */

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#define EXPORT __attribute__((visibility("default")))

#ifndef SOURCE_HASH
#define SOURCE_HASH ""
#endif

/* Names the source that this was compiled from. */
EXPORT const char *source_hash(void) { return SOURCE_HASH; }

/* By how many times its scale an estimate from signs may be too low: about two standard deviations. */
static const float SLACK = 1.2f;

/* The same where a row has no code: more, for nothing else tells of one that was left out. */
static const float SLACK_WITHOUT_CODES = 1.5f;

/* With a filter, lists are read until those left can be expected to have less than this share of the hits. */
static const float MISSES = 0.0005f;

/* The standard deviation of an estimate from signs, in scales. */
static const float SIGN_DEVIATION = 0.6f;

/* By how many times the usual error the score of a code is trusted to be off. */
static const float CERTAINTY = 2.5f;

enum {
    CHUNK_DIMENSIONS = 64, /* of which a code has CHUNK_BYTES */
    CHUNK_BYTES = 32,
    BLOCK = 256, /* codes scored at a time */
    FEW = 32,    /* of them, compared at a time: most are too far */
    CANDIDATES_PER_HIT = 4,
    SAMPLED = 8, /* one of so many rows says how scores are spread */
    LEAST_SAMPLES = 128,
};

#define NO_LIST UINT32_MAX

static const float MIDDLE = 7.5f; /* of the levels 0 to 15 */

typedef struct {
    const float *rotation;  /* (dimensions, dimensions) */
    const float *centroids; /* (lists, dimensions), rotated */
    int32_t dimensions;
    int32_t lists;
} Quantizer;

typedef struct {
    const uint32_t *starts;  /* (lists + 1,) */
    const uint8_t *codes;    /* (n, code bytes), or NULL: all rows are in one list, around the origin,
                              * and are scored by their vectors */
    const float *scales;     /* (n,): of the levels of a code; NULL without codes */
    const uint64_t *signs;   /* (n, words): a bit is 1 if its component is positive */
    const float *sign_scales; /* (n,): of the signs */
    const uint32_t *rows;    /* (n,): the row of its member; NULL without codes, where it is the place */
    const uint32_t *members;  /* (n,), or NULL if all are of `member` */
    int32_t member;
    int32_t probes; /* lists that a search for 10 rows has to read */
} Run;

typedef struct {
    const uint16_t *vectors; /* (rows, dimensions) float16 */
    const uint8_t *flags;    /* (rows,): 0 if the row may be found */
    const uint8_t *allowed;  /* (rows,): 0 if a filter excludes the row; NULL without a filter */
    const uint32_t *groups;  /* (rows,): rows of one listing share a number */
    const uint32_t *replaced; /* (rows,): with how many rows a newer version replaces the row, 0 if none
                               * does; NULL if flags say it */
    uint32_t rows;
} Member;

typedef struct {
    float score;
    uint32_t row;
    uint32_t member;
    uint32_t list; /* by rank: 0 is nearest to the query; NO_LIST if the score is not an estimate */
} Candidate;

typedef struct {
    uint32_t key; /* ascends as the score descends */
    uint32_t list;
} RankedList;

/* ---------------------------------------------------------------------- instructions of the CPU */

typedef struct {
    /* Dot products of n codes with a query: low and high are its parts for either half of a byte. */
    void (*codes)(const uint8_t *codes, int n, int chunks, const int8_t *low, const int8_t *high,
                  int32_t *dots);
    /* For n rows of signs: the sum of the query's components times their signs, in steps, less what
     * is the same for all rows. planes are
     * the four bits of the query's components, (4, words). */
    void (*signs)(const uint64_t *signs, int n, int words, const uint64_t *planes, int32_t *sums);
    /* Dot products of n rows with a query. */
    void (*products)(const float *rows, int n, int dimensions, const float *query, float *products);
    float (*float16)(const uint16_t *a, const float *b, int n);
} Kernels;

static float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff, bits;
    float value;
    if (rest >= 0x7c00)
        bits = 0x7f800000 | (rest & 0x3ff) << 13;
    else if (rest >= 0x0400)
        bits = (rest << 13) + 0x38000000;
    else { /* subnormal, or zero */
        value = (float)rest * 0x1p-24f;
        memcpy(&bits, &value, 4);
    }
    bits |= sign;
    memcpy(&value, &bits, 4);
    return value;
}

static void codes_portable(const uint8_t *codes, int n, int chunks, const int8_t *low,
                           const int8_t *high, int32_t *dots) {
    int bytes = chunks * CHUNK_BYTES;
    for (int i = 0; i < n; i++) {
        const uint8_t *code = codes + (size_t)i * bytes;
        int32_t sum = 0;
        for (int j = 0; j < bytes; j++) sum += (code[j] & 15) * low[j] + (code[j] >> 4) * high[j];
        dots[i] = sum;
    }
}

/* A component of the query is q - 7.5 steps, so its sum over positive components less that over the others
 * is 2 * (sum of q) - 15 * (number of them), plus what is the same for all rows. */
#define SUM_OF_SIGNS(POPCOUNT)                                                                      \
    for (int i = 0; i < n; i++) {                                                                  \
        const uint64_t *row = signs + (size_t)i * words;                                           \
        int32_t sum = 0;                                                                           \
        for (int w = 0; w < words; w++)                                                            \
            sum += 2 * (int32_t)(POPCOUNT(row[w] & planes[w]) +                                    \
                                 2 * POPCOUNT(row[w] & planes[words + w]) +                        \
                                 4 * POPCOUNT(row[w] & planes[2 * words + w]) +                    \
                                 8 * POPCOUNT(row[w] & planes[3 * words + w])) -                   \
                   15 * (int32_t)POPCOUNT(row[w]);                                                 \
        sums[i] = sum;                                                                             \
    }

static void signs_portable(const uint64_t *signs, int n, int words, const uint64_t *planes,
                           int32_t *sums) {
    SUM_OF_SIGNS(__builtin_popcountll)
}

static float float32_portable(const float *a, const float *b, int n) {
    float sums[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) sums[j] += a[i + j] * b[i + j];
    for (; i < n; i++) sums[0] += a[i] * b[i];
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

static float float16_portable(const uint16_t *a, const float *b, int n) {
    float wide[64], sum = 0;
    for (int i = 0; i < n; i += 64) {
        int m = n - i < 64 ? n - i : 64;
        for (int j = 0; j < m; j++) wide[j] = half_to_float(a[i + j]);
        sum += float32_portable(wide, b + i, m);
    }
    return sum;
}

static void products_portable(const float *rows, int n, int dimensions, const float *query,
                              float *products) {
    for (int i = 0; i < n; i++)
        products[i] = float32_portable(rows + (size_t)i * dimensions, query, dimensions);
}

static const Kernels PORTABLE = {codes_portable, signs_portable, products_portable, float16_portable};

#if defined(__x86_64__)

#define AVX2 __attribute__((target("avx2,fma,f16c,popcnt")))
#define AVX512                                                                                     \
    __attribute__((                                                                                \
        target("avx512f,avx512bw,avx512vl,avx512vnni,avx512vpopcntdq,avx2,fma,f16c,popcnt")))

AVX2 static inline float sum_of(__m256 v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

AVX2 static float float32_avx2(const float *a, const float *b, int n) {
    __m256 even = _mm256_setzero_ps(), odd = even;
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        even = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), even);
        odd = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 8), _mm256_loadu_ps(b + i + 8), odd);
    }
    float sum = sum_of(_mm256_add_ps(even, odd));
    for (; i < n; i++) sum += a[i] * b[i];
    return sum;
}

AVX2 static float float16_avx2(const uint16_t *a, const float *b, int n) {
    __m256 even = _mm256_setzero_ps(), odd = even;
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256 first = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(a + i)));
        __m256 second = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(a + i + 8)));
        even = _mm256_fmadd_ps(first, _mm256_loadu_ps(b + i), even);
        odd = _mm256_fmadd_ps(second, _mm256_loadu_ps(b + i + 8), odd);
    }
    float sum = sum_of(_mm256_add_ps(even, odd));
    for (; i < n; i++) sum += half_to_float(a[i]) * b[i];
    return sum;
}

AVX2 static void codes_avx2(const uint8_t *codes, int n, int chunks, const int8_t *low,
                            const int8_t *high, int32_t *dots) {
    const __m256i nibble = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    for (int i = 0; i < n; i++) {
        const uint8_t *code = codes + (size_t)i * chunks * CHUNK_BYTES;
        __m256i sum = _mm256_setzero_si256();
        for (int j = 0; j < chunks; j++) {
            __m256i both = _mm256_loadu_si256((const __m256i *)(code + CHUNK_BYTES * j));
            __m256i first = _mm256_maddubs_epi16(
                _mm256_and_si256(both, nibble),
                _mm256_loadu_si256((const __m256i *)(low + CHUNK_BYTES * j)));
            __m256i second = _mm256_maddubs_epi16(
                _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble),
                _mm256_loadu_si256((const __m256i *)(high + CHUNK_BYTES * j)));
            /* At most 4 * 15 * 127: it fits 16 bits. */
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(first, second), ones));
        }
        __m128i x = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
        dots[i] = _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1)));
    }
}

AVX512 static inline __m256i dot_avx512(const uint8_t *code, int chunks, const int8_t *low,
                                        const int8_t *high) {
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i sum = _mm512_setzero_si512();
    int j = 0;
    for (; j + 2 <= chunks; j += 2) {
        __m512i both = _mm512_loadu_si512(code + CHUNK_BYTES * j);
        sum = _mm512_dpbusd_epi32(sum, _mm512_and_si512(both, nibble),
                                  _mm512_loadu_si512(low + CHUNK_BYTES * j));
        sum = _mm512_dpbusd_epi32(sum, _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble),
                                  _mm512_loadu_si512(high + CHUNK_BYTES * j));
    }
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
    if (j < chunks) {
        const __m256i nibble_of_half = _mm256_set1_epi8(15);
        __m256i both = _mm256_loadu_si256((const __m256i *)(code + CHUNK_BYTES * j));
        half = _mm256_dpbusd_epi32(half, _mm256_and_si256(both, nibble_of_half),
                                   _mm256_loadu_si256((const __m256i *)(low + CHUNK_BYTES * j)));
        half = _mm256_dpbusd_epi32(
            half, _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble_of_half),
            _mm256_loadu_si256((const __m256i *)(high + CHUNK_BYTES * j)));
    }
    return half;
}

AVX512 static void codes_avx512(const uint8_t *codes, int n, int chunks, const int8_t *low,
                                const int8_t *high, int32_t *dots) {
    size_t bytes = (size_t)chunks * CHUNK_BYTES;
    int i = 0;
    for (; i + 4 <= n; i += 4) { /* four at a time share the sums over lanes */
        const uint8_t *code = codes + i * bytes;
        __m256i ab = _mm256_hadd_epi32(dot_avx512(code, chunks, low, high),
                                       dot_avx512(code + bytes, chunks, low, high));
        __m256i cd = _mm256_hadd_epi32(dot_avx512(code + 2 * bytes, chunks, low, high),
                                       dot_avx512(code + 3 * bytes, chunks, low, high));
        __m256i abcd = _mm256_hadd_epi32(ab, cd);
        _mm_storeu_si128((__m128i *)(dots + i), _mm_add_epi32(_mm256_castsi256_si128(abcd),
                                                             _mm256_extracti128_si256(abcd, 1)));
    }
    for (; i < n; i++) {
        __m256i half = dot_avx512(codes + i * bytes, chunks, low, high);
        __m128i x = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
        dots[i] = _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1)));
    }
}

AVX2 static void signs_avx2(const uint64_t *signs, int n, int words, const uint64_t *planes,
                            int32_t *sums) {
    SUM_OF_SIGNS(_mm_popcnt_u64)
}

/* Four rows of 128 dimensions at a time. */
AVX512 static void signs_avx512(const uint64_t *signs, int n, int words, const uint64_t *planes,
                                int32_t *sums) {
    if (words != 2) {
        signs_avx2(signs, n, words, planes, sums);
        return;
    }
    __m512i plane[4];
    for (int b = 0; b < 4; b++)
        plane[b] = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(planes + 2 * b)));
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        __m512i rows = _mm512_loadu_si512(signs + 2 * (size_t)i);
        __m512i ones = _mm512_popcnt_epi64(rows);
        __m512i sum = _mm512_popcnt_epi64(_mm512_and_si512(rows, plane[3]));
        for (int b = 2; b >= 0; b--)
            sum = _mm512_add_epi64(_mm512_slli_epi64(sum, 1),
                                   _mm512_popcnt_epi64(_mm512_and_si512(rows, plane[b])));
        sum = _mm512_slli_epi64(sum, 1); /* less 15 times the ones */
        sum = _mm512_add_epi64(_mm512_sub_epi64(sum, _mm512_slli_epi64(ones, 4)), ones);
        sum = _mm512_add_epi64(sum, _mm512_shuffle_epi32(sum, _MM_PERM_BADC));
        __m256i narrow = _mm512_cvtepi64_epi32(sum); /* each sum twice */
        narrow = _mm256_permutevar8x32_epi32(narrow, _mm256_setr_epi32(0, 2, 4, 6, 0, 0, 0, 0));
        _mm_storeu_si128((__m128i *)(sums + i), _mm256_castsi256_si128(narrow));
    }
    signs_avx2(signs + 2 * (size_t)i, n - i, words, planes, sums + i);
}

AVX2 static void products_avx2(const float *rows, int n, int dimensions, const float *query,
                               float *products) {
    for (int i = 0; i < n; i++)
        products[i] = float32_avx2(rows + (size_t)i * dimensions, query, dimensions);
}

/* Four sums with the sum of all of v. */
AVX512 static inline __m128 quarters_of(__m512 v) {
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v),
                                _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* Four rows at a time: their sums do not wait for each other. */
AVX512 static void products_avx512(const float *rows, int n, int dimensions, const float *query,
                                   float *products) {
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        const float *row = rows + (size_t)i * dimensions;
        __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
        for (int at = 0; at < dimensions; at += 16) {
            int left = dimensions - at;
            __mmask16 there = left < 16 ? (__mmask16)((1u << left) - 1) : 0xffff;
            __m512 with = _mm512_maskz_loadu_ps(there, query + at);
            const float *from = row + at;
            a = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(there, from), with, a);
            b = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(there, from + dimensions), with, b);
            c = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(there, from + 2 * dimensions), with, c);
            d = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(there, from + 3 * dimensions), with, d);
        }
        __m128 ab = _mm_hadd_ps(quarters_of(a), quarters_of(b));
        __m128 cd = _mm_hadd_ps(quarters_of(c), quarters_of(d));
        _mm_storeu_ps(products + i, _mm_hadd_ps(ab, cd));
    }
    products_avx2(rows + (size_t)i * dimensions, n - i, dimensions, query, products + i);
}

static const Kernels OF_AVX2 = {codes_avx2, signs_avx2, products_avx2, float16_avx2};
static const Kernels OF_AVX512 = {codes_avx512, signs_avx512, products_avx512, float16_avx2};

static uint64_t enabled_states(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* 0: portable, 1: AVX2, 2: AVX-512 with VNNI and VPOPCNTDQ; what the CPU has and the system saves. */
static int best_level(void) {
    uint32_t a, b, c, d;
    const uint32_t needed = 1u << 12 | 1u << 23 | 1u << 27 | 1u << 29; /* FMA, POPCNT, XSAVE, F16C */
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & needed) != needed) return 0;
    uint64_t states = enabled_states();
    const uint32_t avx2 = 1u << 5, f = 1u << 16, bw = 1u << 30, vl = 1u << 31;
    const uint32_t of_c = 1u << 11 | 1u << 14; /* VNNI, VPOPCNTDQ */
    if ((states & 0x06) != 0x06 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & avx2)) return 0;
    if ((states & 0xe6) != 0xe6 || (b & (f | bw | vl)) != (f | bw | vl) || (c & of_c) != of_c)
        return 1;
    return 2;
}

static const Kernels *const LEVELS[] = {&PORTABLE, &OF_AVX2, &OF_AVX512};
#else
static int best_level(void) { return 0; }
static const Kernels *const LEVELS[] = {&PORTABLE};
#endif

static const Kernels *kernels = &PORTABLE;

/* Use at most this level of instructions; returns the one that is used from now on. */
EXPORT int32_t use_level(int32_t level) {
    int best = best_level();
    if (level < 0) level = 0;
    if (level > best) level = best;
    kernels = LEVELS[level];
    return level;
}

/* ---------------------------------------------------------------------------------- candidates */

/* A binary heap with the lowest score on top. Of equal scores, the later row is lower. */
static inline int lower(const Candidate *a, const Candidate *b) {
    if (a->score != b->score) return a->score < b->score;
    if (a->member != b->member) return a->member > b->member;
    return a->row > b->row;
}

static void sift_down(Candidate *heap, int n, int i) {
    Candidate moved = heap[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && lower(heap + child + 1, heap + child)) child++;
        if (!lower(heap + child, &moved)) break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

typedef struct {
    Candidate *heap;
    int count, room;
} Best;

/* The score from which on a candidate belongs to the best. */
static inline float threshold(const Best *best) {
    return best->count < best->room ? -INFINITY : best->heap[0].score;
}

static inline void offer(Best *best, Candidate candidate) {
    if (best->count < best->room) {
        best->heap[best->count++] = candidate;
        if (best->count == best->room)
            for (int i = best->room / 2 - 1; i >= 0; i--) sift_down(best->heap, best->room, i);
    } else if (lower(best->heap, &candidate)) {
        best->heap[0] = candidate;
        sift_down(best->heap, best->room, 0);
    }
}

static int nearest_first(const void *a, const void *b) {
    return lower(a, b) ? 1 : lower(b, a) ? -1 : 0;
}

static inline int is_replaced(const Member *member, uint32_t row) {
    /* A search has the rows that there were when it began: older ones count until newer are among them. */
    return member->replaced && member->replaced[row] && member->replaced[row] <= member->rows;
}

static inline int may_be_found(const Member *member, uint32_t row) {
    return !member->flags[row] && (!member->allowed || member->allowed[row]) &&
           !is_replaced(member, row);
}

static inline void prefetch_vector(const Member *member, uint32_t row, int dimensions) {
    const uint16_t *vector = member->vectors + (size_t)row * dimensions;
    for (int at = 0; at < dimensions; at += 32) __builtin_prefetch(vector + at);
}

static inline float vector_score(const Member *member, uint32_t row, const float *query, int dimensions) {
    return kernels->float16(member->vectors + (size_t)row * dimensions, query, dimensions);
}

/* Score these candidates by their float16 vectors, and sort them. Returns how far estimates were off, as
 * the root of the mean square. */
static float score_exactly(Candidate *found, int count, const Member *members, const float *query,
                          int dimensions) {
    float squares = 0;
    int estimates = 0;
    for (int i = 0; i < count; i++) {
        if (found[i].list != NO_LIST)
            prefetch_vector(members + found[i].member, found[i].row, dimensions);
    }
    for (int i = 0; i < count; i++) {
        if (found[i].list == NO_LIST) continue;
        float exact = vector_score(members + found[i].member, found[i].row, query, dimensions);
        squares += (found[i].score - exact) * (found[i].score - exact);
        found[i].score = exact;
        estimates++;
    }
    qsort(found, count, sizeof *found, nearest_first);
    return estimates ? sqrtf(squares / (float)estimates) : 0;
}

static inline uint64_t group_key(const Candidate *candidate, const Member *members) {
    return (uint64_t)candidate->member << 32 | members[candidate->member].groups[candidate->row];
}

static inline size_t hash_of(uint64_t key) { return (size_t)(key * 0x9e3779b97f4a7c15u >> 20); }

/* Keep the first candidate of each group, at most k; returns how many, or -1 without memory. */
static int first_of_each_group(Candidate *found, int count, const Member *members, int k) {
    size_t room = 16;
    while (room < 2 * (size_t)count) room *= 2;
    uint64_t *seen = malloc(room * sizeof *seen);
    if (!seen) return -1;
    memset(seen, 0xff, room * sizeof *seen); /* no key: there are fewer members */
    int kept = 0;
    for (int i = 0; i < count && kept < k; i++) {
        uint64_t key = group_key(found + i, members);
        size_t at = hash_of(key) & (room - 1);
        while (seen[at] != UINT64_MAX && seen[at] != key) at = (at + 1) & (room - 1);
        if (seen[at] == key) continue;
        seen[at] = key;
        found[kept++] = found[i];
    }
    free(seen);
    return kept;
}

/* -------------------------------------------------------------------------------------- search */

typedef struct {
    const float *vector; /* as given */
    float *rotated;
    int8_t *low, *high; /* rounded to 8 bits, in the order of codes */
    uint64_t *planes;   /* (4, words): the bits of components rounded to 4 bits */
    float sign_step;    /* of that rounding */
    float offset;       /* what is the same for the signs of all rows, in these steps */
    float step;         /* of the rounding to 8 bits */
    float middle;       /* what MIDDLE in every component adds to a dot product */
    float *nearness;    /* (lists,) */
    int ranked;         /* how many lists are in order */
    RankedList *order;  /* (lists,): nearest first, as far as they are in order */
    RankedList *spare;  /* (lists,) */
    float *bounds;      /* for the rows of the largest run without codes */
} Query;

static int chunks_of(int dimensions) { return (dimensions + CHUNK_DIMENSIONS - 1) / CHUNK_DIMENSIONS; }

EXPORT int32_t code_bytes(int32_t dimensions) { return chunks_of(dimensions) * CHUNK_BYTES; }

/* 64-bit words that have the signs of a row. */
EXPORT int32_t sign_words(int32_t dimensions) { return (dimensions + 63) / 64; }

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS, PASSES = 2, UNSORTED_BITS = 32 - PASSES * DIGIT_BITS };

/* Order all lists by a radix sort: comparing them costs several times as much. Those whose nearness
 * differs by less than a part in 8,192 stay in the order of their numbers. */
static void order_lists(Query *query, int lists) {
    uint32_t starts[PASSES][DIGITS] = {{0}};
    for (int list = 0; list < lists; list++) {
        uint32_t bits;
        memcpy(&bits, &query->nearness[list], 4);
        /* Negative floats descend as their bits ascend. */
        uint32_t key = (bits & 0x80000000 ? bits : ~(bits | 0x80000000)) >> UNSORTED_BITS;
        query->order[list] = (RankedList){key, (uint32_t)list};
        for (int pass = 0; pass < PASSES; pass++)
            starts[pass][key >> (pass * DIGIT_BITS) & (DIGITS - 1)]++;
    }
    for (int pass = 0; pass < PASSES; pass++) {
        uint32_t *start = starts[pass], total = 0;
        for (int digit = 0; digit < DIGITS; digit++) {
            uint32_t count = start[digit];
            start[digit] = total;
            total += count;
        }
        for (int i = 0; i < lists; i++) {
            RankedList one = query->order[i];
            query->spare[start[one.key >> (pass * DIGIT_BITS) & (DIGITS - 1)]++] = one;
        }
        RankedList *sorted = query->spare;
        query->spare = query->order;
        query->order = sorted;
    }
}

enum { FEW_LISTS = 64 };

/* Put at least the nearest `wanted` lists in order: a few by insertion, since most lists are not among them. */
static void rank_lists(Query *query, int lists, int wanted) {
    if (wanted <= query->ranked) return;
    if (wanted > FEW_LISTS || wanted >= lists) {
        order_lists(query, lists);
        query->ranked = lists;
        return;
    }
    const float *nearness = query->nearness;
    RankedList *order = query->order;
    float needed = -INFINITY;
    int count = 0;
    for (int list = 0; list < lists; list++) {
        if (nearness[list] <= needed) continue;
        int at = count < wanted ? count++ : wanted - 1;
        for (; at > 0 && nearness[order[at - 1].list] < nearness[list]; at--) order[at] = order[at - 1];
        order[at] = (RankedList){0, (uint32_t)list};
        if (count == wanted) needed = nearness[order[wanted - 1].list];
    }
    query->ranked = count;
}

static void prepare(Query *query, const Quantizer *quantizer, const float *vector) {
    int dimensions = quantizer->dimensions, bytes = code_bytes(dimensions);
    query->vector = vector;
    float largest = 0;
    kernels->products(quantizer->rotation, dimensions, dimensions, vector, query->rotated);
    for (int i = 0; i < dimensions; i++) largest = fmaxf(largest, fabsf(query->rotated[i]));
    query->step = largest > 0 ? largest / 127 : 1;
    memset(query->low, 0, bytes);
    memset(query->high, 0, bytes);
    int sum = 0;
    for (int i = 0; i < dimensions; i++) {
        int8_t rounded = (int8_t)lrintf(query->rotated[i] / query->step);
        int at = i / CHUNK_DIMENSIONS * CHUNK_BYTES + i % CHUNK_BYTES;
        (i % CHUNK_DIMENSIONS < CHUNK_BYTES ? query->low : query->high)[at] = rounded;
        sum += rounded;
    }
    query->middle = MIDDLE * (float)sum;
    int words = sign_words(dimensions), total = 0;
    float step = largest > 0 ? largest / MIDDLE : 1;
    memset(query->planes, 0, 4 * words * sizeof *query->planes);
    for (int i = 0; i < dimensions; i++) {
        int level = (int)lrintf(query->rotated[i] / step + MIDDLE);
        level = level < 0 ? 0 : level > 15 ? 15 : level;
        total += level;
        for (int b = 0; b < 4; b++)
            query->planes[b * words + i / 64] |= (uint64_t)(level >> b & 1) << (i % 64);
    }
    query->sign_step = step;
    query->offset = MIDDLE * (float)dimensions - (float)total;
    kernels->products(quantizer->centroids, quantizer->lists, dimensions, query->rotated,
                      query->nearness);
    query->ranked = 0;
}

static inline float code_score(const Run *run, size_t at, int chunks, const Query *query, float base) {
    int32_t dot;
    kernels->codes(run->codes + at * chunks * CHUNK_BYTES, 1, chunks, query->low, query->high, &dot);
    return base + query->step * run->scales[at] * ((float)dot - query->middle);
}

static inline uint32_t member_at(const Run *run, size_t at) {
    return run->members ? run->members[at] : (uint32_t)run->member;
}

/* How the scores of rows that may be found follow from those of their centroids. */
typedef struct {
    double scores, centroids, products; /* sums of squares, and of the products of both */
    double off;                         /* what inaccurate scores add to the squares */
    uint64_t count, read;               /* rows that may be found, of how many */
} Spread;

static inline void note(Spread *spread, float centroid, float score, float off) {
    spread->scores += score * score;
    spread->centroids += centroid * centroid;
    spread->products += score * centroid;
    spread->off += off * off;
    spread->count++;
}

/* Offer the rows [from, to) of a run, which are of one list, as far as they may be found. With a spread many
 * may not: these are left out before any is scored. */
static void scan(const Run *run, uint32_t from, uint32_t to, int dimensions, const Query *query,
                 uint32_t rank, const Member *members, Best *best, Spread *spread) {
    int chunks = chunks_of(dimensions), words = sign_words(dimensions);
    int32_t sums[BLOCK], passing[BLOCK];
    float bounds[BLOCK];
    float base = query->nearness[query->order[rank].list];
    float step = query->sign_step, offset = query->offset;
    for (uint32_t start = from; start < to; start += BLOCK) {
        int n = to - start < BLOCK ? (int)(to - start) : BLOCK;
        kernels->signs(run->signs + (size_t)start * words, n, words, query->planes, sums);
        const float *scales = run->sign_scales + start;
        for (int i = 0; i < n; i++)
            bounds[i] = base + scales[i] * (step * ((float)sums[i] + offset) + SLACK);
        float needed = threshold(best);
        int count = 0;
        for (int i = 0; i < n; i++) {
            passing[count] = i;
            count += bounds[i] >= needed;
        }
        if (spread) {
            for (int i = 0; i < n; i += SAMPLED, spread->read++) {
                size_t at = start + i;
                if (may_be_found(members + member_at(run, at), run->rows[at]))
                    note(spread, base, bounds[i] - scales[i] * SLACK, SIGN_DEVIATION * scales[i]);
            }
            for (int i = 0; i < count; i++) {
                const Member *member = members + member_at(run, start + passing[i]);
                __builtin_prefetch(member->flags + run->rows[start + passing[i]]);
                if (member->allowed)
                    __builtin_prefetch(member->allowed + run->rows[start + passing[i]]);
            }
            int kept = 0;
            for (int i = 0; i < count; i++) {
                size_t at = start + passing[i];
                passing[kept] = passing[i];
                kept += may_be_found(members + member_at(run, at), run->rows[at]);
            }
            count = kept;
        }
        for (int i = 0; i < count; i++)
            __builtin_prefetch(run->codes + (size_t)(start + passing[i]) * chunks * CHUNK_BYTES);
        for (int i = 0; i < count; i++) {
            if (bounds[passing[i]] < needed) continue;
            size_t at = start + passing[i];
            float score = code_score(run, at, chunks, query, base);
            if (score < needed) continue;
            uint32_t row = run->rows[at], member = member_at(run, at);
            if (!spread && !may_be_found(members + member, row)) continue;
            offer(best, (Candidate){score, row, member, rank});
            needed = threshold(best);
        }
    }
}

/* Offer the rows of a run without codes.
 *
 * First those of the best estimates, so that few of the others can be among the best. `first` has as much
 * room as `best`, and `bounds` has room for a number per row. */
static void scan_vectors(const Run *run, uint32_t count, int dimensions, const Query *query,
                         const Member *members, Best *best, Best *first, float *bounds) {
    int words = sign_words(dimensions);
    const Member *member = members + run->member;
    int32_t sums[BLOCK];
    float step = query->sign_step, offset = query->offset, needed = threshold(best);
    first->count = 0;
    for (uint32_t start = 0; start < count; start += BLOCK) {
        int n = count - start < BLOCK ? (int)(count - start) : BLOCK;
        kernels->signs(run->signs + (size_t)start * words, n, words, query->planes, sums);
        const float *scales = run->sign_scales + start;
        float *bound = bounds + start;
        int passing = 0;
        for (int i = 0; i < n; i++) {
            bound[i] = scales[i] * (step * ((float)sums[i] + offset) + SLACK_WITHOUT_CODES);
            passing += bound[i] >= needed;
        }
        for (int i = 0; passing && i < n; i++) {
            if (bound[i] < needed) continue;
            uint32_t row = start + i;
            if (!may_be_found(member, row)) {
                bound[i] = -INFINITY;
                continue;
            }
            offer(first, (Candidate){bound[i], row, (uint32_t)run->member, NO_LIST});
            needed = fmaxf(threshold(best), threshold(first));
        }
    }
    for (int i = 0; i < first->count; i++) prefetch_vector(member, first->heap[i].row, dimensions);
    for (int i = 0; i < first->count; i++) {
        uint32_t row = first->heap[i].row;
        float score = vector_score(member, row, query->vector, dimensions);
        bounds[row] = -INFINITY;
        offer(best, (Candidate){score, row, (uint32_t)run->member, NO_LIST});
    }
    needed = threshold(best);
    needed = fmaxf(needed, -FLT_MAX); /* more than those that were offered already */
    for (uint32_t start = 0; start < count;) {
        uint32_t rows[BLOCK];
        int passing = 0;
        for (; start < count && passing <= BLOCK - FEW; start += FEW) {
            int n = count - start < FEW ? (int)(count - start) : FEW, any = 0;
            for (int i = 0; i < n; i++) any |= bounds[start + i] >= needed;
            for (int i = 0; any && i < n; i++) {
                rows[passing] = start + i;
                passing += bounds[start + i] >= needed;
            }
        }
        for (int i = 0; i < passing; i++) prefetch_vector(member, rows[i], dimensions);
        for (int i = 0; i < passing; i++) {
            if (bounds[rows[i]] < needed || !may_be_found(member, rows[i])) continue;
            float score = vector_score(member, rows[i], query->vector, dimensions);
            if (score < needed) continue;
            offer(best, (Candidate){score, rows[i], (uint32_t)run->member, NO_LIST});
            needed = fmaxf(needed, threshold(best));
        }
    }
}

static inline int probes_of(const Run *run, double factor, int lists) {
    double probes = ceil(run->probes * factor);
    return probes < lists ? (int)probes : lists;
}

/* The score of the n-th best of a heap, which has more. */
static float nth_score(const Best *best, int n) {
    float top[BLOCK];
    if (n > BLOCK) return threshold(best);
    int count = 0;
    for (int i = 0; i < best->count; i++) { /* insertion: n is small, and most are not among them */
        float score = best->heap[i].score;
        if (count == n && score <= top[n - 1]) continue;
        int at = count < n ? count++ : n - 1;
        for (; at > 0 && top[at - 1] < score; at--) top[at] = top[at - 1];
        top[at] = score;
    }
    return top[n - 1];
}

/* Whether so few of the hits can be expected in the lists from a rank on that they need not be read.
 *
 * The scores of a list's rows are taken to be normally distributed around a multiple of its centroid's, as
 * those that were read. */
static int is_enough(const Quantizer *quantizer, const Run *run, const Query *query, int rank,
                     const Spread *spread, const Best *best) {
    if (best->count < best->room || spread->count < LEAST_SAMPLES) return 0;
    int hits = best->room / CANDIDATES_PER_HIT;
    if (hits < 1) hits = 1;
    float needed = nth_score(best, hits);
    double slope = spread->centroids > 0 ? spread->products / spread->centroids : 0;
    double squares = spread->scores - slope * spread->products - spread->off;
    float deviation = squares > 0 ? (float)sqrt(squares / (double)spread->count) : 0;
    float share = (float)spread->count / (float)spread->read;
    float expected = 0, few = MISSES * (float)hits;
    for (; rank < quantizer->lists; rank++) {
        uint32_t list = query->order[rank].list;
        float above = needed - (float)slope * query->nearness[list];
        if (above > 5 * deviation) break; /* as it is for all lists after it */
        float z = deviation > 0 ? above / deviation : 0;
        /* The upper tail of the normal distribution, within a tenth. */
        float tail = z > 0 ? 0.5f * expf(-0.717f * z - 0.416f * z * z) : 1;
        expected += share * tail * (float)(run->starts[list + 1] - run->starts[list]);
        if (expected > few) return 0;
    }
    return 1;
}

/* Collect the candidates of a query: from the nearest lists of a run, `factor` times as many as it says.
 * With a filter, which may exclude whatever is near, from as many more as may have better ones. */
static void collect(const Quantizer *quantizer, const Run *runs, int run_count, Query *query,
                    double factor, int filtered, const Member *members, Best *best, Best *first) {
    int dimensions = quantizer->dimensions, lists = quantizer->lists;
    best->count = 0;
    for (int r = 0; r < run_count; r++)
        if (!runs[r].codes)
            scan_vectors(runs + r, runs[r].starts[1], dimensions, query, members, best, first,
                         query->bounds);
    for (int r = 0; filtered && r < run_count; r++) {
        const Run *run = runs + r;
        if (!run->codes) continue;
        Spread spread = {0};
        rank_lists(query, lists, lists);
        int probes = probes_of(run, factor, lists);
        for (int rank = 0; rank < lists; rank++) {
            if (rank >= probes) {
                if (is_enough(quantizer, run, query, rank, &spread, best)) break;
                probes += 8 + probes / 8; /* and ask again then */
            }
            uint32_t list = query->order[rank].list;
            scan(run, run->starts[list], run->starts[list + 1], dimensions, query, (uint32_t)rank,
                 members, best, &spread);
        }
    }
    int most = 0;
    for (int r = 0; !filtered && r < run_count; r++) {
        int probes = probes_of(runs + r, factor, lists);
        if (runs[r].codes && probes > most) most = probes;
    }
    rank_lists(query, lists, most);
    for (int rank = 0; rank < most; rank++) {
        uint32_t list = query->order[rank].list;
        for (int r = 0; r < run_count; r++) {
            const Run *run = runs + r;
            if (run->codes && rank < probes_of(run, factor, lists))
                scan(run, run->starts[list], run->starts[list + 1], dimensions, query,
                     (uint32_t)rank, members, best, NULL);
        }
    }
}

/* Let a heap have room for so many candidates; returns 0 without memory. */
static int make_room(Candidate **heap, int *room, int wanted) {
    if (wanted <= *room) return 1;
    Candidate *larger = realloc(*heap, wanted * sizeof **heap);
    if (!larger) return 0;
    *heap = larger;
    *room = wanted;
    return 1;
}

/* Write the hits of a query from position `at` on; returns how many there are. */
static int report(const Candidate *hits, int count, size_t at, uint32_t *members, uint32_t *rows,
                  float *scores) {
    for (int i = 0; i < count; i++) {
        members[at + i] = hits[i].member;
        rows[at + i] = hits[i].row;
        scores[at + i] = hits[i].score;
    }
    return count;
}

static int reads_all(const Run *runs, int run_count, double factor, int lists) {
    for (int r = 0; r < run_count; r++)
        if (runs[r].codes && probes_of(runs + r, factor, lists) < lists) return 0;
    return 1;
}

/* Find the nearest row of each of up to k groups, for one query; returns how many, -1 without memory.
 *
 * More is read, and more candidates are kept, until there are k or no more rows that may be found. Rows can
 * have nearly equal scores, such as photos that are alike, or what a filter leaves far from the query: then
 * more candidates are kept as well, until one that was left out is probably worse than the last hit.
 */
static int search_one(const Quantizer *quantizer, const Run *runs, int run_count,
                      const Member *members, Query *query, int k, int candidates, double factor,
                      int filtered, Candidate **heap, int *room) {
    for (int wanted = candidates;;) {
        if (!make_room(heap, room, 2 * wanted)) return -1;
        Best best = {*heap, 0, wanted}, first = {*heap + wanted, 0, wanted};
        collect(quantizer, runs, run_count, query, factor, filtered, members, &best, &first);
        int full = best.count == wanted;
        float lowest = threshold(&best);
        float off =
            score_exactly(*heap, best.count, members, query->vector, quantizer->dimensions);
        int found = first_of_each_group(*heap, best.count, members, k);
        if (found < 0) return found;
        int sure = !full || lowest + CERTAINTY * off < (*heap)[found - 1].score;
        if (found == k && sure) return found;
        if (full)
            wanted *= 4;
        else if (!reads_all(runs, run_count, factor, quantizer->lists))
            factor *= 2;
        else
            return found;
    }
}

static int allocate(Query *query, const Quantizer *quantizer, const Run *runs, int run_count) {
    size_t rows = 1;
    for (int r = 0; r < run_count; r++)
        if (!runs[r].codes && runs[r].starts[1] > rows) rows = runs[r].starts[1];
    int bytes = code_bytes(quantizer->dimensions);
    query->rotated = malloc(quantizer->dimensions * sizeof(float));
    query->low = malloc(bytes);
    query->high = malloc(bytes);
    query->planes = malloc(4 * sign_words(quantizer->dimensions) * sizeof(uint64_t));
    query->nearness = malloc(quantizer->lists * sizeof(float));
    query->order = malloc(quantizer->lists * sizeof(RankedList));
    query->spare = malloc(quantizer->lists * sizeof(RankedList));
    query->bounds = malloc(rows * sizeof(float));
    return query->rotated && query->low && query->high && query->planes && query->nearness &&
           query->order && query->spare && query->bounds;
}

static void release(Query *query) {
    free(query->rotated);
    free(query->low);
    free(query->high);
    free(query->planes);
    free(query->nearness);
    free(query->order);
    free(query->spare);
    free(query->bounds);
}

/* Search runs of one quantizer for the nearest row of each of up to k groups.
 *
 * queries is (m, dimensions). found_members, found_rows and scores are (m, k), counts is (m,). Returns 0,
 * or -1 without memory.
 */
EXPORT int32_t search(const Quantizer *quantizer, const Run *runs, int32_t run_count,
                      const Member *members, const float *queries, int32_t m, int32_t k,
                      int32_t candidates, double factor, int32_t filtered, uint32_t *found_members,
                      uint32_t *found_rows, float *scores, int32_t *counts) {
    Query query = {0};
    Candidate *heap = NULL;
    int room = 0, status = allocate(&query, quantizer, runs, run_count) ? 0 : -1;
    for (int i = 0; i < m && status == 0; i++) {
        prepare(&query, quantizer, queries + (size_t)i * quantizer->dimensions);
        int found = search_one(quantizer, runs, run_count, members, &query, k, candidates, factor,
                               filtered, &heap, &room);
        if (found < 0) {
            status = -1;
            break;
        }
        counts[i] = report(heap, found, (size_t)i * k, found_members, found_rows, scores);
    }
    free(heap);
    release(&query);
    return status;
}

/* Compare queries with every row that may be found; otherwise as `search`. */
EXPORT int32_t search_exactly(const Member *members, int32_t member_count, int32_t dimensions,
                              const float *queries, int32_t m, int32_t k, int32_t candidates,
                              uint32_t *found_members, uint32_t *found_rows, float *scores,
                              int32_t *counts) {
    Candidate *heap = NULL;
    int room = 0, status = 0;
    for (int i = 0; i < m && status == 0; i++) {
        const float *query = queries + (size_t)i * dimensions;
        for (int wanted = candidates;;) {
            if (!make_room(&heap, &room, wanted)) {
                status = -1;
                break;
            }
            Best best = {heap, 0, wanted};
            for (int number = 0; number < member_count; number++) {
                const Member *member = members + number;
                const uint8_t *allowed = member->allowed;
                for (uint32_t row = 0; row < member->rows; row++) {
                    if (allowed && !allowed[row]) {
                        uint64_t eight; /* most of a narrow filter is zeros */
                        while (row + 8 < member->rows &&
                               (memcpy(&eight, allowed + row + 1, 8), eight == 0))
                            row += 8;
                        continue;
                    }
                    if (!may_be_found(member, row)) continue;
                    float score = vector_score(member, row, query, dimensions);
                    if (score < threshold(&best)) continue;
                    offer(&best, (Candidate){score, row, (uint32_t)number, NO_LIST});
                }
            }
            int full = best.count == wanted;
            qsort(heap, best.count, sizeof *heap, nearest_first);
            int found = first_of_each_group(heap, best.count, members, k);
            if (found < 0) status = -1;
            if (found >= 0 && found < k && full) {
                wanted *= 4;
                continue;
            }
            counts[i] = report(heap, found, (size_t)i * k, found_members, found_rows, scores);
            break;
        }
    }
    free(heap);
    return status;
}

/* Find how many lists each query has to read for each of its k nearest rows: ranks is (m, k), of which
 * counts[i] are used. Otherwise as `search`, over all lists. */
EXPORT int32_t list_ranks(const Quantizer *quantizer, const Run *run, const Member *members,
                          const float *queries, int32_t m, int32_t k, int32_t candidates,
                          uint32_t *ranks, int32_t *counts) {
    Query query = {0};
    Candidate *heap = malloc(candidates * sizeof *heap);
    int status = allocate(&query, quantizer, run, 1) && heap ? 0 : -1;
    for (int i = 0; i < m && status == 0; i++) {
        prepare(&query, quantizer, queries + (size_t)i * quantizer->dimensions);
        Best best = {heap, 0, candidates};
        collect(quantizer, run, 1, &query, quantizer->lists, 0, members, &best, NULL);
        score_exactly(heap, best.count, members, query.vector, quantizer->dimensions);
        counts[i] = best.count < k ? best.count : k;
        for (int j = 0; j < counts[i]; j++) ranks[(size_t)i * k + j] = heap[j].list + 1;
    }
    free(heap);
    release(&query);
    return status;
}

/* --------------------------------------------------------------------------------- making codes */

/* Set the bits of positive components, which were 0, and return the scale of the signs: that which makes
 * their projection on the row as long as the row. */
static float signs_of_row(const float *row, int dimensions, uint64_t *signs) {
    float length = 0, sum = 0;
    for (int i = 0; i < dimensions; i++) {
        length += row[i] * row[i];
        sum += fabsf(row[i]);
        if (row[i] > 0) signs[i / 64] |= (uint64_t)1 << (i % 64);
    }
    return sum > 0 ? length / sum : 0;
}

/* Rotate float16 vectors, (n, dimensions), and round them to signs, with a scale each. Returns 0, or -1
 * without memory. */
EXPORT int32_t encode_signs(const float *rotation, const uint16_t *vectors, int64_t n,
                            int32_t dimensions, uint64_t *signs, float *sign_scales) {
    int words = sign_words(dimensions);
    float *rotated = malloc(dimensions * sizeof *rotated);
    if (!rotated) return -1;
    memset(signs, 0, (size_t)n * words * sizeof *signs);
    for (int64_t row = 0; row < n; row++) {
        for (int i = 0; i < dimensions; i++)
            rotated[i] = kernels->float16(vectors + (size_t)row * dimensions,
                                          rotation + (size_t)i * dimensions, dimensions);
        sign_scales[row] = signs_of_row(rotated, dimensions, signs + (size_t)row * words);
    }
    free(rotated);
    return 0;
}

/* Scale vectors, (n, dimensions), to unit length: in double precision, in which the squares of floats neither
 * overflow nor underflow. Returns 0, 1 if some component is not finite, or else 2 if some vector is all zeros. */
EXPORT int32_t scale(const float *vectors, int64_t n, int32_t dimensions, float *scaled) {
    int32_t status = 0;
    for (int64_t row = 0; row < n; row++) {
        const float *vector = vectors + (size_t)row * dimensions;
        double squares = 0;
        for (int i = 0; i < dimensions; i++) squares += (double)vector[i] * vector[i];
        if (!isfinite(squares)) return 1;
        if (squares == 0) status = 2;
        double length = sqrt(squares);
        for (int i = 0; i < dimensions; i++)
            scaled[(size_t)row * dimensions + i] = (float)(vector[i] / length);
    }
    return status;
}

/* Round rotated residuals, (n, dimensions), to codes and to signs, with a scale each.
 *
 * Of some ranges the one with the least squared error is used. The scales then make the projection on the
 * residual as long as the residual: an estimate without bias (Gao and Long 2024, RaBitQ).
 */
EXPORT void encode(const float *residuals, int64_t n, int32_t dimensions, uint8_t *codes,
                   float *scales, uint64_t *signs, float *sign_scales) {
    static const float SHARES[] = {0.6f, 0.7f, 0.8f, 0.9f, 1.0f};
    int bytes = code_bytes(dimensions), words = sign_words(dimensions);
    memset(codes, 0, (size_t)n * bytes);
    memset(signs, 0, (size_t)n * words * sizeof *signs);
    for (int64_t row = 0; row < n; row++) {
        const float *residual = residuals + (size_t)row * dimensions;
        uint8_t *code = codes + (size_t)row * bytes;
        float largest = 0, length = 0;
        for (int i = 0; i < dimensions; i++) {
            float size = fabsf(residual[i]);
            largest = fmaxf(largest, size);
            length += size * size;
        }
        sign_scales[row] = signs_of_row(residual, dimensions, signs + (size_t)row * words);
        scales[row] = 0;
        if (!(length > 0)) continue;
        float least = INFINITY, step = 1;
        for (size_t s = 0; s < sizeof SHARES / sizeof *SHARES; s++) {
            float tried = largest * SHARES[s] / MIDDLE, error = 0;
            for (int i = 0; i < dimensions; i++) {
                float level = rintf(residual[i] / tried + MIDDLE);
                level = fminf(fmaxf(level, 0), 15) - MIDDLE;
                error += (residual[i] - level * tried) * (residual[i] - level * tried);
            }
            if (error < least) {
                least = error;
                step = tried;
            }
        }
        float along = 0;
        for (int i = 0; i < dimensions; i++) {
            float level = fminf(fmaxf(rintf(residual[i] / step + MIDDLE), 0), 15);
            along += residual[i] * (level - MIDDLE);
            int at = i / CHUNK_DIMENSIONS * CHUNK_BYTES + i % CHUNK_BYTES;
            code[at] |= (uint8_t)((int)level << (i % CHUNK_DIMENSIONS < CHUNK_BYTES ? 0 : 4));
        }
        scales[row] = along > 0 ? length / along : 0;
    }
}

/* Put the codes of several runs into one, list by list in the order of the runs, without those of members
 * that are gone: (members,), 1 if so. Returns how many codes it has. */
EXPORT uint32_t merge(const Run *runs, int32_t run_count, const uint8_t *gone, int32_t lists,
                      int32_t bytes, int32_t words, uint32_t *starts, uint8_t *codes, float *scales,
                      uint64_t *signs, float *sign_scales, uint32_t *rows, uint32_t *members) {
    uint32_t to = 0;
    for (int list = 0; list < lists; list++) {
        starts[list] = to;
        for (int r = 0; r < run_count; r++) {
            const Run *run = runs + r;
            for (uint32_t at = run->starts[list]; at < run->starts[list + 1]; at++) {
                uint32_t member = run->members ? run->members[at] : (uint32_t)run->member;
                if (gone[member]) continue;
                memcpy(codes + (size_t)to * bytes, run->codes + (size_t)at * bytes, bytes);
                memcpy(signs + (size_t)to * words, run->signs + (size_t)at * words,
                       words * sizeof *signs);
                scales[to] = run->scales[at];
                sign_scales[to] = run->sign_scales[at];
                rows[to] = run->rows[at];
                members[to++] = member;
            }
        }
    }
    starts[lists] = to;
    return to;
}

/* ------------------------------------------------------------------------------- listings of hits */

typedef struct {
    const uint32_t *id_numbers; /* (rows,): which id each row has, or NULL if each has its own */
    const int32_t *id_starts; /* where each id starts, with the end of the last */
    const uint8_t *id_bytes;  /* UTF-8 */
    const uint64_t *versions;
    const uint16_t *photo_numbers;
} Identities;

typedef struct {
    const uint8_t *id;
    int32_t length;
    float score;
    uint64_t version;
    int32_t hit;
} Listing;

static inline int64_t id_of(const Identities *shard, int64_t row) {
    return shard->id_numbers ? shard->id_numbers[row] : row;
}

static Listing listing_of(const Identities *shards, const int64_t *positions, const int64_t *rows,
                          const float *scores, int32_t hit) {
    const Identities *shard = shards + positions[hit];
    int64_t row = rows[hit], id = id_of(shard, row);
    int32_t start = shard->id_starts[id];
    return (Listing){shard->id_bytes + start, shard->id_starts[id + 1] - start, scores[hit],
                     shard->versions[row], hit};
}

static uint64_t hash_of_id(const uint8_t *id, int32_t length) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (int32_t i = 0; i < length; i++) hash = (hash ^ id[i]) * 0x100000001b3u;
    return hash;
}

static int is_same_listing(const Listing *a, const Listing *b) {
    return a->length == b->length && memcmp(a->id, b->id, a->length) == 0;
}

static int better_first(const void *left, const void *right) {
    const Listing *a = left, *b = right;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    int order = memcmp(a->id, b->id, a->length < b->length ? a->length : b->length);
    return order ? order : a->length - b->length;
}

/* Rows that were found for one query, (n,) each. */
typedef struct {
    const int64_t *positions; /* of shards */
    const int64_t *rows;
    const float *scores;
    int32_t n;
} Found;

/* Of what was found by descending score, keep up to k listings, each at its newest version: those before
 * the first listing that is one too many. They are by descending score, then by id. Returns how many; -1
 * without memory. */
static int32_t best_listings(const Identities *shards, const Found *found, int32_t k, Listing *listings) {
    int32_t room = k < found->n ? k : found->n, count = 0;
    size_t slots = 16;
    while (slots < 2 * (size_t)room) slots *= 2;
    int32_t *slot = malloc(slots * sizeof *slot);
    if (!slot) return -1;
    memset(slot, 0xff, slots * sizeof *slot);
    for (int32_t hit = 0; hit < found->n; hit++) {
        Listing one = listing_of(shards, found->positions, found->rows, found->scores, hit);
        size_t at = hash_of_id(one.id, one.length) & (slots - 1);
        while (slot[at] >= 0 && !is_same_listing(listings + slot[at], &one))
            at = (at + 1) & (slots - 1);
        if (slot[at] >= 0) {
            if (listings[slot[at]].version < one.version) listings[slot[at]] = one;
        } else if (count == room) {
            break;
        } else {
            listings[count] = one;
            slot[at] = count++;
        }
    }
    free(slot);
    qsort(listings, count, sizeof *listings, better_first);
    return count;
}

typedef struct {
    int64_t position, row;
    float score;
} FoundRow;

static int nearer_first(const void *left, const void *right) {
    const FoundRow *a = left, *b = right;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    if (a->position != b->position) return a->position < b->position ? -1 : 1;
    return a->row < b->row ? -1 : a->row > b->row;
}

static int is_ordered(const Found *found) {
    for (int32_t i = 1; i < found->n; i++)
        if (!(found->scores[i] < found->scores[i - 1])) return 0;
    return 1;
}

/* Put what was found into the order of scores, then of shards and rows, in memory that the caller frees;
 * NULL without memory. */
static void *ordered(Found *found) {
    size_t n = found->n;
    FoundRow *rows = malloc(n * sizeof *rows);
    int64_t *copied = malloc(n * (2 * sizeof *copied + sizeof *found->scores));
    if (rows && copied) {
        int64_t *of_rows = copied + n;
        float *scores = (float *)(of_rows + n);
        for (size_t i = 0; i < n; i++)
            rows[i] = (FoundRow){found->positions[i], found->rows[i], found->scores[i]};
        qsort(rows, n, sizeof *rows, nearer_first);
        for (size_t i = 0; i < n; i++) {
            copied[i] = rows[i].position;
            of_rows[i] = rows[i].row;
            scores[i] = rows[i].score;
        }
        *found = (Found){copied, of_rows, scores, found->n};
    } else {
        free(copied);
        copied = NULL;
    }
    free(rows);
    return copied;
}

typedef struct {
    int64_t position, row;
    uint64_t version;
    float score;
    uint32_t id_length, photo_number, unused;
} Hit;

/* Where hits go. */
typedef struct {
    Hit *hits;
    uint8_t *ids;       /* one after another */
    int64_t room, used; /* bytes: what does not fit into room is not copied */
} Hits;

/* Add what identifies the up to k best listings of one query, each at the nearest row of its newest version.
 * Returns how many; -1 without memory. */
static int32_t identify(const Identities *shards, Found found, int32_t k, Hits *to) {
    if (found.n <= 0 || k <= 0) return 0;
    void *copied = NULL;
    if (!is_ordered(&found) && !(copied = ordered(&found))) return -1;
    Listing *listings = malloc((k < found.n ? k : found.n) * sizeof *listings);
    int32_t count = listings ? best_listings(shards, &found, k, listings) : -1;
    for (int32_t i = 0; i < count; i++) {
        const Listing *one = listings + i;
        int64_t position = found.positions[one->hit], row = found.rows[one->hit];
        *to->hits++ = (Hit){position, row, one->version, one->score, (uint32_t)one->length,
                            shards[position].photo_numbers[row], 0};
        if (to->used + one->length <= to->room) memcpy(to->ids + to->used, one->id, one->length);
        to->used += one->length;
    }
    free(listings);
    free(copied);
    return count;
}

/* What identifies the up to k best listings of each query, one query after another, each listing at the
 * nearest row of its newest version. What was found for a query begins at begins[query] of the arrays.
 * kept has the number of hits of each query, and after them how many bytes their ids take: those that fit
 * into room are copied. Returns -1 without memory. */
EXPORT int32_t best_hits(const Identities *shards, const int64_t *positions, const int64_t *rows,
                         const float *scores, const int64_t *begins, const int32_t *counts,
                         int32_t queries, int32_t k, Hit *hits, int64_t *kept, uint8_t *ids,
                         int64_t room) {
    Hits to = {hits, ids, room, 0};
    for (int32_t query = 0; query < queries; query++) {
        int64_t begin = begins[query];
        Found found = {positions + begin, rows + begin, scores + begin, counts[query]};
        int32_t count = identify(shards, found, k, &to);
        if (count < 0) return -1;
        kept[query] = count;
    }
    kept[queries] = to.used;
    return 0;
}

/* All that a search of listings reads but its queries. */
typedef struct {
    const Quantizer *quantizer;
    const Run *runs;
    const Member *members;
    const Identities *shards;
    const int64_t *positions; /* of the shard of each member */
    int32_t run_count;
} Listed;

/* Search as `search` does for the nearest rows of up to `groups` groups, and identify the up to k best
 * listings of each query among them as `best_hits` does.
 *
 * out is (2 m + 1,) int64: how many hits each query has, how many rows were found for each, and how many
 * bytes the ids take; then there are room for m times the lesser of k and groups hits, and `room` for ids.
 * Returns -1 without memory. */
EXPORT int32_t search_listings(const Listed *in, const float *queries, int32_t m, int32_t groups,
                               int32_t candidates, double factor, int32_t filtered, int32_t k,
                               int64_t *out, int64_t room) {
    Query query = {0};
    Candidate *heap = NULL;
    int heap_room = 0;
    int32_t most = k < groups ? k : groups;
    Hits to = {(Hit *)(out + 2 * (int64_t)m + 1), NULL, room, 0};
    to.ids = (uint8_t *)(to.hits + (int64_t)m * most);
    int64_t *found_positions = malloc((size_t)groups * (2 * sizeof *found_positions + sizeof(float)));
    int64_t *found_rows = found_positions + groups;
    float *scores = (float *)(found_rows + groups);
    int status = allocate(&query, in->quantizer, in->runs, in->run_count) && found_positions ? 0 : -1;
    for (int32_t i = 0; i < m && status == 0; i++) {
        prepare(&query, in->quantizer, queries + (size_t)i * in->quantizer->dimensions);
        int n = search_one(in->quantizer, in->runs, in->run_count, in->members, &query, groups,
                           candidates, factor, filtered, &heap, &heap_room);
        for (int hit = 0; hit < n; hit++) {
            found_positions[hit] = in->positions[heap[hit].member];
            found_rows[hit] = heap[hit].row;
            scores[hit] = heap[hit].score;
        }
        Found found = {found_positions, found_rows, scores, n};
        int32_t count = n < 0 ? n : identify(in->shards, found, k, &to);
        if (count < 0) status = -1;
        out[i] = count;
        out[m + i] = n;
    }
    out[2 * (int64_t)m] = to.used;
    free(found_positions);
    free(heap);
    release(&query);
    return status;
}
