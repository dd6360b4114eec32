"""Tables fit a terminal, and are one whole line a row in a pipe."""

import io
import json

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

import momos
from momos.cli import tables
from momos.cli.measure import show_measurements
from momos.cli.tables import Column, print_rows, shortened, shortened_names

COLUMNS = (
    *(Column("tensor"), Column("shape"), Column("motifs", number=True, rank=1)),
    *(Column("bits/weight", number=True), Column("of init", number=True, opens=True)),
    Column("values", number=True),
)
LONG = "base_model.model.model.layers.{}.self_attn.q_proj.lora_A.default.weight"


def console(width: int | None, encoding: str = "utf-8") -> Console:
    """A terminal of `width` columns, or a pipe."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    terminal = width is not None
    return Console(
        file=file,
        width=width or 80,
        force_terminal=terminal,
        color_system=None,
        markup=False,
    )


def printed(out: Console) -> list[str]:
    out.file.flush()
    return out.file.buffer.getvalue().decode(out.encoding).splitlines()


def lines(rows: list[list[str]], width: int | None, encoding: str = "utf-8") -> list[str]:
    out = console(width, encoding)
    print_rows(out, COLUMNS, rows)
    return printed(out)


ROWS = [
    [LONG.format(10), "8×4096", "1,234", "3.00", "100.00%", "99.00%"],
    ["b", "", "", "26.97", "", ""],
]


def test_a_pipe_gets_every_name_and_column_in_one_line_a_row():
    found = [line.split() for line in lines(ROWS, None)]
    assert found[1] == [LONG.format(10), "8×4096", "1234", "3.00", "100.00%", "99.00%"]
    assert found[2] == ["b", "-", "-", "26.97", "-", "-"]
    assert len(found) == 3


@pytest.mark.parametrize("width", [40, 60, 80, 100, 110, 160])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_terminal_gets_lines_that_fit_it(width, encoding):
    found = lines(ROWS, width, encoding)
    assert max(map(len, found)) <= width
    titles = " ".join(found)
    for column in COLUMNS:
        assert column.title in titles or column.rank, found


def test_a_name_that_is_too_long_keeps_both_ends():
    row = lines(ROWS, 80)[1].split()
    assert row[0].startswith("base_model.")
    assert row[0].endswith(".weight")
    assert "…" in row[0]
    assert LONG.format(10) in lines(ROWS, 160)[1]


def test_long_names_still_differ():
    rows = [[LONG.format(at), "8×8", "1", "2.00", "", ""] for at in range(3)]
    rows += [[row[0].replace("q_proj", "k_proj"), *row[1:]] for row in rows]
    found = [line.split()[0] for line in lines(rows, 80)[1:]]
    assert len(set(found)) == 6
    assert all("proj" in name for name in found)
    names = ["a" * 30, "b." + "a" * 30]  # nothing in common
    assert shortened_names(names, 9) == ["aaaa…aaaa", "b.aa…aaaa"]
    names = [f"{'model/' * 9}{at}{'/model' * 9}" for at in "xy"]
    assert shortened_names(names, 12) == ["…x/…model", "…y/…model"]


def test_a_row_is_aligned_by_what_the_terminal_shows():
    found = lines(
        [["図.w", "", "", "1.00", "", ""], ["w", "", "", "2.00", "", ""]], 80, "ascii"
    )
    assert found[1].startswith(r"\u56f3.w ")
    assert found[1].index("1.00") == found[2].index("2.00")


def test_columns_that_do_not_fit_continue_where_a_table_may_begin():
    heads = [line.split() for line in lines(ROWS, 50) if line.startswith("tensor")]
    assert heads == [["tensor", "shape", "bits/weight"], ["tensor", "of", "init", "values"]]


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "ab…ef"),
        ("abcdef", 2, "a…"),
        ("図表図表", 5, "図…表"),
    ],
)
def test_what_is_shortened_is_as_wide_as_it_may_be(text, width, expected):
    assert shortened(text, width) == expected


# The commands


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> momos.SaveReport:
    folder = tmp_path_factory.mktemp("columns")
    torch.manual_seed(0)
    state = {LONG.format(at): torch.randn(64, 64) for at in range(3)}
    state |= {"bn.running_mean": torch.randn(64), "n": torch.tensor(3)}
    save_file(state, folder / "x.safetensors")
    config = momos.MosaicConfig(block_size=4, num_motifs=16, selection="kmeans")
    return momos.compress(folder / "x.safetensors", folder / "x.momos", config)


def shown(report: momos.SaveReport, width: int | None) -> list[str]:
    out = console(width)
    tables.show(report, out)
    return printed(out)


def test_a_report_fits_a_usual_terminal(report):
    found = shown(report, 80)
    assert found[0].split() == [
        *("tensor", "shape", "stored", "blocks", "motifs", "bits/weight", "error")
    ]
    assert max(map(len, found[:-1])) <= 80  # the last line has the path, for copying
    assert "dense, running statistics: bn.running_mean" in found
    settings = next(line for line in found if line.startswith("settings: "))
    assert "block_size=4 num_motifs=16" in settings


def test_a_report_in_a_pipe_names_each_tensor_and_why_it_is_dense(report):
    found = shown(report, None)
    rows = {line.split()[0]: line for line in found if line}
    for tensor in report.tensors:
        cells = rows[tensor.name].split()
        assert cells[2] == tensor.stored
        if tensor.stored == "blocks":
            assert cells[3:5] == [str(tensor.num_blocks), str(tensor.num_motifs)]
            assert cells[6] == f"{tensor.relative_error:.2%}"
    assert rows["bn.running_mean"].endswith("float32  running statistics")
    assert sum("settings: " in line for line in found) == 1


def test_errors_that_may_damage_a_network_are_pointed_out(report):
    assert report.relative_error > tables.LARGE_ERROR
    text = "\n".join(shown(report, None))
    assert f"error of all blocks, ‖w − ŵ‖² / ‖w‖²: {report.relative_error:.2%}" in text
    assert "error above 5%, which may damage a network: " in text


def test_relative_errors_are_those_of_the_weights(report):
    assert momos.inspect(report.path).relative_error == report.relative_error
    weights = momos.load(report.path).state_dict()
    torch.manual_seed(0)
    before = {LONG.format(at): torch.randn(64, 64) for at in range(3)}
    lost = {
        n: float((weights[n] - one).double().square().sum()) for n, one in before.items()
    }
    energy = {name: float(one.double().square().sum()) for name, one in before.items()}
    whole = sum(lost.values()) / sum(energy.values())
    assert report.relative_error == pytest.approx(whole, rel=1e-3)
    value = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    shares = {own["name"]: own["relative_error"] for own in value["tensors"]}
    assert shares.pop("n") is shares.pop("bn.running_mean") is None
    for name, share in shares.items():
        assert share == pytest.approx(lost[name] / energy[name], rel=1e-3)
    assert value["relative_error"] == report.relative_error


def test_a_file_that_is_larger_than_the_original_is_said_to_be(tmp_path):
    save_file({"w": torch.randn(4, 4)}, tmp_path / "x.safetensors")
    config = momos.MosaicConfig(block_size=4, num_motifs=4)
    report = momos.compress(tmp_path / "x.safetensors", tmp_path / "x.momos", config)
    size, before = report.num_bytes, (tmp_path / "x.safetensors").stat().st_size
    found = shown(report, None)[-2:]
    assert found[0] == f"larger than the original: {size:,} bytes instead of {before:,}"
    assert found[1].endswith(f"for 64 bytes of tensors, {size / 64:.2f} times larger")


@pytest.mark.parametrize("width", [60, 80, 100, 110])
def test_every_column_of_what_training_changed_is_shown(width):
    torch.manual_seed(0)
    weights = {"w": torch.randn(30, 30)}
    found = momos.measure(weights, init={"w": torch.randn(30, 30)}, controls=2)
    out = console(width)
    show_measurements({"x.safetensors": found}, out)
    text = printed(out)
    for title in (
        "measure",
        "kind",
        "bits/weight",
        "of shuffled",
        "of init",
        "arrangement",
    ):
        assert any(title in line for line in text if line.startswith("measure")), title
    assert max(map(len, text)) <= width
    for row in found.rows:
        assert any(line.startswith(f"{row.name}  ") for line in text), row.name
