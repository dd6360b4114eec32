"""What a rewrite must leave as it is: keys of cells, pages made of run folders, the command's help.

`pytest tests/test_study_pins.py --write-pins` writes the pinned texts anew.
"""

import csv
import re
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
import results_page
import sizes_page
from commands import invoke
from study_runs import write_everything

from momos.study.cell import Cell, ordered
from momos.study.recipes import RECIPES
from momos.study.recipes.sizes import Sizes
from momos.study.report.page import report
from momos.study.sweep import grid

PINS = Path(__file__).parent / "reference" / "study"
LEARNED = Cell(
    task="digits",
    treatment="learned",
    settings={"rate_weight": 0.72, "every": 2},
    seed=2,
    epochs=25,
    controls=2,
)
START = Cell(task="fashion", epochs=12)
SWEPT = {"task": "digits", "treatment": "sampled", "epochs": 20, "dense_start": True}
KEYS = {  # of runs that are finished
    "23b0ac08c16e": Cell(task="digits"),
    "2bbccf9588aa": LEARNED,
    "cf3cc50ebc57": replace(LEARNED, epochs=25.0),
    "fc36525b617c": Cell(
        task="digits",
        treatment="sampled",
        settings={"block_size": 2, "capacity": 0.05},
        measure_every=5,
    ),
    "0f3be75ba8c6": Cell(
        task="fashion",
        treatment="prune",
        settings={"sparsity": 0.9},
        epochs=0.5,
        learning_rate=1e-3,
        start=START,
        teacher=START,
    ),
    "34e7d70f836c": Cell(task="resnet20", treatment="published", seed=3),
    "819b7c6cc6ff": Cell(
        task="mod97",
        network="grokking:256",
        weight_decay=1.0,
        epochs=5000,
        record_every=50,
        measure_every=250,
    ),
    "9dcb6889f498": Cell(
        task="digits",
        validation=0.1,
        patience=5,
        keep="best",
        precision="bfloat16",
        channels_last=True,
    ),
    "60f7d89f03f8": grid(SWEPT, {"settings.block_size": [2, 4]})[1],
    "b9c3e20d60ad": Sizes(task="resnet20").cells()[-1],
}
OF_RECIPES = {  # the first digits of a hash of the keys of all that they need
    "demo": "598569a0d22e",
    "simplify": "5cfc0754e380",
    "compressors": "cfe9529efa62",
    "sizes": "43e56f6a209b",
    "ablations": "19c6f2821223",
    "capacity": "af0dfe5c4db0",
    "records": "1ac019b3c147",
    "usage": "9ab31f85e6b6",
    "plane": "dd1aa227bcc5",
    "grokking": "819b7c6cc6ff",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_everything(tmp_path_factory.mktemp("runs"))


class Words(HTMLParser):
    """The text of a page, and what its figures say to those who cannot see them."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.words = 0, []

    def handle_starttag(self, tag: str, attrs) -> None:
        self.inside += tag in ("svg", "style", "script")
        self.words += [value for name, value in attrs if name in ("title", "alt") and value]

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag in ("svg", "style", "script")

    def handle_data(self, data: str) -> None:
        if not self.inside and data.strip():
            self.words.append(" ".join(data.split()))


def rounded(cell: str) -> str:
    try:
        return f"{float(cell):.6g}"
    except ValueError:
        return cell


def tables(folder: Path) -> str:
    """The numbers of CSV files, to six digits."""
    texts = []
    for path in sorted(folder.rglob("*.csv")):
        if path.name.startswith(("mosaic-", "all-", "verdicts", "measures")):
            continue  # thousands of tiles, and what is on the page itself
        with path.open(newline="", encoding="utf-8") as file:
            rows = [" | ".join(map(rounded, row)) for row in csv.reader(file)]
        texts += [f"== {path.name}", *rows]
    return "\n".join(texts) + "\n"


def check(name: str, text: str, write: bool) -> None:
    path = PINS / name
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


@pytest.fixture
def writes(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("--write-pins")


def test_the_report_says_the_same(runs: Path, tmp_path: Path, writes: bool) -> None:
    page = report([runs], tmp_path)
    words = Words()
    words.feed(page.read_text("utf-8"))
    text = "\n".join(words.words).replace(str(runs.resolve()), "RUNS") + "\n"
    text = re.sub(r"\.\./[^ ]*?(?=digits-|mod97-)", "RUNS/", text)
    check("report.txt", text, writes)
    check("report_tables.txt", tables(tmp_path), writes)


def test_the_pages_of_results_say_the_same(
    runs: Path, tmp_path: Path, writes: bool
) -> None:
    docs = Path(__file__).parents[1] / "docs"
    for name, write in (("results.md", results_page.main), ("sizes.md", sizes_page.main)):
        places = re.findall("<!-- generated: (.*) -->", (docs / name).read_text("utf-8"))
        skeleton = [f"<!-- generated: {each} -->\n<!-- end -->\n" for each in places]
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(skeleton))
        write([str(runs), "-o", str(tmp_path)])
        check(name, (tmp_path / name).read_text("utf-8"), writes)
    check("results_tables.txt", tables(tmp_path), writes)


def test_cells_keep_their_keys() -> None:
    assert [cell.key for cell in KEYS.values()] == list(KEYS)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_stand_for_the_same_cells(name: str) -> None:
    keys = [cell.key for cell in ordered(RECIPES[name]().runs())]
    found = sha256("".join(keys).encode()).hexdigest()[:12]
    assert OF_RECIPES[name] == (keys[0] if len(keys) == 1 else found)


@pytest.mark.parametrize("command", ["", "list", "run", "sweep", "report", "compare"])
def test_the_command_is_as_it_was(command: str, writes: bool) -> None:
    found = invoke("study", *filter(None, [command]), "--help", columns=90)
    check(f"help_{command or 'study'}.txt", found.output, writes)
