// The Python binding: model(weights) -> model; encode, decode and cost of one stream.
// Symbols are 1, 2 or 4 bytes wide and unsigned. Buffers are checked before anything reads them,
// and the interpreter lock is released meanwhile, so streams can be worked on in parallel.
#include <memory>
#include <mutex>

#include "../../native/binding.hpp"
#include "rans.hpp"

namespace {

using momos::Buffer;
using momos::unlocked;

constexpr const char* kModelName = "momos.codec.model";

struct Coder {
    momos::Model model;
    std::once_flag built;
    momos::Slots slots;

    Coder(const uint64_t* weights, int64_t count) : model(weights, count) {}
    const momos::Slots& starting() {
        std::call_once(built, [this] { slots.build(model.start); });
        return slots;
    }
};

Coder* coder_of(PyObject* capsule) {
    return static_cast<Coder*>(PyCapsule_GetPointer(capsule, kModelName));
}

// How many symbols the buffer holds; -1 with a Python error if it cannot be that.
int64_t count_of(const Coder& coder, const Buffer& symbols, int width) {
    if ((width != 1 && width != 2 && width != 4) || symbols.view.len % width ||
        (width < 4 && coder.model.size() > int64_t(1) << (8 * width))) {
        PyErr_SetString(PyExc_ValueError, "symbols must be as wide as the alphabet needs");
        return -1;
    }
    return symbols.view.len / width;
}

// Calls `work` with the symbols as what they are.
template <class Work>
void as_width(void* symbols, int width, const Work& work) {
    if (width == 1) work(static_cast<uint8_t*>(symbols));
    else if (width == 2) work(static_cast<uint16_t*>(symbols));
    else work(static_cast<uint32_t*>(symbols));
}

PyObject* make_model(PyObject*, PyObject* args) {
    Buffer weights;
    if (!PyArg_ParseTuple(args, "y*", &weights.view)) return nullptr;
    if (weights.view.len % 8) {
        PyErr_SetString(PyExc_ValueError, "weights must be 64-bit integers");
        return nullptr;
    }
    std::unique_ptr<Coder> coder;
    const auto* values = static_cast<const uint64_t*>(weights.view.buf);
    const int64_t count = weights.view.len / 8;
    if (!unlocked([&] { coder = std::make_unique<Coder>(values, count); })) return nullptr;
    return PyCapsule_New(coder.release(), kModelName,
                         [](PyObject* capsule) { delete coder_of(capsule); });
}

// Parses (model, symbols, width, rate) and calls work(model, values, count, rate) unlocked.
template <class Work>
bool with_symbols(PyObject* args, const Work& work) {
    PyObject* capsule;
    Buffer symbols;
    int width, rate;
    if (!PyArg_ParseTuple(args, "Oy*ii", &capsule, &symbols.view, &width, &rate)) return false;
    Coder* coder = coder_of(capsule);
    if (!coder) return false;
    const int64_t count = count_of(*coder, symbols, width);
    return count >= 0 && unlocked([&] {
        as_width(symbols.view.buf, width,
                 [&](auto* values) { work(coder->model, values, count, rate); });
    });
}

PyObject* encode(PyObject*, PyObject* args) {
    std::string stream;
    if (!with_symbols(args, [&](const auto&... all) { stream = momos::encode(all...); }))
        return nullptr;
    return PyBytes_FromStringAndSize(stream.data(), Py_ssize_t(stream.size()));
}

PyObject* decode(PyObject*, PyObject* args) {
    PyObject* capsule;
    Buffer stream, symbols;
    int width, rate;
    if (!PyArg_ParseTuple(args, "Oy*w*ii", &capsule, &stream.view, &symbols.view, &width, &rate))
        return nullptr;
    Coder* coder = coder_of(capsule);
    if (!coder) return nullptr;
    const int64_t count = count_of(*coder, symbols, width);
    if (count < 0) return nullptr;
    if (!unlocked([&] {
            as_width(symbols.view.buf, width, [&](auto* values) {
                momos::decode(coder->model, coder->starting(),
                              static_cast<const unsigned char*>(stream.view.buf),
                              int64_t(stream.view.len), rate, values, count);
            });
        }))
        return nullptr;
    Py_RETURN_NONE;
}

PyObject* cost(PyObject*, PyObject* args) {
    double bits = 0;
    if (!with_symbols(args, [&](const auto&... all) { bits = momos::cost(all...); }))
        return nullptr;
    return PyFloat_FromDouble(bits);
}

PyMethodDef methods[] = {
    {"model", make_model, METH_VARARGS, "What streams start from: weights of symbols, 64-bit."},
    {"encode", encode, METH_VARARGS, "The stream of symbols: (model, symbols, width, rate)."},
    {"decode", decode, METH_VARARGS, "Fills symbols: (model, stream, symbols, width, rate)."},
    {"cost", cost, METH_VARARGS, "About how many bits a stream takes: as encode."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_rans", "Streams of momos.codec.", -1, methods,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__rans() { return PyModule_Create(&module); }
