// The Python binding: decode, blocks from motifs and packed indices; lookup and rowwise, products of
// inputs with a packed weight. Buffers are checked against the counts before anything reads them; the
// interpreter lock is released meanwhile. Compiled once per instruction set, as momos.vq is.
#include "../../native/binding.hpp"

#include "lookup.hpp"

#define QUOTED(name) #name
#define NAME_OF(name) QUOTED(name)
#define INIT_OF(name) PyInit_##name
#define INIT(name) INIT_OF(name)

namespace {

using momos::Buffer;
using momos::unlocked;

bool expect(const Buffer& buffer, Py_ssize_t bytes, const char* name) {
    if (buffer.view.len == bytes) return true;
    PyErr_Format(PyExc_ValueError, "%s must have %zd bytes, got %zd", name, bytes,
                 buffer.view.len);
    return false;
}

PyObject* wrong_bits(int bits) {
    return PyErr_Format(PyExc_ValueError, "bits must be 4, 8, 12, 16 or 32, got %d", bits);
}

// Blocks of motifs of `width` bytes; returns whether all indices name motifs.
PyObject* decode(PyObject*, PyObject* args) {
    Buffer motifs, packed, blocks;
    Py_ssize_t width, first;
    int bits, num_threads;
    if (!PyArg_ParseTuple(args, "y*y*w*nini", &motifs.view, &packed.view, &blocks.view, &width,
                          &bits, &first, &num_threads))
        return nullptr;
    if (width < 1 || first < 0) return PyErr_Format(PyExc_ValueError, "width out of range");
    const Py_ssize_t count = blocks.view.len / width, num_motifs = motifs.view.len / width;
    if (!expect(blocks, count * width, "blocks") || !expect(motifs, num_motifs * width, "motifs"))
        return nullptr;
    bool good = false, known = true;
    if (!unlocked([&] {
            known = momos::with_bits(bits, [&](auto constant) {
                if (momos::packed_bytes(first + count, bits) > packed.view.len)
                    throw std::invalid_argument("packed indices must be more");
                good = momos::decode<decltype(constant)::value>(
                    static_cast<const char*>(motifs.view.buf), num_motifs, width,
                    static_cast<const uint8_t*>(packed.view.buf), first, count,
                    static_cast<char*>(blocks.view.buf), num_threads);
            });
        }))
        return nullptr;
    if (!known) return wrong_bits(bits);
    return PyBool_FromLong(good);
}

struct Given {
    Buffer inputs, motifs, packed, outputs;
    momos::Product product;
    Py_ssize_t width;
    int bits;
};

// Inputs (r, width) and outputs (r, rows) of one product, checked.
bool parse(PyObject* args, Given& given) {
    Py_ssize_t num_inputs, num_rows;
    int block_size, num_threads;
    if (!PyArg_ParseTuple(args, "y*y*y*w*nnniii", &given.inputs.view, &given.motifs.view,
                          &given.packed.view, &given.outputs.view, &num_inputs, &given.width,
                          &num_rows, &block_size, &given.bits, &num_threads))
        return false;
    if (num_inputs < 1 || given.width < 1 || num_rows < 1 || block_size < 1) {
        PyErr_SetString(PyExc_ValueError, "sizes must be at least 1");
        return false;
    }
    const Py_ssize_t num_motifs = given.motifs.view.len / (4 * Py_ssize_t(block_size));
    const Py_ssize_t total = (num_rows * given.width + block_size - 1) / block_size;
    if (!expect(given.inputs, num_inputs * given.width * 4, "inputs") ||
        !expect(given.motifs, num_motifs * block_size * 4, "motifs") ||
        !expect(given.packed, momos::packed_bytes(total, given.bits), "packed indices") ||
        !expect(given.outputs, num_inputs * num_rows * 4, "outputs"))
        return false;
    given.product = {static_cast<const float*>(given.inputs.view.buf),
                     static_cast<const float*>(given.motifs.view.buf),
                     static_cast<const uint8_t*>(given.packed.view.buf),
                     static_cast<float*>(given.outputs.view.buf),
                     num_inputs, given.width / block_size, num_rows, num_motifs,
                     block_size, num_threads};
    return true;
}

PyObject* lookup(PyObject*, PyObject* args) {
    Given given;
    if (!parse(args, given)) return nullptr;
    const auto& product = given.product;
    const bool fits = given.width % product.block_size == 0 &&
                      (given.bits == 8 || (given.bits == 4 && product.num_blocks % 2 == 0)) &&
                      product.num_motifs <= 1 << given.bits;
    if (!fits)
        return PyErr_Format(PyExc_ValueError,
                            "rows must be whole blocks and bytes, with indices of 4 or 8 bits");
    if (!unlocked([&] {
            if (given.bits == 8) momos::lookup<8>(product);
            else momos::lookup<4>(product);
        }))
        return nullptr;
    Py_RETURN_NONE;
}

// Returns whether all indices name motifs.
PyObject* rowwise(PyObject*, PyObject* args) {
    Given given;
    if (!parse(args, given)) return nullptr;
    bool good = false, known = true;
    if (!unlocked([&] {
            known = momos::with_bits(given.bits, [&](auto constant) {
                good = momos::rowwise<decltype(constant)::value>(given.product, given.width);
            });
        }))
        return nullptr;
    if (!known) return wrong_bits(given.bits);
    return PyBool_FromLong(good);
}

PyMethodDef methods[] = {
    {"decode", decode, METH_VARARGS, "Blocks from packed indices; whether all name motifs."},
    {"lookup", lookup, METH_VARARGS, "Products with a packed weight, by tables."},
    {"rowwise", rowwise, METH_VARARGS,
     "Products with a packed weight, row by row; whether all indices name motifs."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {PyModuleDef_HEAD_INIT, NAME_OF(MOMOS_MODULE), "CPU kernels of momos.compact.",
                      -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC INIT(MOMOS_MODULE)() { return PyModule_Create(&module); }
