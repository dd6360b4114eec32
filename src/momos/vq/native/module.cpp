// The Python binding: build(kind, motifs, num_motifs, block_size, is_double, num_blocks that are
// expected) -> engine and
// query(engine, blocks, indices, num_threads) -> how many blocks were not finite; add, the sums
// that k-means needs; gather and sum_by_motif, which training needs.
// Buffers are checked against the counts before anything reads them; the interpreter lock is
// released while an engine works. Compiled once per instruction set, each time as a module of
// its own (setup.py), so that no shared inline function is of the wrong set.
#include "../../native/binding.hpp"

#include "cells.hpp"
#include "flat.hpp"
#include "grid.hpp"
#include "sums.hpp"

#define QUOTED(name) #name
#define NAME_OF(name) QUOTED(name)
#define INIT_OF(name) PyInit_##name
#define INIT(name) INIT_OF(name)

namespace {

using momos::Buffer;
using momos::unlocked;

constexpr const char* kEngineName = "momos.vq.nearest.engine";

struct Built {
    std::unique_ptr<momos::Engine> engine;
    Py_ssize_t bytes_per_block;
};

std::unique_ptr<momos::Engine> make(const std::string& kind, const momos::Motifs& motifs,
                                    int64_t num_blocks) {
    if (kind == "grid") {
        if (motifs.is_double) return std::make_unique<momos::Grid<double>>(motifs);
        return std::make_unique<momos::Grid<float>>(motifs);
    }
    if (kind == "cells") {
        if (motifs.is_double) return std::make_unique<momos::Cells<double>>(motifs, num_blocks);
        return std::make_unique<momos::Cells<float>>(motifs, num_blocks);
    }
    if (kind != "flat")
        throw std::invalid_argument("kind must be cells, grid or flat, got " + kind);
    return motifs.is_double ? momos::make_flat<double>(motifs) : momos::make_flat<float>(motifs);
}

bool expect(const Buffer& buffer, Py_ssize_t bytes, const char* name) {
    if (buffer.view.len == bytes) return true;
    PyErr_Format(PyExc_ValueError, "%s must have %zd bytes, got %zd", name, bytes,
                 buffer.view.len);
    return false;
}

PyObject* build(PyObject*, PyObject* args) {
    const char* kind;
    Buffer values;
    Py_ssize_t num_motifs, num_blocks = 0;
    int block_size, is_double;
    if (!PyArg_ParseTuple(args, "sy*nip|n", &kind, &values.view, &num_motifs, &block_size,
                          &is_double, &num_blocks))
        return nullptr;
    if (num_motifs < 1 || num_motifs > INT32_MAX || block_size < 1 ||
        (std::string(kind) == "grid" && block_size > 2) ||
        (std::string(kind) == "cells" && (block_size < 2 || block_size > 3))) {
        PyErr_SetString(PyExc_ValueError, "num_motifs or block_size out of range");
        return nullptr;
    }
    const Py_ssize_t bytes = block_size * (is_double ? 8 : 4);
    if (!expect(values, num_motifs * bytes, "motifs")) return nullptr;
    // cells: the last value of a block is 0, and not given
    const bool short_blocks = std::string(kind) == "cells";
    const Py_ssize_t given = bytes - (short_blocks ? bytes / block_size : 0);
    auto* built = new (std::nothrow) Built{nullptr, given};
    if (!built) return PyErr_NoMemory();
    const momos::Motifs motifs{values.view.buf, num_motifs, block_size, is_double != 0};
    if (!unlocked([&] { built->engine = make(kind, motifs, num_blocks); })) {
        delete built;
        return nullptr;
    }
    return PyCapsule_New(built, kEngineName, [](PyObject* capsule) {
        delete static_cast<Built*>(PyCapsule_GetPointer(capsule, kEngineName));
    });
}

PyObject* query(PyObject*, PyObject* args) {
    PyObject* capsule;
    Buffer blocks, indices;
    int num_threads;
    if (!PyArg_ParseTuple(args, "Oy*w*i", &capsule, &blocks.view, &indices.view, &num_threads))
        return nullptr;
    auto* built = static_cast<Built*>(PyCapsule_GetPointer(capsule, kEngineName));
    if (!built) return nullptr;
    const Py_ssize_t count = blocks.view.len / built->bytes_per_block;
    if (!expect(blocks, count * built->bytes_per_block, "blocks")) return nullptr;
    if (!expect(indices, count * 4, "indices")) return nullptr;
    int64_t not_finite = 0;
    if (!unlocked([&] {
            not_finite = built->engine->query(blocks.view.buf, count,
                                              static_cast<int32_t*>(indices.view.buf), num_threads);
        }))
        return nullptr;
    return PyLong_FromLongLong(not_finite);
}

// For each block of motif j: counts[j] += 1, and the two terms of block - motif j, by which sums
// are exact in any order (vq/exact.py), are added to the two tables of sums. False at a wrong index.
template <class T>
bool add_differences(const T* blocks, const int32_t* indices, int64_t num_blocks, const T* motifs,
                     int64_t num_motifs, int64_t size, double coarse, double fine, double* sums,
                     double* counts) {
    double* rest = sums + num_motifs * size;
    for (int64_t b = 0; b < num_blocks; ++b) {
        const int64_t j = indices[b];
        if (j < 0 || j >= num_motifs) return false;
        counts[j] += 1;
        for (int64_t i = 0; i < size; ++i) {
            const int64_t at = j * size + i;
            const double value = double(blocks[b * size + i]) - double(motifs[at]);
            const double high = (value + coarse) - coarse;
            sums[at] += high;
            rest[at] += ((value - high) + fine) - fine;
        }
    }
    return true;
}

PyObject* add(PyObject*, PyObject* args) {
    Buffer blocks, indices, motifs, sums, counts;
    int size, is_double;
    double coarse, fine;
    if (!PyArg_ParseTuple(args, "y*y*y*w*w*ipdd", &blocks.view, &indices.view, &motifs.view,
                          &sums.view, &counts.view, &size, &is_double, &coarse, &fine))
        return nullptr;
    const Py_ssize_t width = Py_ssize_t(size) * (is_double ? 8 : 4);
    const Py_ssize_t num_blocks = indices.view.len / 4, num_motifs = counts.view.len / 8;
    if (!expect(blocks, num_blocks * width, "blocks") ||
        !expect(motifs, num_motifs * width, "motifs") ||
        !expect(sums, 2 * num_motifs * size * 8, "sums"))
        return nullptr;
    const auto* own = static_cast<const int32_t*>(indices.view.buf);
    auto* total = static_cast<double*>(sums.view.buf);
    auto* number = static_cast<double*>(counts.view.buf);
    const auto run = [&](auto* values) {
        using T = std::remove_pointer_t<decltype(values)>;
        return add_differences(static_cast<const T*>(blocks.view.buf), own, num_blocks,
                               static_cast<const T*>(motifs.view.buf), num_motifs, size, coarse,
                               fine, total, number);
    };
    if (!(is_double ? run(static_cast<double*>(nullptr)) : run(static_cast<float*>(nullptr)))) {
        PyErr_SetString(PyExc_ValueError, "indices must name motifs");
        return nullptr;
    }
    Py_RETURN_NONE;
}

// Blocks from motifs of `width` bytes each; returns whether all indices name motifs.
PyObject* gather(PyObject*, PyObject* args) {
    Buffer motifs, indices, blocks;
    Py_ssize_t width;
    int num_threads;
    if (!PyArg_ParseTuple(args, "y*y*w*ni", &motifs.view, &indices.view, &blocks.view, &width,
                          &num_threads))
        return nullptr;
    if (width < 1) return PyErr_Format(PyExc_ValueError, "width out of range");
    const Py_ssize_t num_blocks = indices.view.len / 4, num_motifs = motifs.view.len / width;
    const Py_ssize_t total = blocks.view.len;  // the last block may be cut short
    if (!expect(indices, num_blocks * 4, "indices") ||
        !expect(motifs, num_motifs * width, "motifs") ||
        !expect(blocks, total > (num_blocks - 1) * width ? std::min(total, num_blocks * width)
                                                         : num_blocks * width, "blocks"))
        return nullptr;
    bool good = false;
    if (!unlocked([&] {
            good = momos::gather(static_cast<const char*>(motifs.view.buf),
                                 static_cast<const int32_t*>(indices.view.buf), num_blocks,
                                 num_motifs, width, static_cast<char*>(blocks.view.buf),
                                 total, num_threads);
        }))
        return nullptr;
    return PyBool_FromLong(good);
}

template <class T>
bool write_sums(const Buffer& blocks, const Buffer& indices, const Buffer& sums, int size,
                int num_threads) {
    return momos::sum_by_motif(static_cast<const T*>(blocks.view.buf),
                               static_cast<const int32_t*>(indices.view.buf),
                               indices.view.len / 4,
                               sums.view.len / Py_ssize_t(size * sizeof(T)), size,
                               static_cast<T*>(sums.view.buf), num_threads);
}

// The sum of the blocks of each motif; returns whether all indices name motifs.
PyObject* sum_by_motif(PyObject*, PyObject* args) {
    Buffer blocks, indices, sums;
    int size, is_double, num_threads;
    if (!PyArg_ParseTuple(args, "y*y*w*ipi", &blocks.view, &indices.view, &sums.view, &size,
                          &is_double, &num_threads))
        return nullptr;
    if (size < 1) return PyErr_Format(PyExc_ValueError, "block_size out of range");
    const Py_ssize_t width = Py_ssize_t(size) * (is_double ? 8 : 4);
    const Py_ssize_t num_blocks = indices.view.len / 4, num_motifs = sums.view.len / width;
    if (!expect(indices, num_blocks * 4, "indices") ||
        !expect(blocks, num_blocks * width, "blocks") ||
        !expect(sums, num_motifs * width, "sums"))
        return nullptr;
    bool good = false;
    if (!unlocked([&] {
            good = is_double ? write_sums<double>(blocks, indices, sums, size, num_threads)
                             : write_sums<float>(blocks, indices, sums, size, num_threads);
        }))
        return nullptr;
    return PyBool_FromLong(good);
}

// How many indices are each motif, added to the counts; returns whether all name motifs.
PyObject* usage(PyObject*, PyObject* args) {
    Buffer indices, counts;
    if (!PyArg_ParseTuple(args, "y*w*", &indices.view, &counts.view)) return nullptr;
    const Py_ssize_t num_blocks = indices.view.len / 4, num_motifs = counts.view.len / 8;
    if (!expect(indices, num_blocks * 4, "indices") || !expect(counts, num_motifs * 8, "counts"))
        return nullptr;
    bool good = false;
    if (!unlocked([&] {
            good = momos::usage(static_cast<const int32_t*>(indices.view.buf), num_blocks,
                                num_motifs, static_cast<int64_t*>(counts.view.buf));
        }))
        return nullptr;
    return PyBool_FromLong(good);
}

PyObject* candidates(PyObject*, PyObject* capsule) {
    auto* built = static_cast<Built*>(PyCapsule_GetPointer(capsule, kEngineName));
    return built ? PyFloat_FromDouble(built->engine->candidates()) : nullptr;
}

// The instruction sets beyond the portable one that this processor has, best first.
PyObject* instruction_sets(PyObject*, PyObject*) {
    bool avx2 = false, avx512 = false;
#if defined(__x86_64__)
    __builtin_cpu_init();
    avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
#endif
    if (avx512) return Py_BuildValue("(ss)", "avx512", "avx2");
    if (avx2) return Py_BuildValue("(s)", "avx2");
    return PyTuple_New(0);
}

PyMethodDef methods[] = {
    {"build", build, METH_VARARGS, "Engine of one kind over motifs."},
    {"query", query, METH_VARARGS, "Nearest motif of each block; returns how many are not finite."},
    {"add", add, METH_VARARGS, "Adds differences to the motifs, and counts, for k-means."},
    {"gather", gather, METH_VARARGS, "Blocks from motifs; whether all indices name motifs."},
    {"sum_by_motif", sum_by_motif, METH_VARARGS,
     "The sum of the blocks of each motif; whether all indices name motifs."},
    {"usage", usage, METH_VARARGS, "Counts of indices; whether all name motifs."},
    {"candidates", candidates, METH_O, "Motifs looked at for a block that lies on a motif."},
    {"instruction_sets", instruction_sets, METH_NOARGS, "Those beyond the portable one, best first."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {PyModuleDef_HEAD_INIT, NAME_OF(MOMOS_MODULE), "CPU engines of momos.vq.", -1, methods,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC INIT(MOMOS_MODULE)() { return PyModule_Create(&module); }
