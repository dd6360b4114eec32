// What the Python bindings share: buffers that are released, and work without the interpreter
// lock whose exceptions become Python's.
#pragma once
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <new>
#include <stdexcept>
#include <string>

namespace momos {

struct Buffer {
    Py_buffer view{};
    ~Buffer() {
        if (view.obj) PyBuffer_Release(&view);
    }
};

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

}  // namespace momos
