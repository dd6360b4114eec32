// The Python binding: build(kind, motifs, num_motifs, block_size, is_double, num_blocks that are
// expected) -> engine and
// query(engine, parts, first, last, indices, num_threads) -> how many blocks were not finite; add,
// the sums that k-means needs; gather and sum_by_motif, which training needs; take and rewrite,
// which projections need. Parts are a tuple of the values of tensors (parts.hpp).
// Buffers are checked against the counts before anything reads them; the interpreter lock is
// released while an engine works. Compiled once per instruction set, each time as a module of
// its own (setup.py), so that no shared inline function is of the wrong set.
#include "../../native/binding.hpp"

#include "cells.hpp"
#include "flat.hpp"
#include "grid.hpp"
#include "parts.hpp"
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
    Py_ssize_t bytes_per_block, bytes_per_value;
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
    auto* built = new (std::nothrow) Built{nullptr, given, bytes / block_size};
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

// The values of several tensors; their buffers are held as long as this lives.
struct Tensors {
    std::vector<Buffer> buffers;
    momos::Parts parts;

    explicit Tensors(Py_ssize_t width) : parts(width) {}

    // `given` is a tuple of buffers of whole values of `item` bytes; false with a Python error set.
    bool hold(PyObject* given, Py_ssize_t item, bool written) {
        const Py_ssize_t count = PyTuple_Size(given);
        if (count < 0) return false;
        buffers = std::vector<Buffer>(count);
        for (Py_ssize_t i = 0; i < count; ++i) {
            Py_buffer& view = buffers[i].view;
            const int flags = written ? PyBUF_WRITABLE : PyBUF_SIMPLE;
            if (PyObject_GetBuffer(PyTuple_GetItem(given, i), &view, flags)) return false;
            if (view.len % item) {
                PyErr_Format(PyExc_ValueError, "part %zd must have whole values of %zd bytes, got %zd",
                             i, item, view.len);
                return false;
            }
            parts.add(static_cast<char*>(view.buf), view.len);
        }
        return true;
    }
};

PyObject* query(PyObject*, PyObject* args) {
    PyObject *capsule, *given;
    Buffer indices;
    Py_ssize_t first, last;
    int num_threads;
    if (!PyArg_ParseTuple(args, "OO!nnw*i", &capsule, &PyTuple_Type, &given, &first, &last,
                          &indices.view, &num_threads))
        return nullptr;
    auto* built = static_cast<Built*>(PyCapsule_GetPointer(capsule, kEngineName));
    if (!built) return nullptr;
    Tensors tensors(built->bytes_per_block);
    if (!tensors.hold(given, built->bytes_per_value, false)) return nullptr;
    if (first < 0 || last < first || last > tensors.parts.num_blocks())
        return PyErr_Format(PyExc_ValueError, "blocks %zd to %zd are not among %zd", first, last,
                            Py_ssize_t(tensors.parts.num_blocks()));
    if (!expect(indices, (last - first) * 4, "indices")) return nullptr;
    int64_t not_finite = 0;
    if (!unlocked([&] {
            not_finite = momos::query(*built->engine, tensors.parts, first, last,
                                      static_cast<int32_t*>(indices.view.buf), num_threads);
        }))
        return nullptr;
    return PyLong_FromLongLong(not_finite);
}

// Blocks of `width` bytes by their numbers (int64); whether all are in range.
PyObject* take(PyObject*, PyObject* args) {
    PyObject* given;
    Buffer numbers, blocks;
    Py_ssize_t width;
    if (!PyArg_ParseTuple(args, "O!y*w*n", &PyTuple_Type, &given, &numbers.view, &blocks.view,
                          &width))
        return nullptr;
    if (width < 1) return PyErr_Format(PyExc_ValueError, "width out of range");
    Tensors tensors(width);
    const Py_ssize_t count = numbers.view.len / 8;
    if (!expect(numbers, count * 8, "numbers") || !expect(blocks, count * width, "blocks") ||
        !tensors.hold(given, 1, false))
        return nullptr;
    bool good = false;
    if (!unlocked([&] {
            good = momos::take(tensors.parts, static_cast<const int64_t*>(numbers.view.buf), count,
                               static_cast<char*>(blocks.view.buf));
        }))
        return nullptr;
    return PyBool_FromLong(good);
}

