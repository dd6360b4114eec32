"""What pages of docs/ say that can be checked: their Python runs, and the tests they name exist."""

import logging
import re
import tomllib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
STATUS = DOCS / "status.md"


def blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.name}, block {number}", block)
        for page in sorted((DOCS / "howto").glob("*.md"))
        for number, block in enumerate(
            re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), start=1
        )
    ]


@pytest.mark.parametrize(("where", "block"), blocks())
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
def test_a_block_of_a_how_to_runs(
    where: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # for what it saves
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        exec(compile(block, where, "exec"), {"__name__": "__main__"})


def test_the_tests_that_the_status_page_names_exist() -> None:
    named = re.findall(r"`tests/(\w+\.py)::(\w+)`", STATUS.read_text())
    assert named
    for file, test in named:
        text = (ROOT / "tests" / file).read_text()
        assert f"def {test}(" in text, f"{file}::{test}"


def test_every_link_between_pages_leads_to_a_file() -> None:
    """As a forge shows them; the site's own links are checked when it is built."""
    for page in DOCS.rglob("*.md"):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


NOT_HERE = {  # made by a command, or standing for several
    ".running/KEY.1",
    "build/site",
    "log/",
    "runs/demo/",
    "runs/study",
    "src/momos/x/y.py",
    "tests/test_x_y.py",
}
FORMER = {"codec.py", "files.py", "cli.py"}  # said to have become packages
PLACES = ("", "src", "src/momos", "src/momos/study", "src/momos/study/report/templates")


def test_every_file_that_a_page_names_exists() -> None:
    missing = []
    for page in (*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))):
        if page.name == "CHANGELOG.md":  # names what there was
            continue
        for name in re.findall(r"`([\w./-]+)`", page.read_text()):
            is_file = "/" in name or name.endswith((".py", ".toml", ".md"))
            if not is_file or name in NOT_HERE | FORMER:
                continue
            places = [page.parent, *(ROOT / place for place in PLACES)]
            if not any((place / name).exists() for place in places):
                missing.append(f"{page.relative_to(ROOT)}: {name}")
    assert not missing


def architecture(begins: str) -> str:
    """The code block of the page of architecture that begins so."""
    found = re.search(
        rf"```\n({re.escape(begins)}.*?)```",
        (DOCS / "architecture.md").read_text(),
        re.DOTALL,
    )
    assert found
    return found[1]


def test_the_architecture_shows_the_layers_that_the_linter_proves() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    house = settings["tool"]["importlinter"]["contracts"][0]
    assert architecture("cli\n").splitlines() == house["layers"]


def test_the_architecture_names_every_part_and_no_other() -> None:
    package = ROOT / "src" / "momos"
    entries = re.split(r"\n  (?=\S)", architecture("src/momos/\n"))[1:]
    named = {  # a line may name two files
        name for entry in entries for name in re.findall(r"[\w]+(?:\.py|/)", entry[:34])
    }
    files = {path.name for path in package.glob("*.py")}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == files | folders


def test_every_page_is_in_a_table_of_contents() -> None:
    """The strict build refuses others."""
    listed = {DOCS / "index.md"}
    for page in DOCS.rglob("*.md"):
        trees = re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL)
        names = [line for tree in trees for line in tree.split() if line[0] != ":"]
        listed |= {(page.parent / f"{name}.md").resolve() for name in names}
    pages = {page.resolve() for page in DOCS.rglob("*.md")}
    assert {page.name for page in pages - listed} == set()


def test_the_messages_that_the_page_of_errors_explains_are_in_the_source() -> None:
    literal = re.compile(r'f?"((?:[^"\\]|\\.)*)"\s*')
    words = "".join(
        "".join(literal.findall(path.read_text()))
        for path in sorted((ROOT / "src" / "momos").rglob("*.py"))
    )
    messages = re.findall(
        r"^\| `(.+?)` \|", (DOCS / "reference/errors.md").read_text(), re.M
    )
    assert messages
    assert [message for message in messages if message not in words] == []
