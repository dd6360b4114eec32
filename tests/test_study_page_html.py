import csv
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_study_page import HOSTILE, write_broken, write_plane, write_run, write_runs

from momos.study.cell import Cell
from momos.study.report.page import report
from momos.study.store import RESULT, begin, read_all, write_json


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    write_runs(place)
    write_broken(place)
    write_plane(place)
    return place


@pytest.fixture(scope="module")
def page(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report([place], tmp_path_factory.mktemp("report"))


def opened(path: Path) -> str:
    return path.read_text("utf-8")


def names_of(page: Path) -> list[str]:
    return re.findall(r'<figure id="([^"]*)">', opened(page))


def test_every_figure_is_there_as_png_svg_and_csv(page: Path) -> None:
    names = names_of(page)
    assert len(names) == len(set(names)) == 11
    for name in names:
        stem = page.parent / "figures" / name
        assert stem.with_name(f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert ElementTree.parse(f"{stem}.svg").getroot().tag.endswith("svg")
        with open(f"{stem}.csv", newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        assert rows
        assert {len(row) for row in rows} == {len(header)}


def test_every_figure_says_units_and_n_and_what_it_shows(page: Path) -> None:
    text = opened(page)
    captions = re.findall(r"<figcaption>.*?<p>(.*?)<", text, re.DOTALL)
    assert len(captions) == len(names_of(page))
    assert all(re.search(r"n = \d", caption) for caption in captions)
    units = r"bits|%|score|bytes|[Nn]umber|weights|nats"
    assert all(re.search(units, caption, re.IGNORECASE) for caption in captions)
    alts = re.findall(r'-alt" class="unseen">(.*?)</p>', text)
    assert len(alts) == len(captions)
    assert all(len(alt) > 30 for alt in alts)


def test_the_page_needs_nothing_beside_it(page: Path) -> None:
    text = opened(page)
    assert not re.findall(r'\bsrc="(?!data:)', text)
    assert not re.findall(r'(?:href|action)="(?:https?:)?//', text)
    assert not re.findall(r"@import|url\((?!#)", text)
    loaded = re.findall(r"<(?:link|script|img|iframe)\b[^>]*>", text)
    assert sorted(loaded) == ['<link rel="icon" href="data:,">', "<script>"]


def test_words_of_users_are_words(page: Path) -> None:
    text = opened(page)
    assert HOSTILE not in text
    assert "&lt;script&gt;alert" in text
    assert "<b>no memory" not in text


def test_what_is_left_out_is_named_with_why(page: Path, place: Path) -> None:
    text = opened(page)
    _, broken = read_all([place])
    assert len(broken) == 3
    listed = text[text.index('<ul class="broken">') :]
    for each in broken:
        assert f"<strong>{each.folder.name}</strong>" in listed
    for why in ("no memory", "it has not finished", "result.json is no JSON"):
        assert why in listed


def test_drawings_take_the_colours_of_the_page(page: Path) -> None:
    drawings = re.findall(r"<svg.*?</svg>", opened(page), re.DOTALL)
    assert len(drawings) == 11
    for drawing in drawings:
        assert "currentColor" in drawing
        assert not re.findall(r"(?:#1c2126|#000000|black)\b", drawing)
        assert "<style" not in drawing


def test_the_same_runs_give_the_same_page(page: Path, place: Path) -> None:
    first = opened(page)
    assert opened(report([place], page.parent)) == first


def test_a_second_folder_of_a_run_is_no_second_seed(tmp_path: Path) -> None:
    cell = Cell(task="digits", treatment="prune", settings={"to": 0.5})
    for name in ("a", "b"):
        write_run(tmp_path / name, cell, metric=0.9, bits=8, share=0.9)
    text = opened(report([tmp_path], tmp_path / "report"))
    assert "1 finished run of 1 treatment and 1 seed" in text
    assert "it is the same run as" in text


def test_damaged_networks_and_planes_are_named(tmp_path: Path) -> None:
    cell = Cell(task="digits", treatment="learned", settings={"block_size": 4})
    folder = write_run(tmp_path, cell, metric=0.9, bits=0, share=0.9, mosaic=True)
    (folder / "network.momos").write_bytes(b"MOMOS and nothing else")
    (tmp_path / "plane").mkdir()
    write_json(tmp_path / "plane" / "plane.json", {"x": [0, 1]})
    text = opened(report([tmp_path], tmp_path / "report"))
    listed = text[text.index('<ul class="broken">') :]
    assert "network.momos" in listed
    assert "plane.json is damaged: it lacks" in listed
    assert 'id="runs"' in text


def test_without_runs_there_is_no_page(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(
        ValueError, match=r"at least one run, got none in .*runs \(momos study"
    ):
        report([tmp_path / "runs"], tmp_path / "report")
    assert not (tmp_path / "report").exists()
    with pytest.raises(FileNotFoundError, match="runs must be in a folder"):
        report([tmp_path / "none"], tmp_path / "report")


def test_a_page_of_broken_runs_only_says_so(tmp_path: Path) -> None:
    begin(tmp_path / "runs" / "a", Cell(task="digits"), recipe="", environment={})
    text = opened(report([tmp_path / "runs"], tmp_path / "report"))
    assert "No finished runs." in text
    assert "it has not finished" in text
    assert "<figure" not in text


def test_a_run_that_diverged_and_an_unknown_metric_are_shown(tmp_path: Path) -> None:
    cells = [Cell(task="text", seed=seed) for seed in range(2)]
    for cell, metric in zip(cells, (float("nan"), 1.5), strict=True):
        folder = write_run(tmp_path, cell, metric=metric, bits=8, share=0.9)
        path = folder / RESULT
        path.write_text(path.read_text().replace('"accuracy"', '"perplexity"'))
    text = opened(report([tmp_path], tmp_path / "report"))
    assert "perplexity against file length: text".capitalize() in text
    assert text.count('data-value="1.5"') == 1
    assert 'data-value="nan"' not in text


def test_settings_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    for value in ("\u202e\t", "\x00\n]]>--><b>", "$x_{$", "_hidden"):
        settings = {"a": value}
        cell = Cell(task="digits", treatment="learned", settings=settings, measure_every=1)
        write_run(tmp_path, cell, metric=0.9, bits=0, share=0.9, mosaic=True)
    page = report([tmp_path], tmp_path / "report")
    assert "4 finished runs" in opened(page)
    assert "<b>" not in opened(page)
    for svg in (tmp_path / "report" / "figures").glob("*.svg"):
        ElementTree.parse(svg)
