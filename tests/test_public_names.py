"""Every public name has a docstring, and an example in it that runs and prints what it says."""

import doctest
import inspect
import logging
import warnings
from pathlib import Path

import pytest
import torch
from public_names import public_names, undocumented
from torch import nn

import momos

NAMES = public_names()
CALLED = {
    name: value
    for name, value in NAMES.items()
    if inspect.isclass(value) or inspect.isroutine(value)
}
ASSUMED = {"momos": momos, "torch": torch, "nn": nn}  # as docs/reference/index.md says


@pytest.mark.parametrize("name", CALLED)
def test_a_public_name_and_its_members_have_docstrings(name: str) -> None:
    assert undocumented(name, CALLED[name]) == []


@pytest.mark.parametrize("name", CALLED)
def test_the_example_of_a_public_name_prints_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # for what it saves
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    text = inspect.getdoc(CALLED[name]) or ""
    example = doctest.DocTestParser().get_doctest(text, dict(ASSUMED), name, None, 0)
    assert example.examples, f"the docstring of {name} must have an example"
    runner = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST)
    printed: list[str] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", "`isinstance.treespec", FutureWarning)  # of torch
        runner.run(example, out=printed.append, clear_globs=False)
    assert runner.failures == 0, "".join(printed)


def test_a_name_without_words_is_found() -> None:
    class Documented:
        """It is."""

        def method(self) -> None: ...

    def silent() -> None: ...

    assert undocumented("momos.Documented", Documented) == ["momos.Documented.method"]
    assert undocumented("momos.silent", silent) == ["momos.silent"]
