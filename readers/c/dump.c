/* Reads the .momos files whose paths are on standard input, one a line, and says of each whether it is
 * whole. With the argument -v every tensor follows: name, dtype, shape and bytes. */
#include "momos.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char *contents(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) exit(3);
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *data = malloc(*size ? *size : 1);
    if (!data || fread(data, 1, *size, file) != *size) exit(3);
    fclose(file);
    return data;
}

static int verbose(momos_file *file, unsigned char *values, size_t most) {
    momos_tensor tensor;
    for (size_t i = 0; momos_at(file, i, &tensor) == MOMOS_OK; ++i) {
        if (momos_read(file, &tensor, values, most) != MOMOS_OK) return 0;
        printf("\"%.*s\"\t%s\t[", (int)tensor.name_size, tensor.name, tensor.dtype);
        for (int d = 0; d < tensor.num_dimensions; ++d)
            printf(d ? ",%llu" : "%llu", (unsigned long long)tensor.shape[d]);
        printf("]\t");
        for (size_t b = 0; b < tensor.num_bytes; ++b) printf("%02x", values[b]);
        printf("\n");
    }
    return 1;
}

int main(int count, char **arguments) {
    static char path[4096];
    const size_t most = (size_t)1 << 22, values_size = (size_t)1 << 26;
    unsigned char *room = malloc(most), *values = malloc(values_size);
    while (room && values && fgets(path, sizeof path, stdin)) {
        momos_file file;
        size_t size;
        path[strcspn(path, "\n")] = 0;
        unsigned char *data = contents(path, &size);
        int result = momos_open(&file, data, size, room, most);
        if (result == MOMOS_OK) result = momos_verify(&file, values, values_size);
        if (result == MOMOS_OK) printf("ok\n");
        else printf("%s: %s\n", result == MOMOS_MORE_ROOM ? "room" : "refused", file.error);
        if (result == MOMOS_OK && count > 1 && !strcmp(arguments[1], "-v")) {
            if (!verbose(&file, values, values_size)) return 1;
            printf("\n");
        }
        free(data);
    }
    free(room);
    free(values);
    return 0;
}