template <class T>
momos::Change write_motifs(const Tensors& tensors, const Buffer& motifs, const Buffer& indices,
                           int num_threads) {
    return momos::rewrite(tensors.parts, static_cast<const T*>(motifs.view.buf),
                          motifs.view.len / tensors.parts.width(),
                          static_cast<const int32_t*>(indices.view.buf), num_threads);
}

// Replaces every block by its motif; whether all indices name motifs, the sum of the squared
// differences, and how many values changed.
PyObject* rewrite(PyObject*, PyObject* args) {
    PyObject* given;
    Buffer motifs, indices;
    int size, is_double, num_threads;
    if (!PyArg_ParseTuple(args, "O!y*y*ipi", &PyTuple_Type, &given, &motifs.view, &indices.view,
                          &size, &is_double, &num_threads))
        return nullptr;
    if (size < 1) return PyErr_Format(PyExc_ValueError, "block_size out of range");
    const Py_ssize_t item = is_double ? 8 : 4, width = size * item;
    Tensors tensors(width);
    if (!tensors.hold(given, item, true) ||
        !expect(motifs, motifs.view.len / width * width, "motifs") ||
        !expect(indices, tensors.parts.num_blocks() * 4, "indices"))
        return nullptr;
    momos::Change change;
    if (!unlocked([&] {
            change = is_double ? write_motifs<double>(tensors, motifs, indices, num_threads)
                               : write_motifs<float>(tensors, motifs, indices, num_threads);
        }))
        return nullptr;
    return Py_BuildValue("(NdL)", PyBool_FromLong(change.good), change.distortion,
                         static_cast<long long>(change.moved));
}

// Whether all values are finite.
PyObject* finite(PyObject*, PyObject* args) {
    Buffer values;
    int is_double, num_threads;
    if (!PyArg_ParseTuple(args, "y*pi", &values.view, &is_double, &num_threads)) return nullptr;
    bool all = false;
    if (!unlocked([&] {
            all = is_double ? momos::finite(static_cast<const double*>(values.view.buf),
                                            values.view.len / 8, num_threads)
                            : momos::finite(static_cast<const float*>(values.view.buf),
                                            values.view.len / 4, num_threads);
        }))
        return nullptr;
    return PyBool_FromLong(all);
}

// int32 indices as unsigned integers of 1 or 2 bytes; whether all name motifs.
PyObject* narrow(PyObject*, PyObject* args) {
    Buffer indices, fewer;
    Py_ssize_t num_motifs;
    int num_threads;
    if (!PyArg_ParseTuple(args, "y*w*ni", &indices.view, &fewer.view, &num_motifs, &num_threads))
        return nullptr;
    const Py_ssize_t count = indices.view.len / 4, item = count ? fewer.view.len / count : 1;
    if ((item != 1 && item != 2 && item != 4) || !expect(indices, count * 4, "indices") ||
        !expect(fewer, count * item, "narrow indices")) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "narrow indices out of range");
        return nullptr;
    }
    const auto* own = static_cast<const int32_t*>(indices.view.buf);
    bool good = false;
    if (!unlocked([&] {
            if (item == 1)
                good = momos::narrow(own, count, num_motifs,
                                     static_cast<uint8_t*>(fewer.view.buf), num_threads);
            else if (item == 2)
                good = momos::narrow(own, count, num_motifs,
                                     static_cast<uint16_t*>(fewer.view.buf), num_threads);
            else
                good = momos::narrow(own, count, num_motifs,
                                     static_cast<int32_t*>(fewer.view.buf), num_threads);
        }))
        return nullptr;
    return PyBool_FromLong(good);
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
    {"take", take, METH_VARARGS, "Blocks by their numbers; whether all are in range."},
    {"rewrite", rewrite, METH_VARARGS,
     "Replaces blocks by motifs; whether all indices are good, distortion, values moved."},
    {"finite", finite, METH_VARARGS, "Whether all values are finite."},
    {"narrow", narrow, METH_VARARGS, "Indices in fewer bytes; whether all name motifs."},
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
