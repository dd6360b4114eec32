/* See momos.h. The sections named in comments are those of docs/format.md. */
#include "momos.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST ((uint64_t)1 << 20) /* symbols of a stream, values of a pack */
#define MOST ((uint64_t)1 << 62)
enum { MOTIFS, USAGE, MOSAIC, DENSE, MANIFEST };
enum { BOOL, F16, BF16, F32, F64, INT8, UINT32, OTHER };

static const struct {
    const char *name;
    int size, type;
} TYPES[] = {
    {"bool", 1, BOOL},        {"float16", 2, F16},       {"bfloat16", 2, BF16},
    {"float32", 4, F32},      {"float64", 8, F64},       {"int8", 1, INT8},
    {"uint32", 4, UINT32},    {"uint8", 1, OTHER},       {"uint16", 2, OTHER},
    {"uint64", 8, OTHER},     {"int16", 2, OTHER},       {"int32", 4, OTHER},
    {"int64", 8, OTHER},      {"complex64", 8, OTHER},   {"complex128", 16, OTHER},
    {"float8_e4m3fn", 1, OTHER},   {"float8_e5m2", 1, OTHER},
    {"float8_e4m3fnuz", 1, OTHER}, {"float8_e5m2fnuz", 1, OTHER},
    {"float8_e8m0fnu", 1, OTHER},
};
enum { NUM_TYPES = sizeof TYPES / sizeof *TYPES };

static const char DICTIONARY[] =
    "\"float16\",\"float64\",\"int64\",\"bool\",\"uint8\",.self_attn.in_proj_weight.out_proj.embed_toke"
    "ns.q_proj.k_proj.v_proj.attention.query.key.value.mlp.fc1.fc2.gate_proj.up_proj.down_pro"
    "j.norm1.LayerNorm.ln_1.lstm.weight_ih_l0.weight_hh_l0.bias_ih_l0.bias_hh_l0.encoder.deco"
    "der.head.classifier.features.downsample.layer4.2.conv1.layer3.1.conv2.layer2.0.bn1.bn2.r"
    "unning_mean.running_var.num_batches_tracked\",\"stored\":\"dense\",\"shape\":[],\"dtype\":\"int64\""
    ",\"why\":\"not floating\",\"why\":\"not chosen\",\"why\":\"frozen\",\"why\":\"empty\",\"why\":\"buffer\",\"wh"
    "y\":\"buffer that state_dict leaves out\",\"stored\":\"same\",\"as\":\",\"persistent\":false,\"scales"
    "\":64,\"axis\":1,\"distortion\":0.0,\"energy\":1.0\"config\":{\"block_size\":2,\"capacity\":null,\"num"
    "_motifs\":64,\"include\":[\"*\"],\"exclude\":[],\"zero_motif\":true,\"selection\":\"kmeans\",\"seed\":0"
    ",\"min_ndim\":2,\"scales\":\"tensor\",\"rate_weight\":0.5,\"bits\":8,\"dense_dtype\":\"bfloat16\",\"gro"
    "ups\":[]}}\"config\":{\"step\":0.07,\"rate_weight\":0.1,\"block_size\":1,\"unit\":\"auto\",\"channel_a"
    "xis\":\"first\",\"states\":null,\"balance\":true,\"include\":[\"*\"],\"exclude\":[],\"min_ndim\":2,\"den"
    "se_dtype\":\"bfloat16\"}}\"metadata\":{\"format\":\"pt\"}}{\"producer\":\"momos 0.1.0\",\"motifs\":{\"bl"
    "ock_size\":1,\"num_motifs\":256,\"dtype\":\"int8\",\"packs\":[[[0,256]]],\"order\":\"whole\",\"scales\""
    ":[[[32,11],[32,11],[32,11],[32,11]]],\"states\":64,\"usage\":{\"significant\":4,\"streams\":[[1,"
    "168]]}},\"tensors\":[{\"name\":\"bn1.running_mean\",\"stored\":\"dense\",\"shape\":[16],\"dtype\":\"flo"
    "at32\",\"why\":\"running statistics, rounded to bfloat16\"},{\"name\":\"fc.bias\",\"stored\":\"dense"
    "\",\"shape\":[64],\"dtype\":\"float32\",\"why\":\"fewer than 2 dimensions, rounded to bfloat16\"},{"
    "\"name\":\"conv1.weight\",\"stored\":\"blocks\",\"shape\":[64,64,3,3],\"dtype\":\"float32\",\"streams\":"
    "[[11,100]],\"distortion\":0.01,\"energy\":1.0}],\"dense\":[{\"dtype\":\"float32\",\"packs\":[[[5,0],"
    "[5,0],[0,100],[32,100]]]}],\"sha256\":\"";

/* Failing, and room */

static void fail(momos_file *f, const char *why) {
    f->error = why;
    longjmp(f->escape, MOMOS_REFUSED);
}

static void need(momos_file *f, int fact, const char *why) {
    if (!fact) fail(f, why);
}

static void *take(momos_file *f, uint64_t count, size_t size) {
    const size_t waste = (size_t)(-(uintptr_t)f->room & 7);
    if (waste > f->left || count > (f->left - waste) / size) {
        f->error = "the buffer must be larger";
        longjmp(f->escape, MOMOS_MORE_ROOM);
    }
    void *result = f->room + waste;
    f->room += waste + (size_t)count * size;
    f->left -= waste + (size_t)count * size;
    return result;
}

static uint64_t times(momos_file *f, uint64_t a, uint64_t b) {
    need(f, !b || a <= MOST / b, "sizes must be at most 2**62");
    return a * b;
}

static uint64_t plus(momos_file *f, uint64_t a, uint64_t b) {
    need(f, a <= MOST && b <= MOST - a, "sizes must be at most 2**62");
    return a + b;
}

static uint64_t word(const uint8_t *at, uint64_t size) {
    uint64_t x = 0;
    for (uint64_t i = 0; i < size; ++i) x |= (uint64_t)at[i] << 8 * i;
    return x;
}

static uint32_t crc32(const uint8_t *data, uint64_t size) {
    uint32_t c = 0xFFFFFFFF;
    for (uint64_t i = 0; i < size; ++i) {
        c ^= data[i];
        for (int bit = 0; bit < 8; ++bit) c = c >> 1 ^ (c & 1 ? 0xEDB88320 : 0);
    }
    return ~c;
}

/* Deflate (RFC 1951) in a zlib stream (RFC 1950) */

enum { WINDOW = 1 << 15 };

typedef struct {
    momos_file *f;
    const uint8_t *at, *end;
    uint64_t bits;
    int have;
    uint8_t *window;
    uint64_t done, known, most; /* bytes written, bytes in the window, and how many there may be */
    uint8_t *out;               /* gets the bytes first ... last - 1, `stride` apart */
    uint64_t first, last, stride;
    uint32_t a, b;
} inflater;

typedef struct {
    uint16_t count[16], symbol[288];
} huffman;

static uint32_t few(inflater *z, int count) {
    while (z->have < count) {
        need(z->f, z->at < z->end, "a zlib stream must not end early");
        z->bits |= (uint64_t)*z->at++ << z->have;
        z->have += 8;
    }
    const uint32_t result = (uint32_t)(z->bits & (((uint64_t)1 << count) - 1));
    z->bits >>= count;
    z->have -= count;
    return result;
}

static void put(inflater *z, uint8_t byte) {
    need(z->f, z->done < z->most, "a zlib stream must not expand further");
    z->window[z->known++ % WINDOW] = byte;
    z->a = (z->a + byte) % 65521;
    z->b = (z->b + z->a) % 65521;
    if (z->done >= z->first && z->done < z->last)
        z->out[(z->done - z->first) * z->stride] = byte;
    ++z->done;
}

/* How many codes are left over; below 0 if there are too many. */
static int build(huffman *h, const uint8_t *lengths, int count) {
    uint16_t offset[16] = {0};
    int left = 1;
    memset(h->count, 0, sizeof h->count);
    for (int i = 0; i < count; ++i) ++h->count[lengths[i]];
    for (int bits = 1; bits < 16; ++bits) {
        left = 2 * left - h->count[bits];
        if (left < 0) return left;
        if (bits < 15) offset[bits + 1] = (uint16_t)(offset[bits] + h->count[bits]);
    }
    for (int i = 0; i < count; ++i)
        if (lengths[i]) h->symbol[offset[lengths[i]]++] = (uint16_t)i;
    return h->count[0] == count ? 0 : left;
}

static int coded_symbol(inflater *z, const huffman *h) {
    int code = 0, first = 0, index = 0;
    for (int bits = 1; bits < 16; ++bits) {
        code |= (int)few(z, 1);
        if (code - first < h->count[bits]) return h->symbol[index + code - first];
        index += h->count[bits];
        first = 2 * (first + h->count[bits]);
        code *= 2;
    }
    fail(z->f, "a zlib stream must have codes that exist");
    return 0;
}

