"""The server of the page: it can be read, and nothing else can be done with it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from powerctl.errors import InvalidInput
from tests import warm
from tests.strategies.offers_of import report
from tests.waiting import TIMEOUT_S
from wattfed.server.live.run import LiveRun
from wattfed.server.live.web import WatchServer
from wattfed.server.run.results import ResultsFolder

pytestmark = pytest.mark.processes

PATHS = ("/", "/view", "/state.json", "/run.json", "/metrics")
WATTFED = Path(sys.executable).parent / "wattfed"


def ask(server, path, method="GET", **headers) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=TIMEOUT_S)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, content, dict(answer.getheaders())


def send(server, request: bytes) -> str:
    """The first line of the answer to some bytes."""
    with socket.create_connection(server.server_address[:2], timeout=TIMEOUT_S) as connection:
        connection.sendall(request)
        return connection.makefile().readline().strip()


def test_every_path_answers_and_lets_a_browser_do_no_more_than_it_needs(served):
    for path in PATHS:
        status, content, headers = ask(served, path)
        assert status == 200 and content
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "http" not in policy and headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store" and "Python" not in headers["Server"]


def test_json_follows_the_run(served, running, folder):
    versions = []
    for server_round in range(3):
        state = json.loads(ask(served, "/state.json")[1])
        assert f"round {server_round} of 4" in state["state"] and not state["finished"]
        versions += [state["version"], json.loads(ask(served, "/state.json")[1])["version"]]
        assert json.loads(ask(served, "/run.json")[1]) == LiveRun(folder).look().record()
        running.go_on()
    assert versions[::2] == versions[1::2] and len(set(versions)) == 3
    running.finish()
    assert json.loads(ask(served, "/state.json")[1])["finished"]


def test_a_run_that_has_only_begun_is_served_too(served, running, folder):
    ResultsFolder(folder).begin(running.config)
    assert "not evaluated yet" in ask(served, "/")[1]
    assert all(ask(served, path)[0] == 200 for path in PATHS)


def test_many_readers_at_a_time_see_the_same(served, running):
    running.go_on(2)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(served, "/run.json")[1], range(24)))
    assert len(set(answers)) == 1


@pytest.mark.parametrize(
    "path",
    ["/x", "/view/", "/../config.json", "/%2e%2e/config.json", "/config.json", "http://a/"],
)
def test_no_path_leads_to_a_file(served, path):
    assert ask(served, path, Host="localhost")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"])
def test_other_methods_than_get_are_refused(served, method):
    status, _, headers = ask(served, "/", method)
    assert (status, headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", "400"),
        (b"GET / HTTP/9.9\r\n\r\n", "400"),
        (b"GET / FTP\r\n\r\n", "400"),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n", "414"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", "431"),
        (b"GET / HTTP/1.1\r\n\r\n", "421"),
    ],
)
def test_bad_requests_are_told_so(served, request_bytes, status):
    assert status in send(served, request_bytes)
    assert ask(served, "/state.json")[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8477", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("192.168.1.5:8477", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:80", 421),
        ("localhost.evil.example", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_a_page_that_had_its_own_name_resolved_to_this_address_is_refused(served, host, status):
    assert ask(served, "/run.json", Host=host)[0] == status


def test_a_damaged_run_is_named_until_it_is_mended(served, running, folder):
    running.go_on()
    whole = (folder / "config.json").read_text()
    (folder / "config.json").write_text("{")
    status, content, _ = ask(served, "/state.json")
    assert status == 503 and "config.json: not readable" in content
    (folder / "config.json").write_text(whole)
    assert ask(served, "/state.json")[0] == 200


def test_what_a_client_says_is_text_on_the_page(served, folder):
    now = LiveRun(folder).look()
    declined = report(0, minibatches=0, decline="<script>alert(1)</script><img src=x>")
    ResultsFolder(folder).add_round(now.rows[0], [declined])
    content = ask(served, "/view")[1]
    assert "&lt;script&gt;alert(1)" in content
    assert "<script" not in content and "<img" not in content


def test_a_port_that_is_taken_and_a_name_that_is_none_are_errors(served, folder):
    for host, port in (("127.0.0.1", served.server_address[1]), ("no such host", 0)):
        with pytest.raises(InvalidInput, match=f"cannot listen at {host}, port {port}"):
            WatchServer(LiveRun(folder), host, port)


def test_it_says_where_it_is_and_whether_others_can_reach_it(folder):
    for host, url, is_public in (
        ("localhost", "http://localhost:", False),
        ("0.0.0.0", "http://0.0.0.0:", True),
    ):
        with WatchServer(LiveRun(folder), host, 0) as server:
            assert server.url.startswith(url) and server.is_public == is_public


def test_a_simulation_in_another_process_is_watched_to_its_end(tmp_path, fleet):
    runs = tmp_path / "runs"
    simulate = f"simulate --task noop --fleet {fleet} --rounds 30 --strategy random --workers 1"
    command = [WATTFED, *simulate.split(), "--out-dir", runs, "--local-epochs", "1"]
    run = warm.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while "initial model" not in run.stderr.readline():
        assert run.poll() is None
    command = [WATTFED, "watch", runs, "--port", "0"]
    with warm.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        url = watch.stdout.readline().strip()

        def get(path):
            return json.load(urllib.request.urlopen(f"{url}{path}", timeout=TIMEOUT_S))

        assert get("state.json")["state"]
        run.communicate(timeout=TIMEOUT_S)
        assert run.returncode == 0 and get("state.json")["finished"]
        record = get("run.json")
        watch.send_signal(signal.SIGINT)
    assert watch.returncode == 0
    assert [row["round"] for row in record["rounds"]] == list(range(31))
    (folder,) = runs.iterdir()
    assert record["summary"] == json.loads((folder / "summary.json").read_text())
