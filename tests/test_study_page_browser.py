"""The report in a real browser: headless Chromium, driven by ChromeDriver."""

import json
import re
import shutil
from collections.abc import Iterator
from itertools import combinations, pairwise

import pytest
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from test_study_page import write_broken, write_plane, write_runs

from momos.study.report.page import report

CHROMIUM, DRIVER = shutil.which("chromium") or "", shutil.which("chromedriver") or ""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
)

if not (CHROMIUM and DRIVER):
    pytest.skip(
        "needs chromium and chromedriver: apt-get install chromium chromium-driver",
        allow_module_level=True,
    )


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("runs")
    write_runs(place)
    write_broken(place)
    write_plane(place)
    return report([place], tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=Service(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def browser(opened: Chrome, url: str) -> Chrome:
    """The page anew, in a wide and light window."""
    show(opened, width=1280, scheme="light")
    opened.get(url)
    return opened


def show(browser: Chrome, *, width: int, scheme: str, height: int = 900) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
    metrics["mobile"] = width < 600
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def boxes(browser: Chrome, selector: str) -> list[list[float]]:
    script = """return [...document.querySelectorAll(arguments[0])].map((e) => {
        const box = e.getBoundingClientRect(); return [box.width, box.height]; })"""
    return browser.execute_script(script, selector)


def column(browser: Chrome, table: str, number: int) -> list[str]:
    script = """return [...document.getElementById(arguments[0]).tBodies[0].rows]
        .map((row) => row.cells[arguments[1]].dataset.value)"""
    return browser.execute_script(script, table, number)


def header(browser: Chrome, table: str, title: str):
    headers = browser.find_elements(By.CSS_SELECTOR, f"#{table} th")
    return next((n, th) for n, th in enumerate(headers) if th.text.startswith(title))


def test_it_opens_without_a_complaint_or_a_request(browser: Chrome) -> None:
    assert browser.get_log("browser") == []
    asked = [
        message["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    assert asked
    assert all(url.startswith(("file:", "data:", "chrome:")) for url in asked)
    assert all(not url.startswith("file:") or "report.html" in url for url in asked)


def test_every_figure_is_drawn(browser: Chrome) -> None:
    drawn = boxes(browser, "figure svg")
    assert len(drawn) == len(browser.find_elements(By.TAG_NAME, "figure")) == 11
    assert all(width > 300 and height > 100 for width, height in drawn)
    script = """return [...document.querySelectorAll("figure svg")].map((svg) =>
        [...svg.querySelectorAll("path, use, image")].filter((e) => e.getBBox().width > 0).length)"""
    assert min(browser.execute_script(script)) > 5


def test_headings_landmarks_and_names_are_in_order(browser: Chrome) -> None:
    assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    assert [len(browser.find_elements(By.TAG_NAME, n)) for n in ("h1", "main", "nav")] == [
        1
    ] * 3
    levels = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3')].map((e) => Number(e.tagName[1]))"
    )
    assert all(b - a <= 1 for a, b in pairwise(levels))
    script = """const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
        return ids.filter((id, n) => ids.indexOf(id) !== n)"""
    assert browser.execute_script(script) == []
    broken = browser.execute_script(
        """return [...document.querySelectorAll("a[href^='#']")].map((a) => a.hash.slice(1))
            .filter((id) => !document.getElementById(id))"""
    )
    assert broken == []


def test_a_table_sorts_by_numbers_both_ways(browser: Chrome) -> None:
    number, th = header(browser, "all-runs", "file, bytes")
    before = column(browser, "all-runs", number)
    button = th.find_element(By.TAG_NAME, "button")
    button.click()
    assert th.get_attribute("aria-sort") == "ascending"
    assert column(browser, "all-runs", number) == sorted(before, key=float)
    button.click()
    assert th.get_attribute("aria-sort") == "descending"
    assert column(browser, "all-runs", number) == sorted(before, key=float, reverse=True)
    sorted_ones = browser.find_elements(
        By.CSS_SELECTOR, "#all-runs th:not([aria-sort=none])"
    )
    assert len(sorted_ones) == 1


def test_a_table_sorts_by_words_with_the_keyboard(browser: Chrome) -> None:
    number, th = header(browser, "all-runs", "treatment")
    th.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    found = column(browser, "all-runs", number)
    assert found == sorted(found)
    assert len(set(found)) == 4
    said = browser.find_element(By.ID, "said").get_attribute("textContent")
    assert said == "sorted by treatment, ascending"


def test_what_has_no_value_is_sorted_last(browser: Chrome) -> None:
    number, th = header(browser, "measures-digits-accuracy", "shuffled")
    button = th.find_element(By.TAG_NAME, "button")
    for _ in range(2):
        browser.execute_script("arguments[0].click()", button)  # it may lie out of the box
        found = column(browser, "measures-digits-accuracy", number)
        missing = found.count("")
        assert missing > 0
        assert found[-missing:] == [""] * missing


def test_words_of_users_do_not_run(browser: Chrome) -> None:
    with pytest.raises(NoAlertPresentException):
        _ = browser.switch_to.alert.text
    settings = header(browser, "all-runs", "settings")[0]
    assert any("<script>" in value for value in column(browser, "all-runs", settings))
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 1


def test_mosaics_zoom_by_buttons_and_keys(browser: Chrome) -> None:
    root = browser.find_element(By.CSS_SELECTOR, ".zoom")
    box = root.find_element(By.CSS_SELECTOR, ".box")

    def width() -> float:
        return root.find_element(By.TAG_NAME, "svg").rect["width"]

    whole = width()
    root.find_element(By.CSS_SELECTOR, "[data-zoom=in]").click()
    assert width() == pytest.approx(2 * whole, abs=2)
    assert root.find_element(By.TAG_NAME, "output").text == "200 %"
    box.send_keys("+")
    assert width() == pytest.approx(4 * whole, abs=4)
    scrolled = browser.execute_script("return arguments[0].scrollLeft", box)
    assert scrolled == pytest.approx(1.5 * whole, rel=0.05)
    box.send_keys("-")
    assert width() == pytest.approx(2 * whole, abs=2)
    box.send_keys("0")
    assert width() == pytest.approx(whole, abs=1)
    assert not root.find_element(By.CSS_SELECTOR, "[data-zoom=out]").is_enabled()


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Chrome) -> None:
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    reached, outlines = [], []
    for _ in range(40):
        active = browser.switch_to.active_element
        reached.append(active.tag_name)
        outlines.append(active.value_of_css_property("outline-style"))
        active.send_keys(Keys.TAB)
    assert reached[0] == "a"
    assert {"a", "button", "div"} <= set(reached)
    assert set(outlines) == {"solid"}


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_first_screen_is_one_picture_and_the_claims_in_words(
    browser: Chrome, width: int, height: int
) -> None:
    show(browser, width=width, height=height, scheme="light")
    browser.refresh()
    script = """return [...document.querySelectorAll(arguments[0])]
        .map((e) => [e.getBoundingClientRect(), e.textContent])
        .map(([box, text]) => [box.left, box.top, box.right, box.bottom, text])"""
    seen = [box for box in browser.execute_script(script, "figure") if box[1] < height]
    assert len(seen) == 1
    assert seen[0][3] < height
    claims = browser.execute_script(script, ".claims h3")
    verdicts = browser.execute_script(script, ".claims strong")
    assert len(claims) == len(verdicts) == 3
    assert all(0 <= left < right <= width for left, _, right, _, _ in claims)
    assert max(box[3] for box in (*claims, *verdicts)) < height
    assert not browser.execute_script(
        "return [...document.querySelectorAll('table')].some("
        "(e) => e.getBoundingClientRect().top < innerHeight)"
    )
    script = """return arguments[0].map((text) =>
        document.querySelector("main").textContent.split(text).length - 1)"""
    sentences = [text.rstrip(".") for *_, text in claims]
    assert browser.execute_script(script, sentences) == [1, 1, 1]
    apart = [seen[0], *claims, *verdicts]
    for one, other in combinations(apart, 2):
        across = min(one[2], other[2]) - max(one[0], other[0])
        assert min(across, min(one[3], other[3]) - max(one[1], other[1])) <= 0.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(browser: Chrome, scheme: str) -> None:
    show(browser, width=1280, scheme=scheme)
    page = browser.find_element(By.TAG_NAME, "body")
    dark = scheme == "dark"
    assert (luminance(page.value_of_css_property("background-color")) < 0.2) == dark
    card = browser.find_element(By.TAG_NAME, "figure").value_of_css_property(
        "background-color"
    )
    script = """return [...new Set([...document.querySelectorAll(arguments[0])]
        .map((e) => getComputedStyle(e)[arguments[1]]))]"""
    words = [("figure svg text", "fill"), ("figcaption, h3, td, th button, a", "color")]
    for selector, kind in words:
        for colour in browser.execute_script(script, selector, kind):
            assert contrast(colour, card) >= 4.5, (selector, colour)
    variables = [f"--series-{n}" for n in range(8)] + [f"--step-{n}" for n in range(5)]
    script = """const style = getComputedStyle(document.documentElement);
        return arguments[0].map((name) => style.getPropertyValue(name))"""
    for colour in browser.execute_script(script, variables):
        assert contrast(colour, card) >= 3, colour


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Chrome, scheme: str) -> None:
    show(browser, width=390, scheme=scheme)
    browser.refresh()
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    assert browser.execute_script("return innerWidth") == 390
    assert all(0 < width <= 390 for width, _ in boxes(browser, "figure, .wide, figure svg"))
    inner = browser.execute_script(
        """const box = document.querySelector("#runs .wide");
            return [box.scrollWidth, box.clientWidth]"""
    )
    assert inner[0] > inner[1]
    assert all(height >= 34 for _, height in boxes(browser, "button"))
    sizes = browser.execute_script(
        """return [...document.querySelectorAll("figure svg text")]
            .map((e) => parseFloat(getComputedStyle(e).fontSize)
                * Math.hypot(e.getScreenCTM().c, e.getScreenCTM().d))"""
    )
    assert min(sizes) > 7
    assert browser.get_log("browser") == []


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2) of `rgb(…)` or `#rrggbb`."""
    if colour.startswith("#"):
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    else:
        channels = [float(each) / 255 for each in re.findall(r"[\d.]+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
