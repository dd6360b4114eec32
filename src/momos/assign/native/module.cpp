// The Python binding: build(kind, motifs, num_motifs, block_size, is_double) -> engine and
// query(engine, blocks, indices, num_threads) -> how many blocks were not finite.
// Buffers are checked against the counts before anything reads them; the interpreter lock is
// released while an engine works. Compiled once per instruction set, each time as a module of
// its own (setup.py), so that no shared inline function is of the wrong set.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <new>
#include <stdexcept>
#include <string>

#include "flat.hpp"
#include "grid.hpp"

#define QUOTED(name) #name
#define NAME_OF(name) QUOTED(name)
#define INIT_OF(name) PyInit_##name
#define INIT(name) INIT_OF(name)

namespace {

constexpr const char* kEngineName = "momos.assign.engine";

struct Built {
    std::unique_ptr<momos::Engine> engine;
    Py_ssize_t bytes_per_block;
};

struct Buffer {
    Py_buffer view{};
    ~Buffer() {
        if (view.obj) PyBuffer_Release(&view);
    }
};

std::unique_ptr<momos::Engine> make(const std::string& kind, const momos::Motifs& motifs) {
    if (kind == "grid") {
        if (motifs.is_double) return std::make_unique<momos::Grid<double>>(motifs);
        return std::make_unique<momos::Grid<float>>(motifs);
    }
    if (kind != "flat") throw std::invalid_argument("kind must be grid or flat, got " + kind);
    return motifs.is_double ? momos::make_flat<double>(motifs) : momos::make_flat<float>(motifs);
}

// Runs `work` without the interpreter lock; false with a Python error set if it throws.
template <class Work>
bool unlocked(const Work& work) {
    std::string refused;
    bool memory = false;
    Py_BEGIN_ALLOW_THREADS
    try {
        work();
    } catch (const std::bad_alloc&) {
        memory = true;
    } catch (const std::exception& error) {
        refused = error.what();
    }
    Py_END_ALLOW_THREADS
    if (memory) PyErr_NoMemory();
    else if (!refused.empty()) PyErr_SetString(PyExc_ValueError, refused.c_str());
    return !memory && refused.empty();
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
    Py_ssize_t num_motifs;
    int block_size, is_double;
    if (!PyArg_ParseTuple(args, "sy*nip", &kind, &values.view, &num_motifs, &block_size,
                          &is_double))
        return nullptr;
    if (num_motifs < 1 || num_motifs > INT32_MAX || block_size < 1 ||
        (std::string(kind) == "grid" && block_size > 2)) {
        PyErr_SetString(PyExc_ValueError, "num_motifs or block_size out of range");
        return nullptr;
    }
    const Py_ssize_t bytes = block_size * (is_double ? 8 : 4);
    if (!expect(values, num_motifs * bytes, "motifs")) return nullptr;
    auto* built = new (std::nothrow) Built{nullptr, bytes};
    if (!built) return PyErr_NoMemory();
    const momos::Motifs motifs{values.view.buf, num_motifs, block_size, is_double != 0};
    if (!unlocked([&] { built->engine = make(kind, motifs); })) {
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
    {"candidates", candidates, METH_O, "Motifs looked at for a block that lies on a motif."},
    {"instruction_sets", instruction_sets, METH_NOARGS, "Those beyond the portable one, best first."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {PyModuleDef_HEAD_INIT, NAME_OF(MOMOS_MODULE), "CPU engines of momos.assign.", -1, methods,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC INIT(MOMOS_MODULE)() { return PyModule_Create(&module); }
