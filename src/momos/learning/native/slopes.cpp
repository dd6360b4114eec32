// Code length of a matrix of whole numbers and its slope at every latent weight: the compiled twin of
// the torch code in learning/rate.py, which defines it. One pass counts, one fills the slopes.
#include "../../native/binding.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

using momos::Buffer;
using momos::unlocked;

constexpr int kLanes = 8;
constexpr double kPrior = 2.0, kMostShare = 0.98;  // as PRIOR and MOST_SHARE of rate.py

double log_odds(double share) { return std::log2(share / (1 - share)); }

struct Matrix {
    const float* latent;
    const int32_t* indices;
    float* pull;
    int64_t rows, columns, num_motifs;
    float scale;
};

struct Length {
    double bits = 0, shrink = 0;
};

Length slopes(const Matrix& m) {
    const int64_t rows = m.rows, columns = m.columns, most = m.num_motifs / 2;
    std::vector<int64_t> of_row(rows), of_column(columns), counts(most + 1);
    for (int64_t i = 0; i < rows; ++i) {
        const int32_t* indices = m.indices + i * columns;
        int64_t used = 0;
        for (int64_t j = 0; j < columns; ++j) {
            const int32_t some = indices[j] > 0;
            of_column[j] += some;
            used += some;
        }
        of_row[i] = used;
        if (!used) continue;
        for (int64_t j = 0; j < columns; ++j) {
            if (indices[j] <= 0) continue;
            if (indices[j] >= m.num_motifs) throw std::invalid_argument("an index is no motif's");
            ++counts[(indices[j] + 1) / 2];
        }
    }
    int64_t used = 0;
    for (int64_t count : of_row) used += count;
    const double share = (used + 1.0) / (rows * columns + 2.0);
    std::vector<float> row(rows), column(columns);
    const bool both = rows > 1 && columns > 1;
    for (int64_t i = 0; i < rows; ++i)
        row[i] = float(both ? log_odds(std::min((of_row[i] + kPrior * share) / (columns + kPrior),
                                                kMostShare)) - log_odds(share)
                            : log_odds(share));
    for (int64_t j = 0; both && j < columns; ++j)
        column[j] = float(log_odds(std::min((of_column[j] + kPrior * share) / (rows + kPrior),
                                            kMostShare)));
    const int64_t padded = (columns + kLanes - 1) / kLanes * kLanes;
    std::vector<double> odds(padded);  // 0 beyond the last column: a factor of 1
    for (int64_t j = 0; j < columns; ++j) odds[j] = std::exp2(double(column[j]));
    std::vector<float> magnitude(most + 1), steps(most);
    for (int64_t size = 1; size <= most; ++size) {
        const double bits = 1 - std::log2((counts[size] + 0.5) / (used + 0.5 * most));
        magnitude[size] = std::max(size > 1 ? magnitude[size - 1] : float(bits), float(bits));
    }
    for (int64_t size = 0; size < most; ++size) steps[size] = magnitude[size + 1] - magnitude[size];

    Length found;
    const float inverse = 1 / m.scale;
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t first = i * columns;
        const float first_step = steps[0] - row[i];
        const double odd = std::exp2(double(row[i]));
        const float* latent = m.latent + first;
        float* pull = m.pull + first;
        float shrink[kLanes] = {};
        int32_t large = 0;
        for (int64_t j = 0; j < columns; ++j) {
            const float weight = latent[j];
            const float slope = std::max(first_step - column[j], 0.0f) * inverse;
            pull[j] = weight == 0 ? 0 : std::copysign(slope, weight);
            large |= std::fabs(weight) * inverse >= 1;
        }
        for (int64_t j = 0; large && j < columns; ++j) {
            const float size = std::fabs(latent[j]) * inverse;
            if (size < 1) continue;
            const int64_t below = std::min(int64_t(std::min(size, 1e6f)), most - 1);
            pull[j] = std::copysign(steps[below] * inverse, latent[j]);
        }
        for (int64_t j = 0; j + kLanes <= columns; j += kLanes)
            for (int lane = 0; lane < kLanes; ++lane)
                shrink[lane] += pull[j + lane] * latent[j + lane];
        for (int64_t j = columns / kLanes * kLanes; j < columns; ++j)
            shrink[0] += pull[j] * latent[j];
        for (float part : shrink) found.shrink -= part;

        double bits = 0, products[kLanes];  // of so many columns that they cannot overflow
        std::fill(products, products + kLanes, 1.0);
        for (int64_t j = 0; j < padded; j += kLanes) {
            for (int lane = 0; lane < kLanes; ++lane) products[lane] *= 1 + odd * odds[j + lane];
            if (j / kLanes % 8 == 7)
                for (double& product : products) {
                    bits += std::log2(product);
                    product = 1;
                }
        }
        for (double product : products) bits += std::log2(product);
        if (of_row[i])
            for (int64_t j = 0; j < columns; ++j)
                if (m.indices[first + j] > 0)
                    bits += magnitude[(m.indices[first + j] + 1) / 2] - row[i] - column[j];
        found.bits += bits;
    }
    return found;
}

