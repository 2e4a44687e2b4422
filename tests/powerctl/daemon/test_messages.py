from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.axes import PowerMode
from powerctl.daemon.messages import (
    MAX_REQUEST,
    VERBS,
    HeldByAnother,
    Request,
    encode_error,
    encode_line,
    parse_reply,
    parse_request,
)
from powerctl.errors import DeviceUnavailable, InvalidInput, ModeNotInForce, ModeNotInSpace

values = st.integers(1, 2**63 - 1)
modes = st.builds(PowerMode, values, values, values, values)
requests = st.one_of(
    st.builds(Request, st.sampled_from([verb for verb in VERBS if verb != "apply"])),
    st.builds(Request, st.just("apply"), modes),
)


@given(requests)
def test_a_request_is_read_as_it_was_written(request):
    line = request.encode()
    assert parse_request(line[:-1]) == request and len(line) <= MAX_REQUEST
    assert line.count(b"\n") == 1


@given(st.binary(max_size=300))
def test_bytes_are_a_request_or_refused(line):
    try:
        request = parse_request(line)
    except InvalidInput:
        return
    assert request.verb in VERBS


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b'"read"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"verb":"read","verb":"restore"}',
        b'{"verb":["read"]}',
        b'{"verb":"__class__"}',
        b'{"verb":"close"}',
        b'{"verb":"read","root":"/"}',
        b'{"verb":"restore","mode":[1,1,1,1]}',
        b'{"verb":"apply"}',
        b'{"verb":"apply","mode":[1,1,1]}',
        b'{"verb":"apply","mode":[1,1,1,true]}',
        b'{"verb":"apply","mode":[1,1,1,0]}',
        b'{"verb":"apply","mode":[1,1,1,-5]}',
        b'{"verb":"apply","mode":[1,1,1,1.5]}',
        b'{"verb":"apply","mode":[1,1,1,NaN]}',
        b'{"verb":"apply","mode":[1,1,1,"1"]}',
        b'{"verb":"apply","mode":[1,1,1,9223372036854775808]}',
        b'{"verb":"apply","mode":{"cores":1}}',
    ],
)
def test_what_is_not_exactly_a_request_is_refused(line):
    with pytest.raises(InvalidInput):
        parse_request(line)


@pytest.mark.parametrize("kind", [ModeNotInSpace, ModeNotInForce, HeldByAnother, InvalidInput])
def test_an_error_arrives_as_what_it_was(kind):
    with pytest.raises(kind, match="^gpu is asleep$") as caught:
        parse_reply(encode_error(kind("gpu is asleep")))
    assert type(caught.value) is kind


def test_an_error_of_another_kind_arrives_as_unavailable():
    with pytest.raises(DeviceUnavailable, match="disc"):
        parse_reply(encode_error(OSError("disc")))


def test_an_answer_is_a_json_object():
    assert parse_reply(encode_line({"mode": [1, 2, 3, 4]})) == {"mode": [1, 2, 3, 4]}
    with pytest.raises(InvalidInput):
        parse_reply(b"[]")
