"""A wheel, built from what git has, installs and works where there is no compiler."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def ran(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_works_without_a_compiler(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    for name in ran("git", "-C", ROOT, "ls-files").splitlines():
        if name.split("/")[0] in (
            "src",
            "setup.py",
            "pyproject.toml",
            "README.md",
            "LICENSE",
        ):
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, sources / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    ran(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, sources)
    (wheel,) = tmp_path.glob("*.whl")
    assert "-cp311-abi3-" in wheel.name
    ran(sys.executable, "-m", "venv", "--without-pip", tmp_path / "clean")
    (packages,) = (tmp_path / "clean" / "lib").glob("python*/site-packages")
    ran(*pip, "install", "--no-deps", "--no-index", "--target", packages, wheel)
    # Everything but momos as here: its own editable install is a .pth file, which is not followed.
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    clean = tmp_path / "clean" / "bin" / "python"
    nowhere = {"PATH": str(clean.parent), "CC": "/none", "CXX": "/none", "PYTHONPATH": ""}
    printed = ran(clean, ROOT / "tools" / "smoke.py", **nowhere)
    assert str(packages / "momos") in printed


def test_wheels_are_built_for_every_platform_that_torch_has_wheels_for() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    assert all(name.startswith("cp311-") for name in settings["build"])  # the stable ABI's
    assert "--exclude libgomp.so.1" in settings["linux"]["repair-wheel-command"]
