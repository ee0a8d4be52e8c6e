"""The report in a real browser, opened from disk: sort, filter, drill down, slide; no request leaves the folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from multirater.benchmark.figures import draw_figures
from multirater.benchmark.webreport import write_report

pytestmark = pytest.mark.browser
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def page(browser: Any, make_board: Make, fabricate_at: Make, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report of the small board, opened."""
    results = make_board(fabricate_at(tmp_path_factory.mktemp("browser") / "results"))
    draw_figures(results, ["diversity", "confusion"])
    folder = write_report(results, with_images=True).parent
    browser.get((folder / "index.html").as_uri())
    yield browser
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    log = " ".join(entry["message"] for entry in browser.get_log("performance"))
    assert "http://" not in log.replace("http://www.w3.org", "")
    assert "Network.webSocketCreated" not in log


def cells(page: Any, column: int) -> list[str]:
    """Texts of a column of the table that is shown."""
    script = (
        "return [...document.querySelectorAll('section:not([hidden]) table tbody tr')]"
        f".map(row => row.cells[{column}].textContent)"
    )
    return list(page.execute_script(script))


def type_into(page: Any, name: str, text: str) -> None:
    page.execute_script(
        "const box = document.getElementById(arguments[0]); box.value = arguments[1];"
        "box.dispatchEvent(new Event('input'));",
        name,
        text,
    )


def shown(page: Any, name: str) -> None:
    """Wait until it is: going back ends in an event of the browser, not within the click."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 10).until(lambda p: p.find_element("id", name).is_displayed())


def choose(page: Any, name: str, value: str) -> None:
    page.execute_script(
        "const box = document.getElementById(arguments[0]); box.value = arguments[1];"
        "box.dispatchEvent(new Event('change'));",
        name,
        value,
    )


def go(page: Any, place: str, wait_for: str) -> None:
    """Follow a link of the page and wait until the row's data have been loaded."""
    page.execute_script("location.hash = arguments[0]", place)
    page.find_element("css selector", wait_for)


def row_of(page: Any, name: str) -> int:
    return int(page.execute_script("return multirater.board.lines.find(l => l.name === arguments[0]).row", name))


def test_filter_and_sort(page: Any) -> None:
    go(page, "", "#table tbody tr")
    assert sorted(cells(page, 0)) == ["missing", "net", "net", "plain"]
    type_into(page, "filter", "net -personalised")
    assert cells(page, 1) == ["diverse"]
    assert page.find_element("id", "count").text == "1 of 4 rows"
    type_into(page, "filter", "")
    choose(page, "columns", "personalised")
    heads = [h.text for h in page.find_elements("css selector", "#table thead button")]
    column = heads.index("Dice mean ↑")
    page.find_elements("css selector", "#table thead button")[column].click()
    assert [float(t.split()[0].rstrip("†")) for t in cells(page, column)[:3]] == pytest.approx(
        [0.9, 0.8, 0.7], abs=0.01
    )
    page.find_elements("css selector", "#table thead button")[column].click()
    values = cells(page, column)
    assert float(values[0].split()[0].rstrip("†")) == pytest.approx(0.7, abs=0.01)
    assert values[-1] == "n/a"  # what has no value is last in both directions
    choose(page, "columns", "diversified")


def test_of_very_many_rows_the_first_are_drawn_until_all_are_asked_for(page: Any) -> None:
    go(page, "", "#table tbody tr")
    page.execute_script(
        "const lines = multirater.board.lines; const copies = lines.slice();"
        "while (lines.length < 400) lines.push(...copies.map(line => ({ ...line })));"
    )
    type_into(page, "filter", "")
    assert page.find_element("id", "count").text == "400 of 400 rows"
    assert len(page.find_elements("css selector", "#table tbody tr")) == 301
    page.find_element("css selector", "#table tr.more button").click()
    assert len(page.find_elements("css selector", "#table tbody tr")) == 400
    page.execute_script("multirater.board.lines.length = 4")
    type_into(page, "filter", "")


def test_drill_down_to_cells_with_their_configuration(page: Any) -> None:
    go(page, "", "#table tbody tr")
    type_into(page, "filter", "plain")
    page.find_element("css selector", "#table tbody tr td:nth-child(2)").click()
    assert page.find_element("css selector", "#detail h2").text == "plain"
    go(page, f"row/{row_of(page, 'plain')}/cells", "#tab details")
    text = page.find_element("id", "tab").get_attribute("textContent")
    assert '"seed": 0' in text
    assert '"train": 60' in text
    page.find_element("id", "back").click()
    shown(page, "table")
    type_into(page, "filter", "")


def test_cases_of_a_row(page: Any) -> None:
    go(page, f"row/{row_of(page, 'net')}/cases", "#output")
    assert len(cells(page, 0)) == 10
    first = cells(page, 0)[0]
    type_into(page, "within", first.split()[0])
    assert cells(page, 0) == [first]
    choose(page, "output", "personalised")
    heads = [h.text for h in page.find_elements("css selector", "#tab thead button")]
    assert "dice_rater[rater 1] ↑" in heads
    assert "ged ↓" not in heads


def test_the_slider_moves_through_the_samples(page: Any) -> None:
    go(page, f"row/{row_of(page, 'net')}/samples", ".viewer input")
    viewers = page.find_elements("css selector", ".viewer")
    assert len(viewers) == 5
    label = viewers[0].find_element("css selector", "output")
    layer = viewers[0].find_element("css selector", ".stack .output")
    assert label.text == "mean map > 0.5"
    before = layer.value_of_css_property("background-position")
    slide = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
    page.execute_script(slide, viewers[0].find_element("css selector", "input"), 11)
    assert label.text == "sample 8 of 8"
    assert layer.value_of_css_property("background-position") != before
    outlines = viewers[0].find_element("css selector", ".outlines")
    page.find_element("id", "outlines").click()
    assert not outlines.is_displayed()
    loaded = page.execute_async_script(
        "const done = arguments[0]; const url = getComputedStyle(document.querySelector('.stack .output'))"
        ".backgroundImage.slice(5, -2); const image = new Image();"
        "image.onload = () => done(image.naturalWidth); image.onerror = () => done(0); image.src = url;"
    )
    assert loaded > 0


def test_figures_of_a_row(page: Any) -> None:
    go(page, f"row/{row_of(page, 'net')}/figures", "#tab figure img")
    image = page.find_element("css selector", "#tab figure[data-kind=confusion] img")
    page.execute_script("arguments[0].loading = 'eager'; arguments[0].scrollIntoView()", image)
    width = page.execute_async_script(
        "const [image, done] = arguments; image.complete ? done(image.naturalWidth)"
        " : (image.onload = () => done(image.naturalWidth))",
        image,
    )
    assert width > 300


def test_a_missing_data_file_is_said(page: Any) -> None:
    go(page, "row/99", "#detail .warning")
    assert "row-99.js is missing" in page.find_element("css selector", "#detail .warning").text
    page.get_log("browser")  # the browser notes the failed load; it is expected
    go(page, "", "#table tbody tr")
    assert page.find_element("id", "table").is_displayed()
