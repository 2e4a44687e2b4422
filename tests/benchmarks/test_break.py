"""The search for what breaks us: it tries every door, finds what is planted, and makes it small."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from importlib import import_module

import pytest

from benchmarks.breaking import files, models, studio
from benchmarks.breaking.mutation import Drop, Put, Repeat, changed, smaller, some_edits
from benchmarks.breaking.trying import Door, Found, check_end, tried
from powerctl.jetson.journal import Journal
from wattfed.strategies.protocol import RoundReport
from wattfed.strategies.round import strategy as selecting

pytestmark = pytest.mark.studies

breaking = import_module("benchmarks.break")
EXAMPLE = {"count": 3, "name": "one", "data": b"12345678", "list": [1.5, 2.5, {"deep": True}]}


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def searched(doors, passes):
    """What is found in some passes over all doors, the first with their examples as they are."""
    search = breaking.Search(doors, seed=0)
    found = [failure for _ in range(passes) for failure in search.run(seconds=0.0)]
    assert all(sum(ends.values()) == passes for ends in search.ends.values())
    return found


def test_changes_leave_the_example_as_it_is_and_are_the_same_for_a_seed():
    before = repr(EXAMPLE)
    made = [some_edits(EXAMPLE, random.Random(seed)) for seed in range(300)]
    assert repr(made) == repr([some_edits(EXAMPLE, random.Random(seed)) for seed in range(300)])
    others = [edits for edits in made if repr(changed(EXAMPLE, edits)) != before]
    assert repr(EXAMPLE) == before and len(others) > 250
    assert {type(edit) for edits in made for edit in edits} == {Put, Drop, Repeat}


def test_a_printed_case_is_the_case():
    names = {"Put": Put, "Drop": Drop, "Repeat": Repeat, "inf": float("inf"), "nan": float("nan")}
    for seed in range(100):
        edits = some_edits(EXAMPLE, random.Random(seed))
        assert repr(eval(repr(edits), names)) == repr(edits)


def test_a_case_is_made_small():
    edits = [Put(("count",), 10**30), Drop(("name",)), Repeat(("data",), 0, 8, 20_000)]
    least = smaller(edits, lambda some: len(changed(EXAMPLE, some).get("data", "")) >= 16)
    assert least == [Repeat(("data",), 0, 8, 2)]


@pytest.mark.parametrize(
    ("does", "kind"),
    [
        (lambda case: {}["nothing"], "KeyError"),
        (lambda case: os._exit(3), "the process died: 3"),
        (lambda case: str(bytearray(3 << 30)), "MemoryError"),
        (lambda case: sum(iter(lambda: 0, 1)), "longer than 1 s"),
        (lambda case: open("../../beside", "w").close() or "taken", "wrote outside its folder"),
        (lambda case: check_end(0, 'Traceback (most recent call last):\n  File "a"\nE'), "a trac"),
        (lambda case: check_end(7, "x"), "exit code 7"),
        (lambda case: check_end(2, ""), "exit code 2 without a word"),
    ],
)
def test_what_must_not_be_is_told_from_what_may_be(does, kind):
    assert tried(Door("a door", None, does, longest_s=1.0), None).kind.startswith(kind)
    assert tried(Door("a door", None, lambda case: "refused"), None).word == "refused"


def test_a_planted_bug_is_found_and_made_small(stack, monkeypatch):
    decode = selecting.decode_record

    def careless(kind, config):
        if kind is RoundReport:
            for name in ("idle_power_w", "time_s", "energy_j", "peak_power_w", "transfer_s"):
                config[f"report.{name}"] + 0.0  # a text has no sum, and what is dropped is none
        return decode(kind, config)

    monkeypatch.setattr(selecting, "decode_record", careless)
    doors = [d for d in breaking.doors_of("messages", stack) if d.name == "run, policy all"]
    (door,) = doors
    search = breaking.Search([door], 51)  # which meets it soon
    failures = search.run(3600.0)  # it ends with the first
    edits, found = next((edits, f) for _, edits, f in failures if "careless" in f.kind)
    assert found.kind.split()[0] in ("KeyError", "TypeError") and len(edits) == 1
    assert "careless" in tried(door, changed(door.example, edits)).kind
    assert repr(edits[0]) in breaking.snippet("messages", door, edits)


def test_messages_are_tried_at_every_door_and_break_nothing(stack):
    doors = [
        door
        for door in breaking.doors_of("messages", stack)
        if door.name.startswith(("decode", "run, policy pace", "run, aggregation fedadam"))
    ]
    assert searched(doors, passes=3) == []


def test_a_file_and_a_command_are_tried_in_a_folder_of_their_own(stack, monkeypatch):
    monkeypatch.setattr(studio, "MAKES", ())
    monkeypatch.setattr(
        studio, "READS", ("wattfed simulate --task noop --fleet fleet.toml --rounds 1 --workers 1",)
    )
    doors = {door.name: door for door in breaking.doors_of("files", stack)}
    fleet = doors[f"files of {studio.READS[0]}"]
    ends = {
        thing: tried(fleet, changed(fleet.example, [Put(("fleet.toml", "is"), thing)]))
        for thing in (files.Thing.FOLDER, files.Thing.NOTHING, files.Thing.LOOP)
    }
    assert set(ends.values()) == {Found("refused")}
    trace = doors["a trace.pkl"]
    assert tried(trace, trace.example).word == "taken"
    assert tried(trace, {**trace.example, "content": b"."}).word == "refused"
    commands = {door.name: door for door in breaking.doors_of("commands", stack)}
    assert {"powerctl boards orin-nano", "wattfed strategies"} <= commands.keys()
    boards = commands["powerctl boards orin-nano"]
    assert tried(boards, boards.example).word == "taken"
    odd = changed(boards.example, [Put(("words", 2), "no such board")])
    assert tried(boards, odd).word == "refused"


def test_an_agent_answers_each_call_and_is_held_to_its_log(stack):
    doors = {door.name: door for door in breaking.doors_of("agent", stack)}
    for name in ("Inference/Predict", "Gate/Turns", "the gate's socket", "Rounds/Handle, query"):
        assert tried(doors[name], doors[name].example).word == "taken"
    odd = changed(doors["Inference/Predict"].example, [Put((0, "model"), "none such")])
    assert tried(doors["Inference/Predict"], odd).word == "refused"
    searched([doors["Power/GetStatus"], doors["Rounds/Cancel"]], passes=3)


def test_a_journal_that_is_not_restored_must_be_told(stack, monkeypatch):
    doors = {door.name: door for door in breaking.doors_of("daemon", stack)}
    for door in doors.values():
        assert tried(door, door.example).word in ("restored", "taken", "refused")
    journal = doors["the journal"]
    for thing in (files.Thing.PIPE, files.Thing.FOLDER):
        assert tried(journal, changed(journal.example, [Put(("is",), thing)])).word == "told"
    half = changed(journal.example, [Put(("content",), journal.example["content"][:300])])
    assert tried(journal, half).word == "told"
    monkeypatch.setattr(Journal, "check", lambda journal: None)
    assert tried(journal, half).kind == "all is said to be restored, and is not"


def test_pickled_code_in_an_archive_is_seen_if_it_runs(stack, monkeypatch):
    doors = {door.name: door for door in breaking.doors_of("models", stack)}
    archive = doors["torch.export"]
    assert tried(archive, archive.example).word == "taken"
    evil = next(content for name, content in archive.example.items() if name.endswith("evil"))
    name = next(name for name in archive.example if name.endswith("sample_inputs/model.pt"))
    swapped = changed(archive.example, [Put((name,), evil)])
    assert tried(archive, swapped).word == "refused"
    monkeypatch.setattr(models, "close_pickle", lambda: None)
    assert tried(archive, swapped).kind == "pickled code has run"
