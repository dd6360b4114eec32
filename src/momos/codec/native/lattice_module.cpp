// The Python binding: encode, decode and fits of one stream of whole numbers, and quantize.
// The same source makes one module per instruction set; all give the same bytes and numbers.
// Buffers are checked before anything reads them, and the interpreter lock is released meanwhile,
// so streams can be worked on in parallel.
#include "../../native/binding.hpp"
#include "lattice.hpp"
#include "viterbi.hpp"

#define QUOTED(name) #name
#define NAME_OF(name) QUOTED(name)
#define INIT_OF(name) PyInit_##name
#define INIT(name) INIT_OF(name)

namespace {

using momos::Buffer;
using momos::unlocked;
using momos::lattice::Balance;
using momos::lattice::Geometry;

// How many items of `width` bytes the buffer holds; -1 with a Python error if not whole ones.
int64_t count_of(const Buffer& buffer, int width, const char* what) {
    if (buffer.view.len % width) {
        PyErr_Format(PyExc_ValueError, "%s must be whole numbers of %d bytes", what, width);
        return -1;
    }
    return buffer.view.len / width;
}

PyObject* encode(PyObject*, PyObject* args) {
    Buffer values;
    int memory;
    long long row, kernel, position;
    if (!PyArg_ParseTuple(args, "y*iLLL", &values.view, &memory, &row, &kernel, &position))
        return nullptr;
    const int64_t count = count_of(values, 4, "values");
    std::string stream;
    if (count < 0 || !unlocked([&] {
            stream = momos::lattice::encode(static_cast<const int32_t*>(values.view.buf), count,
                                            memory, Geometry{row, kernel, position});
        }))
        return nullptr;
    return PyBytes_FromStringAndSize(stream.data(), Py_ssize_t(stream.size()));
}

PyObject* decode(PyObject*, PyObject* args) {
    Buffer stream, values;
    int memory;
    long long row, kernel, position;
    if (!PyArg_ParseTuple(args, "y*w*iLLL", &stream.view, &values.view, &memory, &row, &kernel,
                          &position))
        return nullptr;
    const int64_t count = count_of(values, 4, "values");
    if (count < 0 || !unlocked([&] {
            momos::lattice::decode(static_cast<const unsigned char*>(stream.view.buf),
                                   int64_t(stream.view.len),
                                   static_cast<int32_t*>(values.view.buf), count, memory,
                                   Geometry{row, kernel, position});
        }))
        return nullptr;
    Py_RETURN_NONE;
}

PyObject* fits(PyObject*, PyObject* args) {
    Buffer values;
    int memory;
    if (!PyArg_ParseTuple(args, "y*i", &values.view, &memory)) return nullptr;
    const int64_t count = count_of(values, 4, "values");
    bool found = false;
    if (count < 0 || !unlocked([&] {
            found = momos::lattice::fits(static_cast<const int32_t*>(values.view.buf), count, memory);
        }))
        return nullptr;
    return PyBool_FromLong(found);
}

template <class T>
bool quantized(const Buffer& weights, const Buffer& importance, int64_t count, int memory,
               double rate_weight, const Balance& balance, const Buffer& values) {
    const momos::lattice::Steps<T> steps{static_cast<const T*>(weights.view.buf),
                                         static_cast<const float*>(importance.view.buf), count,
                                         balance};
    return unlocked([&] {
        momos::lattice::quantize(steps, memory, rate_weight,
                                 static_cast<int32_t*>(values.view.buf));
    });
}

PyObject* quantize(PyObject*, PyObject* args) {
    Buffer weights, importance, values;
    int width, memory;
    double rate_weight, kernel_weight, row_weight;
    long long row, kernel, position;
    if (!PyArg_ParseTuple(args, "y*iz*idddLLLw*", &weights.view, &width, &importance.view, &memory,
                          &rate_weight, &kernel_weight, &row_weight, &row, &kernel, &position,
                          &values.view))
        return nullptr;
    if (row < 1 || kernel < 1 || position < 0) {
        PyErr_SetString(PyExc_ValueError, "row and kernel must be at least 1, and position 0");
        return nullptr;
    }
    const Balance balance{Geometry{row, kernel, position}, kernel_weight, row_weight};
    if (width != 4 && width != 8) {
        PyErr_SetString(PyExc_ValueError, "weights must be float32 or float64");
        return nullptr;
    }
    const int64_t count = count_of(weights, width, "weights");
    if (count < 0) return nullptr;
    if (values.view.len != 4 * count ||
        (importance.view.buf && importance.view.len != 4 * count)) {
        PyErr_SetString(PyExc_ValueError, "weights, importance and values must be as many");
        return nullptr;
    }
    const auto fill = width == 4 ? quantized<float> : quantized<double>;
    const bool done = fill(weights, importance, count, memory, rate_weight, balance, values);
    if (!done) return nullptr;
    Py_RETURN_NONE;
}

// Whether this processor has what the module for AVX2 is compiled for.
PyObject* has_avx2(PyObject*, PyObject*) {
    bool found = false;
#if defined(__x86_64__)
    __builtin_cpu_init();
    found = __builtin_cpu_supports("avx2");
#endif
    return PyBool_FromLong(found);
}

PyMethodDef methods[] = {
    {"encode", encode, METH_VARARGS, "The stream of values: (values, memory, row, kernel, position)."},
    {"decode", decode, METH_VARARGS, "Fills values: (stream, values, memory, row, kernel, position)."},
    {"fits", fits, METH_VARARGS, "Whether values are a path of the trellis: (values, memory)."},
    {"quantize", quantize, METH_VARARGS,
     "Fills values: (weights, width, importance or None, memory, rate_weight, kernel_weight, "
     "row_weight, row, kernel, position, values)."},
    {"has_avx2", has_avx2, METH_NOARGS, "Whether the processor has AVX2."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {PyModuleDef_HEAD_INIT, NAME_OF(MOMOS_MODULE), "Streams of whole numbers.", -1,
                      methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC INIT(MOMOS_MODULE)() { return PyModule_Create(&module); }
