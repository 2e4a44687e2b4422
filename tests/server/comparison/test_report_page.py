"""The report in a browser: all of it is in sight, on a phone, a desk and paper."""

from __future__ import annotations

import shutil

import pytest

from tests.browser import CHROMIUM, Browser
from wattfed.server.comparison.report import build_report

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(whole, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "compared"
    shutil.copytree(whole.path, folder)
    return build_report(folder)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 800, 1280])
def test_no_column_is_lost_at_any_width(browser, page, width, dark):
    browser.open(page.as_uri(), width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    assert browser.out_of_sight() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    first = "document.querySelector('main').innerText.split('\\n')[0]"
    assert browser.evaluate(first) == browser.evaluate("document.querySelector('h1').innerText")
    background = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]"
    assert (int(browser.evaluate(background)) < 60) == dark
    assert not browser.complaints()


def test_cells_say_what_they_are_where_there_is_no_head(browser, page):
    browser.open(page.as_uri(), 390)
    labels = browser.evaluate(
        "[...document.querySelectorAll('tbody tr')].map((row) => "
        "[...row.cells].slice(1).map((cell) => cell.dataset.label))"
    )
    heads = browser.evaluate(
        "[...document.querySelectorAll('tbody tr')].map((row) => "
        "[...row.closest('table').tHead.rows[0].cells].slice(1).map((head) => head.textContent))"
    )
    assert labels == heads and labels[0]
    assert browser.evaluate("document.querySelector('thead').getBoundingClientRect().width") <= 1


def test_it_prints_in_light_with_all_columns_and_nothing_folded(browser, page):
    browser.open(page.as_uri(), 718, dark=True)  # an A4 page less its margins
    browser.call(
        "Emulation.setEmulatedMedia",
        media="print",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    browser.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    assert browser.out_of_sight() == []
    text = "getComputedStyle(document.body).color.match(/[0-9]+/)[0]"
    assert int(browser.evaluate(text)) < 60
    browser.call("Emulation.setEmulatedMedia", media="")


def test_a_click_on_a_head_sorts_and_one_on_a_name_picks_its_lines_out(browser, page):
    browser.open(page.as_uri(), 1280)
    table = "document.querySelectorAll('table')[0]"
    rows = f"[...{table}.tBodies[0].rows].map((row) => row.cells[3].dataset.value)"
    browser.evaluate(f"{table}.querySelectorAll('th button')[3].click()")
    energies = [float(value) for value in browser.evaluate(rows) if value]
    assert energies == sorted(energies)
    browser.evaluate("document.querySelector('.legend button').click()")
    assert browser.evaluate("document.querySelectorAll('.charts .series.on').length") == 3
