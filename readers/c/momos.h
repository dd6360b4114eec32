/* Reads .momos files, versions 1 and 2 (docs/format.md), tensor by tensor, in C99.
 *
 * The file is bytes in memory: mapped, or in flash. Nothing is allocated: all that is needed lies in
 * one buffer of the caller's. Every rule of the format is checked, and nothing outside the file and the
 * buffers is touched, whatever the file is. Integers and IEEE 754 floats are assumed little-endian.
 *
 *     static uint8_t room[65536];
 *     momos_file file;
 *     momos_tensor tensor;
 *     if (momos_open(&file, data, size, room, sizeof room) != MOMOS_OK) fail(file.error);
 *     if (momos_find(&file, "conv1.weight", &tensor) != MOMOS_OK) fail(file.error);
 *     if (momos_read(&file, &tensor, weights, sizeof weights) != MOMOS_OK) fail(file.error);
 */
#ifndef MOMOS_H
#define MOMOS_H
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

enum { MOMOS_OK = 0, MOMOS_REFUSED = 1, MOMOS_MORE_ROOM = 2, MOMOS_ABSENT = 3 };
enum { MOMOS_MOST_DIMENSIONS = 64 };

typedef struct {
    const uint8_t *data; /* the whole file */
    size_t size;
    const char *error; /* why the last call failed; otherwise null */
    /* The rest is private. */
    jmp_buf escape;
    uint8_t *room; /* free room of the buffer */
    size_t left;
    int version;
    char *json; /* the manifest; ends with a 0 */
    const uint8_t *section[5];
    uint64_t length[5];
    uint64_t block_size, num_motifs, num_scales;
    int motif_type, states;
    uint8_t *motifs;   /* values, as the file holds them */
    uint64_t *usage;   /* of each motif; null where blocks are coded by value */
    int32_t *sorted;   /* then: the motifs in ascending order */
    float *scales;     /* null if there are none */
} momos_file;

typedef struct {
    const char *name; /* as JSON has it: escaped, and ends with a quotation mark */
    size_t name_size; /* without the quotation mark */
    const char *dtype; /* "float32" and so on */
    int num_dimensions;
    uint64_t shape[MOMOS_MOST_DIMENSIONS];
    uint64_t num_bytes;
    int persistent;
    /* The rest is private. */
    const char *entry, *own;
    int type, axis;
    uint64_t num_weights;
} momos_tensor;

/* Checks everything but the weights, and decodes the motifs. `room` must stay as long as `file` is used;
 * MOMOS_MORE_ROOM says that it is too small. */
int momos_open(momos_file *file, const void *data, size_t size, void *room, size_t room_size);

/* Tensor number `number`; MOMOS_ABSENT after the last. */
int momos_at(momos_file *file, size_t number, momos_tensor *tensor);

/* The tensor of a name; MOMOS_ABSENT if there is none. */
int momos_find(momos_file *file, const char *name, momos_tensor *tensor);

/* Decodes a tensor, row-major and little-endian, into `values` of at least `tensor->num_bytes` bytes. */
int momos_read(momos_file *file, const momos_tensor *tensor, void *values, size_t size);

/* Decodes every tensor into `values`, of at least the bytes of the largest, and compares the checksum
 * of all. */
int momos_verify(momos_file *file, void *values, size_t size);

#endif