// The nearest whole number of each weight as an index, halves towards 0 and magnitudes up to
// `threshold` to 0, as whole_indices of whole.py defines it; `value` is the scale times the number.
int64_t round_all(const float* latent, int32_t* indices, float* value, int64_t count,
                  int64_t num_motifs, float scale, float threshold) {
    const float most = float(num_motifs / 2);
    int64_t changed = 0;
    for (int64_t i = 0; i < count; ++i) {
        const float scaled = latent[i] / scale, size = std::fabs(scaled);
        const float near = std::min(size, most + 1);
        float number = float(int32_t(near + 0.5f));  // not std::ceil, which is a call
        number = std::min(number - (number - near >= 0.5f ? 1.0f : 0.0f), most);
        number = size > threshold ? std::max(number, 1.0f) : 0.0f;
        const float whole = std::copysign(number, scaled) + 0.0f;  // no -0
        const int32_t index = int32_t(2 * number) - (whole < 0);
        changed += index != indices[i];
        indices[i] = index;
        value[i] = whole * scale;
    }
    return changed;
}

PyObject* round_of(PyObject*, PyObject* args) {
    Buffer latent, indices, value;
    Py_ssize_t num_motifs;
    float scale, threshold;
    if (!PyArg_ParseTuple(args, "y*w*w*nff", &latent.view, &indices.view, &value.view,
                          &num_motifs, &scale, &threshold))
        return nullptr;
    const Py_ssize_t bytes = latent.view.len;
    if (indices.view.len != bytes || value.view.len != bytes || num_motifs < 3 ||
        num_motifs > 1 << 20) {
        PyErr_SetString(PyExc_ValueError, "buffers must be of one size, and num_motifs a count");
        return nullptr;
    }
    int64_t changed = 0;
    if (!unlocked([&] {
            changed = round_all(static_cast<const float*>(latent.view.buf),
                                static_cast<int32_t*>(indices.view.buf),
                                static_cast<float*>(value.view.buf), bytes / 4, num_motifs, scale,
                                threshold);
        }))
        return nullptr;
    return PyLong_FromLongLong(changed);
}

PyObject* slopes_of(PyObject*, PyObject* args) {
    Buffer latent, indices, pull;
    Py_ssize_t rows, columns, num_motifs;
    float scale;
    if (!PyArg_ParseTuple(args, "y*y*w*nnnf", &latent.view, &indices.view, &pull.view, &rows,
                          &columns, &num_motifs, &scale))
        return nullptr;
    if (rows < 1 || columns < 1 || num_motifs < 3 || num_motifs % 2 == 0 ||
        columns > (Py_ssize_t(1) << 60) / rows) {
        PyErr_SetString(PyExc_ValueError, "rows, columns and num_motifs must be counts");
        return nullptr;
    }
    const Py_ssize_t bytes = 4 * rows * columns;
    for (const Buffer* buffer : {&latent, &indices, &pull})
        if (buffer->view.len != bytes) {
            PyErr_Format(PyExc_ValueError, "a buffer must have %zd bytes, got %zd", bytes,
                         buffer->view.len);
            return nullptr;
        }
    const Matrix matrix{static_cast<const float*>(latent.view.buf),
                        static_cast<const int32_t*>(indices.view.buf),
                        static_cast<float*>(pull.view.buf), rows, columns, num_motifs, scale};
    Length found;
    if (!unlocked([&] { found = slopes(matrix); })) return nullptr;
    return Py_BuildValue("dd", found.bits, found.shrink);
}

PyMethodDef methods[] = {
    {"slopes", slopes_of, METH_VARARGS,
     "slopes(latent, indices, pull, rows, columns, num_motifs, scale) -> bits, shrink"},
    {"round", round_of, METH_VARARGS,
     "round(latent, indices, value, num_motifs, scale, threshold) -> indices that changed"},
    {nullptr, nullptr, 0, nullptr}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "_slopes", nullptr, -1, methods};

}  // namespace

PyMODINIT_FUNC PyInit__slopes() { return PyModule_Create(&module); }
