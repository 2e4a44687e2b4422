from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.errors import InvalidInput
from wattfed.client.fleet import load_fleet
from wattfed.client.fleet.traces import Traces, read_traces


def fedscale(tmp_path, *traces):
    devices = {
        client: {
            "duration": sum(b - a for a, b in zip(active, inactive, strict=True)),
            "active": active,
            "inactive": inactive,
            "finish_time": finish,
            "model": "phone",
        }
        for client, (active, inactive, finish) in enumerate(traces, start=1)
    }
    path = tmp_path / "client_behave_trace.pkl"
    path.write_bytes(pickle.dumps(devices, protocol=4))
    return path


def flash(tmp_path, **devices):
    path = tmp_path / "state_traces.json"
    content = {
        guid: {"model": "phone", "messages": "\n".join("\t".join(m) for m in messages)}
        for guid, messages in devices.items()
    }
    path.write_text(json.dumps(content))
    return path


def test_a_fedscale_trace_gives_active_intervals_that_begin_again(tmp_path):
    traces = read_traces(fedscale(tmp_path, ([10, 50], [20, 60], 100), ([], [], 100)))
    seen = [traces.at(np.array([0]), clock_s) for clock_s in (0, 10, 15, 20, 59, 60, 99, 115)]
    assert [bool(here[0]) for here, _ in seen] == [
        False, True, True, False, True, False, False, True,
    ]  # fmt: skip
    assert [until[0] for _, until in seen] == [10, 20, 20, 50, 60, 110, 110, 120]
    here, until_s = traces.at(np.array([1, 0]), 15)
    assert here.tolist() == [False, True] and until_s.tolist() == [np.inf, 20]


def test_a_flash_trace_is_available_while_locked_charging_and_on_wifi(tmp_path):
    day = "2020-01-29 "
    messages = [
        (day + "10:00:00", "80.0%"),
        (day + "10:01:00", "screen_lock"),
        (day + "10:02:00", "WIFI"),
        (day + "10:03:00", "battery_charged_on"),  # there from here
        (day + "10:13:00", "4G"),  # to here
        (day + "10:14:00", "wifi"),  # and from here
        (day + "10:15:00", "screen_unlock"),  # to here
        (day + "11:00:00", "Unknown"),
    ]
    traces = read_traces(flash(tmp_path, one=messages, none=[]))
    assert len(traces) == 2
    assert traces.start_s.tolist() == [180, 840] and traces.end_s.tolist() == [780, 900]
    assert traces.period_s[0] == 3600


intervals = st.lists(st.integers(1, 50), max_size=8).map(
    lambda steps: np.cumsum(steps)[: len(steps) // 2 * 2].reshape(-1, 2).tolist()
)


@given(st.lists(intervals, min_size=1, max_size=5), st.floats(0, 5000))
def test_presence_is_that_of_a_search_by_hand(many, clock_s):
    period_s = 500.0
    traces = Traces.of(many, [period_s] * len(many))
    here, until_s = traces.at(np.arange(len(many)), clock_s)
    for number, trace in enumerate(many):
        inside = any(a <= clock_s % period_s < b for a, b in trace)
        assert here[number] == inside
        assert until_s[number] > clock_s - 1e-6
        if not trace:
            assert until_s[number] == np.inf


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path):
    owned, path = tmp_path / "owned", tmp_path / "trace.pkl"
    path.write_bytes(pickle.dumps({1: Malicious(owned)}))
    with pytest.raises(InvalidInput, match=r"io.open; only plain data"):
        read_traces(path)
    assert not owned.exists()


@pytest.mark.parametrize(
    "code",
    [b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", b"c__builtin__\nexec\n."],
)
def test_any_global_but_a_container_is_refused(tmp_path, code):
    path = tmp_path / "trace.pkl"
    path.write_bytes(code)
    with pytest.raises(InvalidInput, match="only plain data is read"):
        read_traces(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pkl", b"no pickle", "no trace of FedScale or FLASH"),
        ("b.pkl", pickle.dumps({}), "no traces in it"),
        ("c.pkl", pickle.dumps({1: {"active": [1]}}), "finish_time"),
        ("d.json", b"{", "no trace of FedScale or FLASH"),
        ("e.json", b'{"one": {"messages": "soon\\twifi"}}', "does not match format"),
        ("f.json", b"[]", "no trace of FedScale or FLASH"),
    ],
)
def test_a_defect_is_named_with_the_file(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as error:
        read_traces(path)
    assert name in str(error.value)


def test_intervals_that_do_not_rise_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="client 1: active and inactive must rise"):
        read_traces(fedscale(tmp_path, ([50, 10], [60, 20], 100)))


def test_a_group_gives_its_traces_out_in_turn(tmp_path):
    fedscale(tmp_path, ([10], [20], 100), ([0], [90], 100))
    path = tmp_path / "fleet.toml"
    path.write_text(
        '[[group]]\nboard = "nano"\n[[group]]\nboard = "nano"\ncount = 3\n'
        'availability = {trace = "client_behave_trace.pkl", foreseen = false}\n'
    )
    availability = load_fleet(str(path)).environment.availability
    here, until_s = availability.at(np.arange(4), 0, 5.0)
    assert here.tolist() == [True, False, True, False]
    assert until_s.tolist() == [np.inf, 10, 90, 10]
    assert availability.foreseen.tolist() == [True, False, False, False]
