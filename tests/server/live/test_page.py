"""The page in a browser: it keeps up with the run by itself, and fits every screen."""

from __future__ import annotations

import pytest

from tests.browser import CHROMIUM, Browser
from tests.strategies.offers_of import report
from wattfed.server.live.run import LiveRun
from wattfed.server.run.results import ResultsFolder

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
]
ROUNDS = "[...document.querySelectorAll('[aria-label=Rounds] tbody tr')]"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def test_it_follows_the_run_without_being_loaded_again(browser, served, running):
    browser.open(served.url)
    assert browser.evaluate("document.querySelector('h1').textContent") == "mine"
    browser.evaluate("window.loadedOnce = true")
    running.go_on(2)
    browser.wait_for(f"{ROUNDS}.length === 3")
    assert "running, round 2 of 4" in browser.evaluate("state.textContent")
    assert browser.evaluate("document.querySelectorAll('.chart .line').length") == 3 + 4
    running.finish()
    browser.wait_for("state.className === 'finished'")
    assert browser.evaluate(f"{ROUNDS}.map((row) => row.cells[0].textContent)") == [*"43210"]
    assert browser.evaluate("window.loadedOnce")
    assert not browser.complaints()
    assert {url.rpartition("/")[0] + "/" for url in browser.requested()} == {served.url}


def test_clients_show_predictions_budgets_and_troubles(browser, served, running, folder):
    running.finish()
    browser.open(served.url)
    cells = browser.evaluate(
        "[...document.querySelectorAll('[aria-label=Clients] tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
    )
    accounts = LiveRun(folder).look().clients
    assert [row[0] for row in cells] == [str(account.client) for account in accounts]
    for row, account in zip(cells, accounts, strict=True):
        assert row[1] == account.name != ""
        assert row[2] == f"{account.trained} of {account.asked}"
        predicted_s = float(row[5].replace(",", ""))
        assert predicted_s == pytest.approx(account.last.expected_time_s, rel=0.01)
        assert (row[10] == "\N{EN DASH}") == (account.client >= 2)
        assert row[12] == account.words


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 800, 1280])
def test_no_column_is_lost_at_any_width(browser, served, running, width, dark):
    running.go_on(3)
    browser.open(served.url, width, dark=dark)
    assert browser.out_of_sight() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    background, text = browser.evaluate(
        "((style) => [style.backgroundColor, style.color]"
        ".map((colour) => Number(colour.match(/[0-9]+/)[0])))(getComputedStyle(document.body))"
    )
    assert (background < 60 and text > 200) if dark else (background > 200 and text < 60)


def test_cells_say_what_they_are_on_a_phone(browser, served, running):
    running.go_on(3)
    browser.open(served.url, width=390)
    unnamed = (
        "[...document.querySelectorAll('tbody td')].filter((cell) => cell.offsetParent "
        "&& !getComputedStyle(cell, '::before').content.replaceAll('\"', '').trim())"
    )
    assert browser.evaluate(f"{unnamed}.map((cell) => cell.outerHTML)") == []
    labels = browser.evaluate(f"[...{ROUNDS}[0].cells].map((cell) => cell.dataset.label)")
    assert len(set(labels)) == len(labels) == browser.evaluate(f"{ROUNDS}[0].cells.length")


def test_a_table_stays_where_it_was_scrolled_to(browser, served, running):
    running.go_on()
    browser.open(served.url, width=390, height=300)
    table = "document.querySelector('[aria-label=Clients]')"
    browser.evaluate(f"{table}.scrollTop = 90")
    running.go_on()
    browser.wait_for(f"{ROUNDS}.length === 3")
    assert browser.evaluate(f"{table}.scrollTop") == 90


def test_what_a_client_says_is_not_run(browser, served, running, folder):
    declined = report(0, minibatches=0, decline="<img src=x onerror='window.owned = 1'>")
    ResultsFolder(folder).add_round(LiveRun(folder).look().rows[0], [declined])
    browser.open(served.url)
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    assert "onerror" in browser.evaluate("view.innerText")


def test_it_says_when_the_run_is_damaged_and_when_nobody_answers(browser, served, folder):
    browser.open(served.url)
    whole = (folder / "config.json").read_text()
    (folder / "config.json").write_text("{")
    browser.wait_for("state.textContent.includes('config.json: not readable')")
    (folder / "config.json").write_text(whole)
    browser.wait_for("state.className === 'running'")
    served.shutdown()
    served.server_close()
    browser.wait_for("state.textContent.startsWith('no answer')")