static void compressed(inflater *z, const huffman *lengths, const huffman *distances) {
    for (;;) {
        const int symbol = coded_symbol(z, lengths);
        if (symbol < 256) {
            put(z, (uint8_t)symbol);
            continue;
        }
        if (symbol == 256) return;
        const int s = symbol - 257;
        need(z->f, s < 29, "a zlib stream must have lengths that exist");
        int length = 258;
        if (s < 8) length = 3 + s;
        else if (s < 28) length = 3 + ((4 + s % 4) << (s / 4 - 1)) + (int)few(z, s / 4 - 1);
        const int d = coded_symbol(z, distances);
        need(z->f, d < 30, "a zlib stream must have distances that exist");
        uint64_t distance = 1 + (uint64_t)d;
        if (d > 3) distance = 1 + ((uint64_t)(2 + d % 2) << (d / 2 - 1)) + few(z, d / 2 - 1);
        need(z->f, distance <= z->known && distance <= WINDOW,
             "a zlib stream must not look back beyond its start");
        while (length--) put(z, z->window[(z->known - distance) % WINDOW]);
    }
}

static void tables(inflater *z, huffman *lengths, huffman *distances) {
    static const uint8_t order[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                      11, 4,  12, 3, 13, 2, 14, 1, 15};
    uint8_t own[320] = {0};
    const int num_lengths = 257 + (int)few(z, 5), num_distances = 1 + (int)few(z, 5);
    const int num_codes = 4 + (int)few(z, 4);
    const char *why = "a zlib stream must have whole sets of codes";
    need(z->f, num_lengths <= 286 && num_distances <= 30, why);
    for (int i = 0; i < num_codes; ++i) own[order[i]] = (uint8_t)few(z, 3);
    need(z->f, build(lengths, own, 19) == 0 && lengths->count[0] < 19, why);
    memset(own, 0, sizeof own);
    for (int i = 0; i < num_lengths + num_distances;) {
        const int symbol = coded_symbol(z, lengths);
        int repeat = 1, value = symbol;
        if (symbol == 16) {
            need(z->f, i > 0, why);
            value = own[i - 1];
            repeat = 3 + (int)few(z, 2);
        } else if (symbol > 16) {
            value = 0;
            repeat = symbol == 17 ? 3 + (int)few(z, 3) : 11 + (int)few(z, 7);
        }
        need(z->f, i + repeat <= num_lengths + num_distances, why);
        while (repeat--) own[i++] = (uint8_t)value;
    }
    need(z->f, own[256], why);
    int left = build(lengths, own, num_lengths);
    need(z->f, !left || (left > 0 && lengths->count[0] + lengths->count[1] == num_lengths), why);
    left = build(distances, own + num_lengths, num_distances);
    need(z->f, !left || (left > 0 && distances->count[0] + distances->count[1] == num_distances),
         why);
}

static void fixed(huffman *lengths, huffman *distances) {
    uint8_t own[288];
    for (int i = 0; i < 288; ++i) own[i] = (uint8_t)(i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8);
    build(lengths, own, 288);
    memset(own, 5, 30);
    build(distances, own, 30);
}

