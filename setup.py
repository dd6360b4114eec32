"""The compiled parts: engines of momos.vq, streams of momos.codec, kernels of momos.compact.

The sources of the engines, of the lattice and of the kernels make one module per instruction
set. The best that the processor has is picked when it runs, so a wheel runs on every processor
of its architecture. momos.learning has one module. Everything that need not be compiled is in
pyproject.toml.
"""

import platform

from setuptools import Extension, setup

NATIVE = "src/momos/vq/native"
CODEC = "src/momos/codec/native"
COMPACT = "src/momos/compact/native"
BINDING = "src/momos/native/binding.hpp"
HEADERS = (
    *("cells", "engine", "flat", "grid", "lanes", "parallel", "parts", "sums", "tiles"),
)
LATTICE_HEADERS = ("balance", "contexts", "lattice", "rans", "table", "trellis", "viterbi")
# Exactness: a multiply and an add must round twice (see native/engine.hpp).
FLAGS = [
    "-std=c++17",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-wrapv",  # which Python's own flags turn on; it costs the inner loops a third
    "-Wno-psabi",
]
THREADS = ["-pthread"]
INSTRUCTION_SETS = {"portable": []}
LATTICES: dict[str, list[str]] = {"_lattice": []}
if platform.machine() in ("x86_64", "AMD64"):
    INSTRUCTION_SETS["avx2"] = ["-mavx2", "-mfma"]
    LATTICES["_lattice_avx2"] = ["-mavx2"]
    INSTRUCTION_SETS["avx512"] = [
        *("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma"),
        "-mprefer-vector-width=512",
    ]

setup(
    ext_modules=[
        Extension(
            f"momos.vq._{name}",
            sources=[f"{NATIVE}/module.cpp"],
            depends=[BINDING, *(f"{NATIVE}/{header}.hpp" for header in HEADERS)],
            define_macros=[("Py_LIMITED_API", "0x030B0000"), ("MOMOS_MODULE", f"_{name}")],
            py_limited_api=True,
            extra_compile_args=[*FLAGS, *THREADS, *flags],
            extra_link_args=THREADS,
        )
        for name, flags in INSTRUCTION_SETS.items()
    ]
    + [
        Extension(
            f"momos.compact._{name}",
            sources=[f"{COMPACT}/module.cpp"],
            depends=[
                BINDING,
                *(f"{NATIVE}/{header}.hpp" for header in ("lanes", "parallel")),
                *(f"{COMPACT}/{header}.hpp" for header in ("lookup", "packed")),
            ],
            define_macros=[("Py_LIMITED_API", "0x030B0000"), ("MOMOS_MODULE", f"_{name}")],
            py_limited_api=True,
            extra_compile_args=[*FLAGS, *THREADS, *flags],
            extra_link_args=THREADS,
        )
        for name, flags in INSTRUCTION_SETS.items()
    ]
    + [
        Extension(
            "momos.codec._rans",
            sources=[f"{CODEC}/module.cpp"],
            depends=[BINDING, f"{CODEC}/rans.hpp", f"{CODEC}/table.hpp"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=True,
            extra_compile_args=[*FLAGS, "-pthread"],
            extra_link_args=["-pthread"],
        ),
    ]
    + [
        Extension(
            f"momos.codec.{name}",
            sources=[f"{CODEC}/lattice_module.cpp"],
            depends=[BINDING, *(f"{CODEC}/{header}.hpp" for header in LATTICE_HEADERS)],
            define_macros=[("Py_LIMITED_API", "0x030B0000"), ("MOMOS_MODULE", name)],
            py_limited_api=True,
            extra_compile_args=[*FLAGS, *flags],
        )
        for name, flags in LATTICES.items()
    ]
    + [
        Extension(
            "momos.learning._slopes",
            sources=["src/momos/learning/native/slopes.cpp"],
            depends=[BINDING],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=True,
            extra_compile_args=FLAGS,
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