static uint32_t adler(const char *text, size_t size) {
    uint32_t a = 1, b = 0;
    for (size_t i = 0; i < size; ++i) {
        a = (a + (uint8_t)text[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

/* How many bytes a zlib stream expands to, at most z->most. */
static uint64_t inflate(inflater *z, const uint8_t *data, uint64_t size, int dictionary) {
    huffman lengths, distances;
    need(z->f, size >= 2 && (data[0] & 15) == 8 && data[0] >> 4 < 8 &&
                   (data[0] * 256 + data[1]) % 31 == 0,
         "a zlib stream must begin as one");
    z->at = data + 2;
    z->end = data + size;
    if (data[1] & 32) {
        const size_t known = sizeof DICTIONARY - 1;
        uint32_t id = 0;
        for (int i = 0; i < 4; ++i) id = id << 8 | few(z, 8);
        need(z->f, dictionary && id == adler(DICTIONARY, known),
             "a zlib stream must have no dictionary but the format's");
        memcpy(z->window, DICTIONARY, known);
        z->known = known;
    }
    z->a = 1;
    for (int final = 0; !final;) {
        final = (int)few(z, 1);
        const int kind = (int)few(z, 2);
        need(z->f, kind < 3, "a zlib stream must have blocks of kinds that exist");
        if (kind == 0) {
            z->bits >>= z->have % 8;
            z->have -= z->have % 8;
            uint32_t count = few(z, 16);
            need(z->f, few(z, 16) == (count ^ 0xFFFF), "a zlib stream must have right lengths");
            while (count--) put(z, (uint8_t)few(z, 8));
            continue;
        }
        if (kind == 1) fixed(&lengths, &distances);
        else tables(z, &lengths, &distances);
        compressed(z, &lengths, &distances);
    }
    z->bits >>= z->have % 8;
    z->have -= z->have % 8;
    uint32_t sum = 0;
    for (int i = 0; i < 4; ++i) sum = sum << 8 | few(z, 8);
    need(z->f, sum == (z->b << 16 | z->a), "a zlib stream must have its checksum");
    need(z->f, z->at == z->end && !z->have, "a zlib stream must end where it ends");
    return z->done;
}

/* JSON: checked once as a whole, then walked. A value is the pointer to its first character. */

static const char *space(const char *p) {
    while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r') ++p;
    return p;
}

static int digit(char c) { return c >= '0' && c <= '9'; }

static int hex4(const char *p) {
    int value = 0;
    for (int i = 0; i < 4; ++i) {
        const char c = p[i];
        const int d = digit(c)               ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
        if (d < 0) return -1;
        value = 16 * value + d;
    }
    return value;
}

/* The next character of a string, and moves p behind it; -1 at its end, -2 if there is none. */
static int32_t character(const char **p) {
    const uint8_t *at = (const uint8_t *)*p;
    if (*at == '"') return -1;
    if (*at < 0x20) return -2;
    if (*at == '\\') {
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        const char *found = at[1] ? strchr(from, at[1]) : NULL;
        if (found) {
            *p += 2;
            return to[found - from];
        }
        if (at[1] != 'u') return -2;
        int32_t one = hex4(*p + 2);
        *p += 6;
        if (one < 0 || (one >= 0xDC00 && one < 0xE000)) return -2;
        if (one < 0xD800 || one >= 0xE000) return one;
        if ((*p)[0] != '\\' || (*p)[1] != 'u') return -2;
        const int32_t two = hex4(*p + 2);
        *p += 6;
        if (two < 0xDC00 || two >= 0xE000) return -2;
        return 0x10000 + ((one - 0xD800) << 10) + (two - 0xDC00);
    }
    if (*at < 0x80) {
        ++*p;
        return *at;
    }
    const int more = *at >= 0xF0 ? 3 : *at >= 0xE0 ? 2 : 1;
    if (*at < 0xC2 || *at > 0xF4) return -2;
    int32_t value = *at & (0x3F >> more);
    for (int i = 1; i <= more; ++i) {
        if (at[i] >> 6 != 2) return -2;
        value = value << 6 | (at[i] & 0x3F);
    }
    if ((more == 2 && value < 0x800) || (more == 3 && value < 0x10000) || value > 0x10FFFF ||
        (value >= 0xD800 && value < 0xE000))
        return -2;
    *p += more + 1;
    return value;
}

/* Whether two strings of checked JSON are equal. */
static int equal(const char *a, const char *b) {
    if (*a++ != '"' || *b++ != '"') return 0;
    for (;;) {
        const int32_t one = character(&a);
        if (one != character(&b)) return 0;
        if (one < 0) return 1;
    }
}

/* Whether a value of checked JSON is this string. */
static int is(const char *value, const char *text) {
    if (!value || *value++ != '"') return 0;
    for (;; ++text) {
        const int32_t one = character(&value);
        if (one < 0) return !*text;
        if (one != (uint8_t)*text || !*text) return 0;
    }
}

/* Behind a value of checked JSON. */
static const char *skip(const char *p) {
    int depth = 0;
    do {
        if (*p == '"') {
            for (++p; *p != '"'; ++p)
                if (*p == '\\') ++p;
            ++p;
        } else if (*p == '{' || *p == '[') {
            ++depth;
            ++p;
        } else if (*p == '}' || *p == ']') {
            --depth;
            ++p;
        } else if (*p == ',' || *p == ':') {
            ++p;
        } else {
            while (*p && !strchr(",:]} \t\n\r", *p)) ++p;
        }
        if (depth) p = space(p);
    } while (depth);
    return p;
}

/* The first item of a list or object, and the one after an item; null if there is none. */
static const char *first(const char *p) {
    p = space(p + 1);
    return *p == ']' || *p == '}' ? NULL : p;
}

static const char *next(const char *p) {
    p = space(skip(p));
    return *p == ',' ? space(p + 1) : NULL;
}

static const char *value_of(const char *key) { return space(space(skip(key)) + 1); }

static const char *next_key(const char *key) { return next(value_of(key)); }

static const char *member(const char *object, const char *key) {
    for (const char *p = first(object); p; p = next_key(p))
        if (is(p, key)) return value_of(p);
    return NULL;
}

static const char *check_string(momos_file *f, const char *p) {
    need(f, *p++ == '"', "a string of JSON must begin as one");
    int32_t c;
    while ((c = character(&p)) >= 0) {
    }
    need(f, c == -1, "a string of JSON must be valid Unicode");
    return p + 1;
}

static const char *check_number(momos_file *f, const char *p) {
    const char *begin = p, *why = "the manifest must be JSON";
    int whole = 1;
    if (*p == '-') ++p;
    need(f, digit(*p), why);
    if (*p == '0') ++p;
    else while (digit(*p)) ++p;
    if (*p == '.') {
        whole = 0;
        need(f, digit(*++p), why);
        while (digit(*p)) ++p;
    }
    if (*p == 'e' || *p == 'E') {
        whole = 0;
        ++p;
        if (*p == '+' || *p == '-') ++p;
        need(f, digit(*p), why);
        while (digit(*p)) ++p;
    }
    need(f, whole || isfinite(strtod(begin, NULL)), "numbers must be finite");
    return p;
}

static const char *check(momos_file *f, const char *p, int depth) {
    static const char *const words[] = {"true", "false", "null"};
    const char *why = "the manifest must be JSON";
    need(f, depth < 100, "JSON must be nested at most 100 deep");
    if (*p == '"') return check_string(f, p);
    for (int i = 0; i < 3; ++i)
        if (!strncmp(p, words[i], strlen(words[i]))) return p + strlen(words[i]);
    if (*p != '{' && *p != '[') return check_number(f, p);
    const char *object = *p == '{' ? p : NULL;
    const char close = object ? '}' : ']';
    p = space(p + 1);
    if (*p == close) return p + 1;
    for (;;) {
        if (object) {
            const char *key = p;
            p = space(check_string(f, p));
            need(f, *p == ':', why);
            for (const char *other = first(object); other != key; other = next_key(other))
                need(f, !equal(other, key), "keys of an object must differ");
            p = space(p + 1);
        }
        p = space(check(f, p, depth + 1));
        if (*p == close) return p + 1;
        need(f, *p == ',', why);
        p = space(p + 1);
    }
}

static uint64_t integer(momos_file *f, const char *p, uint64_t least, uint64_t most) {
    const char *why = "the manifest must have whole numbers in range where it must have numbers";
    need(f, p != NULL, why);
    const int negative = *p == '-';
    p += negative;
    need(f, digit(*p), why);
    uint64_t value = 0;
    for (; digit(*p); ++p) {
        need(f, value <= (UINT64_MAX - 9) / 10, why);
        value = 10 * value + (uint64_t)(*p - '0');
    }
    need(f, *p != '.' && *p != 'e' && *p != 'E' && !(negative && value), why);
    need(f, value >= least && value <= most, why);
    return value;
}

static const char *list(momos_file *f, const char *p) {
    need(f, p && *p == '[', "the manifest must have lists where it must have lists");
    return p;
}

static void text(momos_file *f, const char *p) {
    need(f, p && *p == '"', "the manifest must have strings where it must have strings");
}

static const char *object(momos_file *f, const char *p) {
    need(f, p && *p == '{', "the manifest must have objects where it must have objects");
    return p;
}

/* A key that version 1 ignores. */
static const char *newer(momos_file *f, const char *p, const char *key) {
    return f->version > 1 ? member(p, key) : NULL;
}

static int type_of(momos_file *f, const char *p) {
    for (int i = 0; i < NUM_TYPES; ++i)
        if (is(p, TYPES[i].name)) return i;
    fail(f, "a dtype must be one of the format's");
    return 0;
}

static int is_float(int type) { return TYPES[type].type >= F16 && TYPES[type].type <= F64; }

/* Streams (section 3) */

typedef void emit_function(void *to, uint64_t number, uint32_t symbol);

typedef struct {
    uint32_t *slots;
    uint64_t *weights;
    uint32_t size;
    int bits;
} table;

static void slots_of(table *t) {
    const uint64_t most = (uint64_t)1 << t->bits;
    for (int shift = 0;; ++shift) {
        uint64_t sum = 0, before = 0;
        const uint64_t half = shift ? (uint64_t)1 << (shift - 1) : 0;
        for (uint32_t j = 0; j < t->size && sum <= most; ++j)
            if (t->weights[j]) {
                const uint64_t v = (t->weights[j] + half) >> shift;
                sum += v ? v : 1;
            }
        if (sum > most) continue;
        t->slots[0] = 0;
        for (uint32_t j = 0; j < t->size; ++j) {
            if (t->weights[j]) {
                const uint64_t v = (t->weights[j] + half) >> shift;
                before += v ? v : 1;
            }
            t->slots[j + 1] = (uint32_t)((before << t->bits) / sum);
        }
        return;
    }
}

/* The state of a stream, and the words after it. */
typedef struct {
    uint64_t x;
    const uint8_t *at, *end;
} state;

static state begin(momos_file *f, const uint8_t *data, uint64_t size) {
    state s = {word(data, size < 8 ? size : 8), data + (size < 8 ? size : 8), data + size};
    need(f, size <= 8 || size % 4 == 0, "a stream must be whole words");
    need(f, !size || size > 8 || data[size - 1], "a short stream must not end with a zero");
    need(f, s.x >> 63 == 0 && (size <= 8 || s.x >> 31), "a stream must begin with a state");
    return s;
}

static void refill(state *s) {
    if (s->x >> 31 == 0 && s->at < s->end) {
        s->x = s->x << 32 | word(s->at, 4);
        s->at += 4;
    }
}

static void end(momos_file *f, const state *s) {
    need(f, !s->x && s->at == s->end, "a stream must end with its symbols");
}

/* Decodes n symbols out of t->size; t->weights are those at the start, and change. */
static void decode(momos_file *f, const uint8_t *data, uint64_t size, uint64_t n, table *t,
                   uint64_t rate, emit_function *emit, void *to) {
    state s = begin(f, data, size);
    uint64_t anew = t->size / 4 > 64 ? t->size / 4 : 64;
    int length = 0;
    while ((uint64_t)(t->size - 1) >> length) ++length;
    t->bits = length + 6 < 28 ? length + 6 : 28;
    slots_of(t);
    for (uint64_t i = 0; i < n; ++i) {
        if (rate && i == anew) {
            slots_of(t);
            anew += anew / 2;
        }
        const uint32_t r = (uint32_t)(s.x & (((uint64_t)1 << t->bits) - 1));
        uint32_t low = 0, high = t->size;
        while (high - low > 1) {
            const uint32_t middle = low + (high - low) / 2;
            if (t->slots[middle] <= r) low = middle;
            else high = middle;
        }
        while (t->slots[low + 1] <= r) ++low; /* never: slots end at 2**bits */
        s.x = (uint64_t)(t->slots[low + 1] - t->slots[low]) * (s.x >> t->bits) + r - t->slots[low];
        refill(&s);
        emit(to, i, low);
        if (rate) t->weights[low] += (uint64_t)1 << (rate - 1);
    }
    end(f, &s);
}

static table new_table(momos_file *f, uint64_t size) {
    table t = {0};
    t.size = (uint32_t)size;
    t.weights = take(f, size, 8);
    t.slots = take(f, size + 1, 4);
    return t;
}

/* A pair [rate, bytes] of the manifest for n symbols; returns the bytes. */
static uint64_t coded(momos_file *f, const char *pair, uint64_t n, uint64_t most, uint64_t *rate) {
    const char *one = first(list(f, pair)), *two = one ? next(one) : NULL;
    need(f, two && !next(two), "coded must be a pair");
    *rate = integer(f, one, 0, most);
    return integer(f, two, 0, 64 + 4 * n);
}

static uint64_t piece(uint64_t n, uint64_t done) { return n - done < LONGEST ? n - done : LONGEST; }

/* The bytes of a list of streams of n symbols together, or of packs of `planes` planes. */
static uint64_t total(momos_file *f, const char *p, uint64_t n, int planes) {
    uint64_t sum = 0, done = 0, rate;
    for (p = first(list(f, p)); p; p = next(p)) {
        need(f, done < n, "there must be a stream or pack for each 2**20 values");
        const uint64_t count = piece(n, done);
        if (!planes) {
            sum = plus(f, sum, coded(f, p, count, 31, &rate));
        } else {
            int number = 0;
            for (const char *q = first(list(f, p)); q; q = next(q), ++number)
                sum = plus(f, sum, coded(f, q, count, 32, &rate));
            need(f, number == planes, "a pack must have a plane for each byte of a value");
        }
        done += count;
    }
    need(f, done == n, "there must be a stream or pack for each 2**20 values");
    return sum;
}

/* Packs (section 5) */

typedef struct {
    uint8_t *out;
    uint64_t first, last, stride;
} window;

static void put_byte(void *to, uint64_t number, uint32_t symbol) {
    const window *w = to;
    if (number >= w->first && number < w->last)
        w->out[(number - w->first) * w->stride] = (uint8_t)symbol;
}

static void plane(momos_file *f, const uint8_t *data, uint64_t size, uint64_t n, uint64_t rate,
                  window w) {
    uint8_t *const room = f->room;
    const size_t left = f->left;
    if (!rate) {
        need(f, size == n, "a plane must have a byte for each value");
        for (uint64_t i = w.first; i < w.last; ++i) put_byte(&w, i, data[i]);
    } else if (rate == 32) {
        inflater z = {0};
        z.f = f;
        z.window = take(f, WINDOW, 1);
        z.most = n;
        z.out = w.out, z.first = w.first, z.last = w.last, z.stride = w.stride;
        need(f, inflate(&z, data, size, 0) == n, "a plane must have a byte for each value");
    } else {
        table t = new_table(f, 256);
        for (int j = 0; j < 256; ++j) t.weights[j] = 1;
        decode(f, data, size, n, &t, rate, put_byte, &w);
    }
    f->room = room;
    f->left = left;
}

/* Values first ... last - 1 of the n values in packs at `data`; returns what is behind the packs. */
static const uint8_t *unpack(momos_file *f, const char *packs, const uint8_t *data, uint64_t n,
                             int size, uint64_t begin_, uint64_t end_, uint8_t *out) {
    uint64_t done = 0, rate;
    for (const char *p = first(packs); p; p = next(p)) {
        const uint64_t count = piece(n, done), stop = done + count;
        const int wanted = begin_ < stop && end_ > done && begin_ < end_;
        int number = 0;
        for (const char *q = first(p); q; q = next(q), ++number) {
            const uint64_t bytes = coded(f, q, count, 32, &rate);
            if (wanted) {
                window w = {out, begin_ > done ? begin_ - done : 0,
                            (end_ < stop ? end_ : stop) - done, (uint64_t)size};
                w.out += (done > begin_ ? done - begin_ : 0) * (uint64_t)size + (uint64_t)number;
                plane(f, data, bytes, count, rate, w);
            }
            data += bytes;
        }
        done = stop;
    }
    return data;
}

/* Numbers (section 7) */

static double half(uint64_t h) {
    const int exponent = (int)(h >> 10 & 31);
    const double part = (double)(h & 1023);
    double value = exponent ? ldexp(1024 + part, exponent - 25) : ldexp(part, -24);
    if (exponent == 31) value = part > 0 ? NAN : INFINITY;
    return h >> 15 ? -value : value;
}

static float single(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static double number(const uint8_t *at, int type) {
    double value;
    switch (TYPES[type].type) {
        case F16: return half(word(at, 2));
        case BF16: return single((uint32_t)word(at, 2) << 16);
        case F32: return single((uint32_t)word(at, 4));
        case INT8: return (int8_t)*at;
        default: memcpy(&value, at, 8); return value;
    }
}

/* Writes a finite number in a dtype: to nearest, ties to even; float16 and bfloat16 by way of float32. */
static void store(double value, int type, uint8_t *at) {
    const float narrow = (float)value;
    uint32_t bits, result;
    memcpy(&bits, &narrow, 4);
    switch (TYPES[type].type) {
        case F64: memcpy(at, &value, 8); return;
        case F32: memcpy(at, &bits, 4); return;
        case INT8: *at = (uint8_t)(int8_t)value; return;
        case BF16: result = (bits & 0x7FFFFFFF) > 0x7F800000 ? bits >> 16 | 64
                            : (uint32_t)(((uint64_t)bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
            break;
        default: {
            const double size = fabs((double)narrow);
            int exponent = 0;
            if (size > 0) frexp(size, &exponent);
            const int lowest = exponent - 11 < -24 ? -24 : exponent - 11;
            const double whole = nearbyint(ldexp(size, -lowest)), rounded = ldexp(whole, lowest);
            if (rounded >= 65536) result = 31 << 10;
            else if (rounded < ldexp(1, -14)) result = (uint32_t)ldexp(rounded, 24);
            else {
                frexp(rounded, &exponent);
                result = (uint32_t)((exponent + 14) << 10) +
                         ((uint32_t)ldexp(rounded, 11 - exponent) - 1024);
            }
            result |= bits >> 31 << 15;
        }
    }
    at[0] = (uint8_t)result;
    at[1] = (uint8_t)(result >> 8);
}

/* Blocks by value (section 9). 1/256 of a weight's size is the unit of means, times 2**8. */

enum { SYMBOLS = 16, LEVELS = 44, CONTEXTS = 4, ONE = 1 << 16, LEAST = 64 };

typedef struct {
    uint16_t counts[SYMBOLS];
} counts;

typedef struct {
    int32_t value, seen;
} mean;

typedef struct {
    mean down;
    int32_t above[2];
} column;

static void shares(counts *c, const uint32_t *share) {
    uint64_t sum = 0, from = 0;
    for (int a = 0; a < SYMBOLS; ++a) sum += share[a];
    for (int a = SYMBOLS - 1; a >= 0; --a) {
        from += share[a];
        c->counts[a] = (uint16_t)(from * 208 / sum);
    }
}

static void first_counts(counts *c, int level) {
    int64_t middle = ((9 + 2 * (level % 4)) << (1 + level / 4)) - 16;
    if (middle < 1) middle = 1;
    int64_t ratio = middle * ONE / (middle + 230);
    const int64_t bend = (ONE - ratio) >> 5;
    uint32_t share[SYMBOLS] = {1 << 14, (uint32_t)ratio};
    for (int a = 2; a < SYMBOLS; ++a) {
        ratio = ratio > bend ? ratio - bend : 0;
        share[a] = (uint32_t)((share[a - 1] * (uint64_t)ratio) >> 16);
    }
    shares(c, share);
}

static void escape_counts(counts *c) {
    uint32_t share[SYMBOLS] = {1 << 16, 36000};
    for (int a = 2; a < SYMBOLS; ++a) share[a] = (uint32_t)((share[a - 1] * 36000ull) >> 16);
    shares(c, share);
}

static uint64_t factor(const counts *c, uint64_t weight) {
    return (weight * (((uint64_t)1 << 30) / c->counts[0]) + (1 << 23)) >> 24;
}

static void learn(counts *c, int symbol) {
    for (int a = 0; a <= symbol; ++a) c->counts[a] = (uint16_t)(c->counts[a] + 16);
    if (c->counts[0] == 12800)
        for (int a = 0; a < SYMBOLS; ++a) c->counts[a] = (uint16_t)(c->counts[a] - c->counts[a] / 2);
}

static int mixed_symbol(state *s, counts *const *tables, const uint64_t *factors, int number) {
    const uint32_t r = (uint32_t)(s->x & 0x7FFF);
    uint32_t above = 1 << 15, below = 0;
    int a = 0;
    for (;; ++a, above = below) {
        below = 0;
        if (a + 1 < SYMBOLS) {
            uint64_t sum = 0;
            for (int j = 0; j < number; ++j) sum += tables[j]->counts[a + 1] * factors[j];
            sum >>= 7;
            below = (uint32_t)(sum < 32752 ? sum : 32752) + (uint32_t)(SYMBOLS - a - 1);
        }
        if (r >= below) break;
    }
    s->x = (uint64_t)(above - below) * (s->x >> 15) + r - below;
    return a;
}

static uint32_t plain_bits(state *s, int count) {
    const uint32_t result = (uint32_t)(s->x & (((uint64_t)1 << count) - 1));
    s->x >>= count;
    refill(s);
    return result;
}

static uint64_t escaped(state *s, counts *table) {
    plain_bits(s, 0);
    counts *const one[] = {table};
    const uint64_t whole[] = {factor(table, ONE)};
    int length = mixed_symbol(s, one, whole, 1);
    learn(table, length);
    if (length < 15) return 14 + ((uint64_t)1 << length) + plain_bits(s, length);
    length = 15 + (int)plain_bits(s, 4);
    const uint64_t low = plain_bits(s, 15);
    return 14 + ((uint64_t)1 << length) + low + ((uint64_t)plain_bits(s, length - 15) << 15);
}

static int level_of(int64_t value) {
    const int64_t shifted = value + 16;
    int length = 0;
    while (shifted >> length) ++length;
    return 4 * length + (int)(shifted >> (length - 3)) % 4 - 20;
}

static void see(mean *m, int32_t x) {
    const int64_t step = 65536 / ((m->seen < 250 ? m->seen : 250) + 5);
    const int64_t change = (int64_t)(x - m->value) * step;
    m->value += (int32_t)(change >= 0 ? change >> 16 : -((-change + 65535) >> 16));
    ++m->seen;
}

/* Decodes n values, the first of which is number `position` of its tensor. */
static void decode_values(momos_file *f, const uint8_t *data, uint64_t size, uint64_t n,
                          uint64_t position, uint64_t row, uint64_t kernel,
                          void emit(void *, uint64_t, int64_t), void *to) {
    static const int by_subset[] = {0, 0, 0, 5, 9, 18, 33, 0, 166};
    static const int by_parity[] = {0, 0, 0, 2, 2, 4, 10, 0, 121};
    int memory = 0, shift = 0, trellis = 0;
    while (f->states >> memory > 1) ++memory;
    const int half_ = memory > 0;
    need(f, size && data[0] <= 148, "a stream of values must begin with a scale");
    const int64_t scale = (int64_t)(4 + data[0] % 4) << (data[0] / 4);
    while (shift < 15 && scale >> (shift + half_) > 1280) ++shift;
    const int64_t most = 127 * (int64_t)ONE, given = scale << 8 >> (shift + half_);
    const int32_t start = (int32_t)(given < most ? given : most);
    counts(*tables)[2][LEVELS] = take(f, CONTEXTS * 2 * LEVELS, sizeof(counts));
    counts escapes;
    for (int j = 0; j < CONTEXTS; ++j)
        for (int u = 0; u < 2; ++u)
            for (int level = 0; level < LEVELS; ++level) first_counts(&tables[j][u][level], level);
    escape_counts(&escapes);
    column *columns = take(f, row, sizeof *columns);
    mean *inputs = take(f, row / kernel, sizeof *inputs);
    const mean fresh = {start, 0};
    for (uint64_t c = 0; c < row; ++c) {
        columns[c].down = fresh;
        columns[c].above[0] = columns[c].above[1] = start;
    }
    for (uint64_t c = 0; c < row / kernel; ++c) inputs[c] = fresh;
    uint64_t weights[CONTEXTS], learned[CONTEXTS];
    for (int j = 0; j < CONTEXTS; ++j) weights[j] = learned[j] = (ONE - CONTEXTS * LEAST) / CONTEXTS;
    mean along = fresh;
    int64_t left = start;
    state s = begin(f, data + 1, size - 1);
    for (uint64_t i = position; i < position + n; ++i) {
        const uint64_t at = i % row;
        column *own = &columns[at];
        mean *channel = &inputs[at / kernel];
        if (!at) along = fresh;
        const int u = trellis & 1;
        const int64_t means[CONTEXTS] = {
            (along.value + left) >> 9,
            (3 * (int64_t)own->down.value + channel->value) >> 10,
            left >> 8,
            ((int64_t)own->above[0] + own->above[1]) >> 9,
        };
        counts *chosen[CONTEXTS];
        uint64_t factors[CONTEXTS], earned[CONTEXTS], sum = 0;
        for (int j = 0; j < CONTEXTS; ++j) {
            chosen[j] = &tables[j][u][level_of(means[j])];
            factors[j] = factor(chosen[j], weights[j] + LEAST);
        }
        const int symbol = mixed_symbol(&s, chosen, factors, CONTEXTS);
        const uint64_t bucket = symbol == SYMBOLS - 1 ? escaped(&s, &escapes) : (uint64_t)symbol;
        const uint32_t bits = plain_bits(&s, symbol ? shift + 1 : 0);
        const uint64_t index = symbol ? ((bucket - 1) << shift) + bits / 2 + 1 : 0;
        const uint64_t value = half_ ? 2 * index - (u && index) : index;
        need(f, value >> 31 == 0, "a value must be below 2**31");
        emit(to, i, bits & 1 ? -(int64_t)value : (int64_t)value);
        for (int j = 0; j < CONTEXTS; ++j) {
            const int above = symbol + 1 < SYMBOLS ? chosen[j]->counts[symbol + 1] : 0;
            earned[j] = (uint64_t)(chosen[j]->counts[symbol] - above) * factors[j] + 1;
            sum += earned[j];
        }
        const uint64_t inverse = ((uint64_t)(ONE - CONTEXTS * LEAST) << 24) / sum;
        for (int j = 0; j < CONTEXTS; ++j) {
            const int64_t share = (int64_t)((earned[j] * inverse) >> 24);
            const int64_t change = share - (int64_t)learned[j];
            weights[j] = learned[j];
            learned[j] += (uint64_t)(change >= 0 ? change >> 3 : -((-change + 7) >> 3));
            learn(chosen[j], symbol);
        }
        const uint64_t seen = value << 16 >> (shift + half_);
        const int32_t x = (int32_t)(seen < (uint64_t)most ? seen : (uint64_t)most);
        see(&along, x);
        see(&own->down, x);
        see(channel, x);
        const int64_t change = 3 * (x - left);
        left += change >= 0 ? change >> 3 : -((-change + 7) >> 3);
        own->above[1] = own->above[0];
        own->above[0] = x;
        if (half_)
            trellis = (trellis >> 1) ^ (u ? by_subset[memory] : 0) ^
                      (index & 1 ? by_parity[memory] : 0);
    }
    end(f, &s);
}

/* Tensors (section 2) */

static uint64_t num_values(momos_file *f, const char *entry, uint64_t *shape, int *dimensions) {
    uint64_t above = 1, result = 1;
    int number = 0;
    for (const char *p = first(list(f, member(entry, "shape"))); p; p = next(p)) {
        const uint64_t size = integer(f, p, 0, (uint64_t)1 << 63);
        need(f, number < MOMOS_MOST_DIMENSIONS, "a shape must have at most 64 dimensions");
        if (shape) shape[number] = size;
        ++number;
        result = size ? result : 0;
        if (size) above = times(f, above, size);
    }
    if (dimensions) *dimensions = number;
    return result ? above : 0;
}

static const char *entries(momos_file *f) { return first(list(f, member(f->json, "tensors"))); }

static int kind_of(momos_file *f, const char *entry) {
    const char *kind = member(entry, "stored");
    need(f, is(kind, "blocks") || is(kind, "dense") || is(kind, "same"),
         "a tensor must be stored as blocks, dense or same");
    return is(kind, "blocks") ? 'b' : is(kind, "dense") ? 'd' : 's';
}

static const char *named(momos_file *f, const char *name) {
    for (const char *p = entries(f); p; p = next(p))
        if (equal(member(p, "name"), name)) return p;
    return NULL;
}

static int axis_of(momos_file *f, const char *entry, int dimensions) {
    const char *axis = newer(f, entry, "axis");
    return axis ? (int)integer(f, axis, 0, dimensions ? (uint64_t)dimensions - 1 : 0) : 0;
}

static uint64_t scales_of(momos_file *f, const char *entry) {
    const char *scales = member(entry, "scales");
    return scales ? integer(f, scales, 1, MOST) : 1;
}

/* Checks one tensor's entry; adds what it takes in memory and, of blocks, in the file. */
static void check_entry(momos_file *f, const char *p, const char *bank, uint64_t *memory) {
    uint64_t shape[MOMOS_MOST_DIMENSIONS];
    int dimensions;
    const char *more;
    need(f, *p == '{', "a tensor must be an object");
    text(f, member(p, "name"));
    need(f, named(f, member(p, "name")) == p, "names must differ");
    const int kind = kind_of(f, p);
    if ((more = member(p, "persistent")))
        need(f, *more == 't' || *more == 'f', "persistent must be true or false");
    if (kind == 's') {
        text(f, member(p, "as"));
        const char *other = named(f, member(p, "as"));
        need(f, other && kind_of(f, object(f, other)) != 's', "a tensor must be the same as a stored one");
        return;
    }
    if ((more = member(p, "why"))) text(f, more);
    const int type = type_of(f, member(p, "dtype"));
    const uint64_t count = num_values(f, p, shape, &dimensions);
    uint64_t padded = count;
    if (kind == 'b') {
        const uint64_t size = f->block_size;
        need(f, bank && is_float(type) && count, "blocks must be of a floating dtype, and have motifs");
        if ((more = member(p, "distortion")))
            need(f, (digit(*more) || *more == '-') && strtod(more, NULL) >= 0 &&
                        isfinite(strtod(more, NULL)),
                 "distortion must be a number of at least 0");
        const int axis = axis_of(f, p, dimensions);
        const uint64_t scales = scales_of(f, p);
        need(f, scales == 1 || (axis < dimensions && scales == shape[axis]),
             "scales must be one, or one for each output channel");
        if (member(bank, "scales")) f->num_scales = plus(f, f->num_scales, scales);
        else need(f, !member(p, "scales"), "a tensor must have no scales where there are none");
        const uint64_t blocks = (count - 1) / size + 1;
        f->length[MOSAIC] = plus(f, f->length[MOSAIC], total(f, member(p, "streams"), blocks, 0));
        padded = times(f, blocks, size);
    }
    *memory = plus(f, *memory, times(f, padded, (uint64_t)TYPES[type].size));
}

/* Values of all dense tensors of a type; and of those before one, if it is among them. */
static uint64_t of_type(momos_file *f, int type, const char *before) {
    uint64_t sum = 0;
    for (const char *p = entries(f); p && p != before; p = next(p))
        if (kind_of(f, p) == 'd' && type_of(f, member(p, "dtype")) == type)
            sum = plus(f, sum, num_values(f, p, NULL, NULL));
    return sum;
}

static void check_dense(momos_file *f) {
    const char *pool = first(list(f, member(f->json, "dense"))), *why =
        "dense must have one item for each dtype of dense tensors, in order";
    for (const char *p = entries(f); p; p = next(p)) {
        if (kind_of(f, p) != 'd') continue;
        const int type = type_of(f, member(p, "dtype"));
        int known = 0;
        for (const char *q = entries(f); q != p && !known; q = next(q))
            known = kind_of(f, q) == 'd' && type_of(f, member(q, "dtype")) == type;
        if (known) continue;
        need(f, pool && is(member(object(f, pool), "dtype"), TYPES[type].name), why);
        const uint64_t size = total(f, member(pool, "packs"), of_type(f, type, NULL), TYPES[type].size);
        f->length[DENSE] = plus(f, f->length[DENSE], size);
        pool = next(pool);
    }
    need(f, !pool, why);
}

/* Checks the whole manifest; returns what everything in the file takes in memory. */
static uint64_t check_manifest(momos_file *f) {
    const char *p, *bank = member(object(f, f->json), "motifs");
    uint64_t memory = 0;
    text(f, member(f->json, "producer"));
    if ((p = member(f->json, "config"))) object(f, p);
    if ((p = member(f->json, "metadata")))
        for (p = first(object(f, p)); p; p = next_key(p)) text(f, value_of(p));
    text(f, p = member(f->json, "sha256"));
    for (int i = 1; i < 65; ++i)
        need(f, digit(p[i]) || (p[i] >= 'a' && p[i] <= 'f'), "sha256 must be 64 hexadecimal digits");
    need(f, p[65] == '"', "sha256 must be 64 hexadecimal digits");
    if (bank) {
        object(f, bank);
        f->block_size = integer(f, member(bank, "block_size"), 1, MOST);
        f->num_motifs = integer(f, member(bank, "num_motifs"), 1, 1 << 28);
        f->motif_type = type_of(f, member(bank, "dtype"));
        const int size = TYPES[f->motif_type].size;
        need(f, is_float(f->motif_type) || (TYPES[f->motif_type].type == INT8 && member(bank, "scales")),
             "motifs must be floating, or int8 with scales");
        const uint64_t each = times(f, f->block_size, (uint64_t)size);
        memory = times(f, f->num_motifs, plus(f, each, 8));
        const char *order = newer(f, bank, "order"), *states = newer(f, bank, "states");
        const uint64_t count = times(f, f->num_motifs, f->block_size);
        if (order) need(f, is(order, "whole") && f->block_size == 1, "order must be whole, of single weights");
        f->length[MOTIFS] = total(f, member(bank, "packs"), count, order ? 4 : size);
        if (states) {
            f->states = (int)integer(f, states, 1, 256);
            need(f, f->states == 1 || f->states == 8 || f->states == 16 || f->states == 32 ||
                        f->states == 64 || f->states == 256,
                 "states must be 1, 8, 16, 32, 64 or 256");
            need(f, f->block_size == 1 && !member(bank, "usage"), "blocks by value must be single weights, without usage");
        }
        if ((p = member(bank, "usage"))) {
            integer(f, member(object(f, p), "significant"), 1, 6);
            f->length[USAGE] = total(f, member(p, "streams"), f->num_motifs, 0);
        }
    }
    int blocks = 0;
    for (p = entries(f); p; p = next(p)) need(f, *p == '{', "a tensor must be an object");
    for (p = entries(f); p; p = next(p)) text(f, member(p, "name"));
    for (p = entries(f); p; p = next(p)) {
        check_entry(f, p, bank, &memory);
        blocks |= kind_of(f, p) == 'b';
    }
    need(f, !bank == !blocks, "there must be motifs where there are blocks, and nowhere else");
    if (bank && (p = member(bank, "scales"))) {
        f->length[MOTIFS] = plus(f, f->length[MOTIFS], total(f, p, f->num_scales, 4));
        memory = plus(f, memory, times(f, 4, f->num_scales));
    }
    check_dense(f);
    return memory;
}

/* Outside (section 1) */

static const uint8_t *literal(momos_file *f, const uint8_t *p, const char *words) {
    for (; *words; ++words, ++p)
        need(f, p < f->data + f->size && *p == (uint8_t)*words, "the header must be the format's");
    return p;
}

static const uint8_t *decimal(momos_file *f, const uint8_t *p, uint64_t *value) {
    const uint8_t *begin_ = p, *stop = f->data + f->size;
    *value = 0;
    for (; p < stop && digit((char)*p); ++p) {
        need(f, *value < MOST / 10, "the header must be the format's");
        *value = 10 * *value + (uint64_t)(*p - '0');
    }
    need(f, p > begin_ && (*begin_ != '0' || p == begin_ + 1), "the header must be the format's");
    return p;
}

static void padding(momos_file *f, const uint8_t *p, const uint8_t *stop) {
    need(f, p <= stop, "the header must fit its length");
    for (; p < stop; ++p) need(f, *p == ' ', "the header must be padded with spaces");
}

/* Version 1: the header has all lengths. Returns their checksums. */
static void header_1(momos_file *f, const uint8_t *rest, uint32_t *sums, uint64_t *lengths) {
    static const char *const names[] = {"motifs", "usage", "mosaic", "dense", "manifest"};
    uint64_t at = 0, value;
    const uint8_t *p = literal(f, f->data + 8, "{\"__metadata__\":{\"momos\":\"{\\\"version\\\":1,\\\"crc32\\\":{");
    for (int i = 0; i < 5; ++i) {
        p = literal(f, literal(f, literal(f, p, i ? ",\\\"" : "\\\""), names[i]), "\\\":");
        p = decimal(f, p, &value);
        need(f, value <= 0xFFFFFFFF, "the header must be the format's");
        sums[i] = (uint32_t)value;
    }
    p = literal(f, p, "}}\"}");
    for (int i = 0; i < 5; ++i) {
        p = literal(f, literal(f, literal(f, p, ",\""), names[i]), "\":{\"dtype\":\"U8\",\"shape\":[");
        p = literal(f, decimal(f, p, &lengths[i]), "],\"data_offsets\":[");
        p = literal(f, decimal(f, p, &value), ",");
        need(f, value == at, "sections must have no gaps");
        p = literal(f, decimal(f, p, &value), "]}");
        at = plus(f, at, lengths[i]);
        need(f, value == at, "sections must have no gaps");
    }
    padding(f, literal(f, p, "}"), rest);
    need(f, at == (uint64_t)(f->data + f->size - rest), "sections must fill the file");
}

static void header_2(momos_file *f, const uint8_t *rest, uint32_t *sums, uint64_t *length) {
    const uint64_t size = (uint64_t)(f->data + f->size - rest);
    uint64_t value;
    const uint8_t *p = literal(f, f->data + 8, "{\"__metadata__\":{\"momos\":\"2\"},\"momos\":{\"dtype\":\"U8\",\"shape\":[");
    p = literal(f, decimal(f, p, &value), "],\"data_offsets\":[0,");
    need(f, value == size, "the header must have the file's length");
    p = literal(f, decimal(f, p, &value), "]}}");
    need(f, value == size, "the header must have the file's length");
    padding(f, p, rest);
    need(f, size >= 24, "the file must have a trailer");
    for (int i = 0; i < 5; ++i) sums[i] = (uint32_t)word(f->data + f->size - 24 + 4 * i, 4);
    *length = word(f->data + f->size - 4, 4);
    need(f, *length <= size - 24, "the manifest must be in the file");
}

static void open_manifest(momos_file *f, const uint8_t *data, uint64_t length) {
    need(f, length <= (uint64_t)1 << 27, "the manifest must have at most 2**27 bytes");
    if (f->left < WINDOW + 8) take(f, WINDOW + 8, 1);
    inflater z = {0};
    z.f = f;
    z.out = f->room;
    z.window = f->room + f->left - WINDOW;
    z.last = f->left - WINDOW - 1;
    z.most = 64 * length > 65536 ? 64 * length : 65536;
    z.stride = 1;
    const uint64_t size = inflate(&z, data, length, f->version > 1);
    f->json = take(f, size + 1 + WINDOW, 1); /* else the buffer is too small, and not all was kept */
    f->room -= WINDOW;
    f->left += WINDOW;
    need(f, !memchr(f->json, 0, size), "the manifest must be JSON");
    f->json[size] = 0;
    const char *start = space(f->json);
    need(f, space(check(f, start, 0)) == f->json + size, "the manifest must be JSON");
    f->json += start - f->json;
}

/* Motifs, scales and usage */

static void put_usage(void *to, uint64_t number, uint32_t symbol) { ((uint64_t *)to)[number] = symbol; }

static const char *bank_of(momos_file *f) { return member(f->json, "motifs"); }

static void sink(int32_t *heap, uint64_t root, uint64_t size) {
    for (uint64_t child; (child = 2 * root + 1) < size; root = child) {
        if (child + 1 < size && heap[child + 1] > heap[child]) ++child;
        if (heap[root] >= heap[child]) return;
        const int32_t held = heap[root];
        heap[root] = heap[child];
        heap[child] = held;
    }
}

/* The motifs as whole numbers, which must differ, sorted. */
static void sort_motifs(momos_file *f) {
    const uint64_t k = f->num_motifs;
    const int size = TYPES[f->motif_type].size;
    f->sorted = take(f, k, 4);
    for (uint64_t j = 0; j < k; ++j) {
        const double value = number(f->motifs + j * (uint64_t)size, f->motif_type);
        need(f, fabs(value) < 1073741824 && value == floor(value) && !(value == 0 && signbit(value)),
             "motifs must be whole numbers below 2**30 where blocks are coded by value");
        f->sorted[j] = (int32_t)value;
    }
    for (uint64_t j = k / 2; j-- > 0;) sink(f->sorted, j, k);
    for (uint64_t j = k; j-- > 1;) {
        const int32_t held = f->sorted[0];
        f->sorted[0] = f->sorted[j];
        f->sorted[j] = held;
        sink(f->sorted, 0, j);
    }
    for (uint64_t j = 1; j < k; ++j) need(f, f->sorted[j] != f->sorted[j - 1], "motifs must differ where blocks are coded by value");
}

static void open_bank(momos_file *f) {
    const char *bank = bank_of(f), *packs = member(bank, "packs"), *more;
    const uint64_t count = f->num_motifs * f->block_size;
    const int size = TYPES[f->motif_type].size, ordered = newer(f, bank, "order") != NULL;
    f->motifs = take(f, count, (size_t)size);
    const uint8_t *at = f->section[MOTIFS];
    if (ordered) {
        uint8_t *const room = f->room;
        const size_t left = f->left;
        uint8_t *places = take(f, count, 4);
        int64_t place = -1;
        at = unpack(f, packs, at, count, 4, 0, count, places);
        for (uint64_t j = 0; j < count; ++j) {
            place += 1 + (int64_t)word(places + 4 * j, 4);
            const int64_t value = place % 2 ? -(place + 1) / 2 : place / 2;
            uint8_t *own = f->motifs + j * (uint64_t)size;
            need(f, value < (1 << 30) && value > -(1 << 30) &&
                        (TYPES[f->motif_type].type != INT8 || (value > -129 && value < 128)),
                 "motifs must be numbers that their dtype holds");
            store((double)value, f->motif_type, own);
            need(f, number(own, f->motif_type) == (double)value,
                 "motifs must be numbers that their dtype holds");
        }
        f->room = room;
        f->left = left;
    } else {
        at = unpack(f, packs, at, count, size, 0, count, f->motifs);
    }
    for (uint64_t j = 0; j < count; ++j)
        need(f, isfinite(number(f->motifs + j * (uint64_t)size, f->motif_type)), "motifs must be finite");
    if ((more = member(bank, "scales"))) {
        f->scales = take(f, f->num_scales, 4);
        unpack(f, more, at, f->num_scales, 4, 0, f->num_scales, (uint8_t *)f->scales);
        for (uint64_t j = 0; j < f->num_scales; ++j)
            need(f, isfinite(f->scales[j]) && f->scales[j] > 0, "scales must be finite and above 0");
    }
    if (f->states) {
        sort_motifs(f);
        return;
    }
    const uint64_t k = f->num_motifs;
    f->usage = take(f, k, 8);
    for (uint64_t j = 0; j < k; ++j) f->usage[j] = 1;
    const char *usage = member(bank, "usage");
    if (!usage) return;
    const int t = (int)integer(f, member(usage, "significant"), 1, 6);
    uint8_t *const room = f->room;
    const size_t left = f->left;
    table symbols = new_table(f, 48 * ((uint64_t)1 << (t - 1)) + 1);
    uint64_t done = 0, rate, sum = 0;
    at = f->section[USAGE];
    for (const char *p = first(member(usage, "streams")); p; p = next(p)) {
        const uint64_t n = piece(k, done), bytes = coded(f, p, n, 31, &rate);
        for (uint32_t j = 0; j < symbols.size; ++j) symbols.weights[j] = 1;
        decode(f, at, bytes, n, &symbols, rate, put_usage, f->usage + done);
        at += bytes;
        done += n;
    }
    for (uint64_t j = 0; j < k; ++j) {
        const uint64_t symbol = f->usage[j], q = symbol - 1, unit = (uint64_t)1 << (t - 1);
        if (!symbol) continue;
        const uint64_t scaled = (unit + q % unit) << (q >> (t - 1));
        need(f, scaled % unit == 0, "a usage must be a whole number");
        f->usage[j] = scaled / unit;
        sum += f->usage[j];
        need(f, sum < (uint64_t)1 << 56, "usages must be below 2**56 together");
    }
    need(f, sum > 0, "a motif must be used");
    f->room = room;
    f->left = left;
}

/* Reading blocks */

typedef struct {
    momos_file *f;
    const momos_tensor *tensor;
    uint8_t *values;
    const float *scales;
    uint64_t num_scales, inner, first; /* inner: weights of one index of the channels' dimension */
    uint64_t row, channels;
} target;

static void put_weight(const target *t, uint64_t at, double value) {
    const int type = t->tensor->type;
    if (t->scales) {
        const float scale = t->scales[at / t->inner % t->num_scales];
        if (TYPES[type].type == F64) value *= scale;
        else value = (float)((double)(float)value * scale);
    }
    store(value, type, t->values + at * (uint64_t)TYPES[type].size);
}

static void put_block(void *to, uint64_t index, uint32_t symbol) {
    const target *t = to;
    const momos_file *f = t->f;
    const uint64_t size = f->block_size;
    const int bytes = TYPES[f->motif_type].size;
    for (uint64_t i = 0, at = (t->first + index) * size; i < size && at < t->tensor->num_weights; ++i, ++at)
        put_weight(t, at, number(f->motifs + (symbol * size + i) * (uint64_t)bytes, f->motif_type));
}

static void put_value(void *to, uint64_t index, int64_t value) {
    const target *t = to;
    uint64_t low = 0, high = t->f->num_motifs;
    while (high - low > 1) {
        const uint64_t middle = low + (high - low) / 2;
        if (t->f->sorted[middle] <= value) low = middle;
        else high = middle;
    }
    need(t->f, t->f->sorted[low] == value, "a value must be a motif");
    const uint64_t channel = index / t->row, rest = index % t->row;
    const uint64_t at = (rest / t->inner * t->channels + channel) * t->inner + rest % t->inner;
    put_weight(t, at, (double)value);
}

static void read_blocks(momos_file *f, const momos_tensor *tensor, uint8_t *values) {
    const uint8_t *at = f->section[MOSAIC];
    uint64_t scales = 0, rate, shape[MOMOS_MOST_DIMENSIONS];
    for (const char *p = entries(f); p != tensor->own; p = next(p))
        if (kind_of(f, p) == 'b') {
            const uint64_t count = num_values(f, p, NULL, NULL);
            at += total(f, member(p, "streams"), (count - 1) / f->block_size + 1, 0);
            scales += scales_of(f, p);
        }
    int dimensions, axis = tensor->axis;
    num_values(f, tensor->own, shape, &dimensions);
    target t = {f, tensor, values, f->scales ? f->scales + scales : NULL, scales_of(f, tensor->own), 1, 0, 0, 1};
    uint64_t kernel = 1;
    for (int i = axis + 1; i < dimensions; ++i) t.inner *= shape[i];
    if (dimensions) t.channels = shape[axis];
    t.row = tensor->num_weights / t.channels;
    for (int i = 0, place = 0; i < dimensions; ++i)
        if (i != axis && place++) kernel *= shape[i]; /* all but the first of the others */
    const uint64_t blocks = (tensor->num_weights - 1) / f->block_size + 1;
    for (const char *p = first(member(tensor->own, "streams")); p; p = next(p)) {
        uint8_t *const room = f->room;
        const size_t left = f->left;
        const uint64_t n = piece(blocks, t.first), bytes = coded(f, p, n, 31, &rate);
        if (f->states) {
            need(f, !rate, "streams of values must have the rate 0");
            decode_values(f, at, bytes, n, t.first, t.row, kernel, put_value, &t);
        } else {
            table own = new_table(f, f->num_motifs);
            memcpy(own.weights, f->usage, (size_t)f->num_motifs * 8);
            decode(f, at, bytes, n, &own, rate, put_block, &t);
        }
        t.first += n;
        at += bytes;
        f->room = room;
        f->left = left;
    }
}

static void read_dense(momos_file *f, const momos_tensor *tensor, uint8_t *values) {
    const uint8_t *at = f->section[DENSE];
    const int size = TYPES[tensor->type].size;
    const char *pool = first(member(f->json, "dense"));
    for (; !is(member(pool, "dtype"), TYPES[tensor->type].name); pool = next(pool)) {
        const int other = type_of(f, member(pool, "dtype"));
        at += total(f, member(pool, "packs"), of_type(f, other, NULL), TYPES[other].size);
    }
    const uint64_t begin_ = of_type(f, tensor->type, tensor->own);
    unpack(f, member(pool, "packs"), at, of_type(f, tensor->type, NULL), size, begin_,
           begin_ + tensor->num_weights, values);
    if (TYPES[tensor->type].type == BOOL)
        for (uint64_t i = 0; i < tensor->num_weights; ++i)
            need(f, values[i] < 2, "a bool must be 0 or 1");
}

/* SHA-256 (FIPS 180-4) */

typedef struct {
    uint32_t state[8];
    uint8_t block[64];
    uint64_t count;
} sha;

static uint32_t turned(uint32_t x, int n) { return x >> n | x << (32 - n); }

static const uint32_t CUBES[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static const uint32_t SQUARES[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static void sha_block(sha *s) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; ++i)
        w[i] = (uint32_t)s->block[4 * i] << 24 | (uint32_t)s->block[4 * i + 1] << 16 |
               (uint32_t)s->block[4 * i + 2] << 8 | s->block[4 * i + 3];
    for (int i = 16; i < 64; ++i)
        w[i] = w[i - 16] + (turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
               (turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, s->state, sizeof v);
    for (int i = 0; i < 64; ++i) {
        const uint32_t one = v[7] + (turned(v[4], 6) ^ turned(v[4], 11) ^ turned(v[4], 25)) +
                             ((v[4] & v[5]) ^ (~v[4] & v[6])) + CUBES[i] + w[i];
        const uint32_t two = (turned(v[0], 2) ^ turned(v[0], 13) ^ turned(v[0], 22)) +
                             ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += one;
        v[0] = one + two;
    }
    for (int i = 0; i < 8; ++i) s->state[i] += v[i];
}

static void sha_add(sha *s, const uint8_t *data, uint64_t size) {
    for (uint64_t i = 0; i < size; ++i) {
        s->block[s->count++ % 64] = data[i];
        if (s->count % 64 == 0) sha_block(s);
    }
}

static void sha_end(sha *s) {
    const uint64_t bits = 8 * s->count;
    uint8_t byte = 0x80, zero = 0;
    sha_add(s, &byte, 1);
    while (s->count % 64 != 56) sha_add(s, &zero, 1);
    for (int i = 7; i >= 0; --i) {
        byte = (uint8_t)(bits >> 8 * i);
        sha_add(s, &byte, 1);
    }
}

/* The functions of momos.h */

/* Begins a call that may fail: everything that is taken meanwhile is given back. */
#define PROTECTED(f)                                 \
    uint8_t *volatile kept_room = (f)->room;         \
    volatile size_t kept_left = (f)->left;           \
    (f)->error = NULL;                               \
    const int why = setjmp((f)->escape);             \
    if (why) {                                       \
        (f)->room = kept_room;                       \
        (f)->left = kept_left;                       \
        return why;                                  \
    }

int momos_open(momos_file *f, const void *data, size_t size, void *room, size_t room_size) {
    memset(f, 0, sizeof *f);
    f->data = data;
    f->size = size;
    f->room = room;
    f->left = room_size;
    PROTECTED(f)
    uint32_t sums[5];
    uint64_t lengths[5] = {0};
    need(f, size >= 8, "the file must have a header");
    const uint64_t header = word(f->data, 8);
    need(f, header >= 104 && header % 8 == 0 && header <= size - 8, "the header must fit the file");
    static const char two[] = "{\"__metadata__\":{\"momos\":\"2\"},";
    f->version = memcmp(f->data + 8, two, sizeof two - 1) ? 1 : 2;
    const uint64_t least = f->version == 1 ? 640 : 104;
    need(f, header >= least, "the header must be longer");
    const uint8_t *rest = f->data + 8 + header;
    const uint8_t *manifest;
    if (f->version == 1) {
        header_1(f, rest, sums, lengths);
        manifest = f->data + size - lengths[MANIFEST];
    } else {
        header_2(f, rest, sums, &lengths[MANIFEST]);
        manifest = f->data + size - 24 - lengths[MANIFEST];
    }
    need(f, crc32(manifest, lengths[MANIFEST]) == sums[MANIFEST], "the manifest must have its checksum");
    open_manifest(f, manifest, lengths[MANIFEST]);
    const uint64_t memory = check_manifest(f);
    const uint64_t pages = 8 * ((memory + 8 * 65536 - 1) / (8 * 65536));
    need(f, header == (pages > least ? pages : least), "the header must be as long as its content asks");
    f->length[MANIFEST] = lengths[MANIFEST];
    for (int i = 0; i < 5; ++i) {
        const uint64_t left = (uint64_t)(f->data + size - rest);
        need(f, f->length[i] <= left, "sections must be in the file");
        if (f->version == 1) need(f, f->length[i] == lengths[i], "sections must be as long as their parts");
        f->section[i] = rest;
        rest += f->length[i];
    }
    need(f, rest == f->data + size - (f->version == 1 ? 0 : 24), "sections must fill the file");
    for (int i = 0; i < 5; ++i)
        need(f, crc32(f->section[i], f->length[i]) == sums[i], "a section must have its checksum");
    if (bank_of(f)) open_bank(f);
    return MOMOS_OK;
}

static void describe(momos_file *f, const char *entry, momos_tensor *tensor) {
    const char *persistent = member(entry, "persistent");
    memset(tensor, 0, sizeof *tensor);
    tensor->entry = tensor->own = entry;
    if (kind_of(f, entry) == 's') tensor->own = named(f, member(entry, "as"));
    tensor->name = member(entry, "name") + 1;
    tensor->name_size = (size_t)(skip(tensor->name - 1) - tensor->name) - 1;
    tensor->persistent = !persistent || *persistent == 't';
    tensor->type = type_of(f, member(tensor->own, "dtype"));
    tensor->dtype = TYPES[tensor->type].name;
    tensor->num_weights = num_values(f, tensor->own, tensor->shape, &tensor->num_dimensions);
    tensor->num_bytes = times(f, tensor->num_weights, (uint64_t)TYPES[tensor->type].size);
    tensor->axis = axis_of(f, tensor->own, tensor->num_dimensions);
}

int momos_at(momos_file *f, const size_t number_, momos_tensor *tensor) {
    PROTECTED(f)
    const char *p = entries(f);
    for (size_t i = 0; p && i < number_; ++i) p = next(p);
    if (!p) {
        f->error = "the file has fewer tensors";
        return MOMOS_ABSENT;
    }
    describe(f, p, tensor);
    return MOMOS_OK;
}

int momos_find(momos_file *f, const char *name, momos_tensor *tensor) {
    PROTECTED(f)
    for (const char *p = entries(f); p; p = next(p)) {
        const char *own = member(p, "name") + 1;
        const uint8_t *wanted = (const uint8_t *)name;
        int32_t c;
        while ((c = character(&own)) >= 0) { /* as UTF-8 */
            uint8_t bytes[4] = {(uint8_t)c};
            int count = 1;
            if (c > 0x7F) {
                count = c > 0xFFFF ? 4 : c > 0x7FF ? 3 : 2;
                for (int i = count - 1; i > 0; --i, c >>= 6) bytes[i] = (uint8_t)(0x80 | (c & 63));
                bytes[0] = (uint8_t)(c | (0xF00 >> count));
            }
            if (strncmp((const char *)wanted, (const char *)bytes, (size_t)count) || !*wanted) break;
            wanted += count;
        }
        if (c == -1 && !*wanted) {
            describe(f, p, tensor);
            return MOMOS_OK;
        }
    }
    f->error = "the file must have a tensor of that name";
    return MOMOS_ABSENT;
}

static void read(momos_file *f, const momos_tensor *tensor, void *values, size_t size) {
    if (tensor->num_bytes > size) {
        f->error = "the room for values must be larger";
        longjmp(f->escape, MOMOS_MORE_ROOM);
    }
    if (kind_of(f, tensor->own) == 'b') read_blocks(f, tensor, values);
    else read_dense(f, tensor, values);
}

int momos_read(momos_file *f, const momos_tensor *tensor, void *values, size_t size) {
    PROTECTED(f)
    read(f, tensor, values, size);
    f->room = kept_room;
    f->left = kept_left;
    return MOMOS_OK;
}

int momos_verify(momos_file *f, void *values, size_t size) {
    PROTECTED(f)
    sha digest = {{0}, {0}, 0};
    momos_tensor tensor;
    memcpy(digest.state, SQUARES, sizeof SQUARES);
    for (const char *p = entries(f); p; p = next(p)) {
        if (kind_of(f, p) == 's') continue;
        describe(f, p, &tensor);
        read(f, &tensor, values, size);
        f->room = kept_room;
        f->left = kept_left;
        sha_add(&digest, values, tensor.num_bytes);
    }
    sha_end(&digest);
    const char *wanted = member(f->json, "sha256") + 1;
    for (int i = 0; i < 64; ++i)
        need(f, wanted[i] == "0123456789abcdef"[digest.state[i / 8] >> (28 - 4 * (i % 8)) & 15],
             "all values must have the checksum of the manifest");
    return MOMOS_OK;
}
