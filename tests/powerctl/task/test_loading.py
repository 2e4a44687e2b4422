from __future__ import annotations

import sys
import types

import pytest

from powerctl.errors import PowerctlError, TaskFailed
from powerctl.task.loading import keys_of, load_task
from powerctl.task.source_files import hash_of, sources_of

WHOLE = """
import torch
class Net(torch.nn.Linear):
    def __init__(self, width=2):
        super().__init__(width, 1)
def load_data(partition_id, model_name, path, batch_size=4):
    return partition_id, model_name, path, batch_size
def train(net, trainloader, epochs, lr, device): ...
def test(net, loader): ...
"""


def test_a_task_is_a_file_a_module_or_an_object(written, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    by_path = load_task(written(WHOLE, "whole_by_path.py"))
    written(WHOLE, "whole_by_name.py")
    by_name = load_task("whole_by_name")
    by_object = load_task(sys.modules["whole_by_name"])
    assert (by_path.name, by_name.name, by_object.name) == (
        "whole_by_path",
        "whole_by_name",
        "whole_by_name",
    )
    for task in (by_path, by_name, by_object):
        assert set(task.functions) == {"load_data", "make_model", "train", "test"}
    assert by_name.code_hash == by_object.code_hash != ""


def test_a_name_in_a_file_may_be_an_object_or_a_class_made_from_the_settings(written):
    text = WHOLE + (
        "class Mine:\n"
        "    def __init__(self, noise, size=3): self.noise, self.size = noise, size\n"
        "    def load_data(self): return self.noise, self.size\n"
        "    def make_model(self): ...\n"
        "    def train_step(self, model, batch): ...\n"
        "    def test(self, model): ...\n"
        "mine = Mine(1)\n"
    )
    name = written(text, "with_class.py")
    assert load_task(f"{name}:Mine", {"noise": 5}).call("load_data", {}) == (5, 3)
    assert load_task(f"{name}:mine").call("load_data", {}) == (1, 3)
    assert load_task(f"{name}:Mine", {"noise": 5}).name == "with_class:Mine"
    with pytest.raises(
        TaskFailed, match=r"with_class\.py: Mine needs 'noise', which nothing gives"
    ):
        load_task(f"{name}:Mine")


def test_arguments_come_from_the_run_then_from_the_settings_then_from_their_defaults(written):
    task = load_task(written(WHOLE), {"model-name": "tiny", "dataset-path": "/data"})
    given = {"partition_id": 3, "epochs": 1}
    assert task.call("load_data", given) == (3, "tiny", "/data", 4)
    assert task.call("load_data", given | {"batch_size": 8}) == (3, "tiny", "/data", 8)
    ours = task.with_settings({"batch-size": 16, "model-name": "node's"})
    assert ours.call("load_data", given) == (3, "node's", "/data", 16)


def test_other_names_of_the_same_thing_are_known(written):
    task = load_task(written(WHOLE.replace("load_data(", "load_data_from_disk(")))
    given = {"client_id": 1, "model_name": "x", "data_dir": "/d"}
    assert task.call("load_data", given) == (1, "x", "/d", 4)


def test_nothing_is_passed_for_what_a_function_takes_besides(written):
    text = WHOLE + "def train(net, *rest, epochs, **more): return rest, more\n"
    task = load_task(written(text))
    assert task.call("train", {"model": 1, "epochs": 2, "lr": 3}) == ((), {})


def test_a_positional_parameter_is_passed_by_its_place(written):
    task = load_task(written(WHOLE + "def train(net, /, lr): return net, lr\n"))
    assert task.call("train", {"model": 1, "lr": 3}) == (1, 3)


def test_a_missing_argument_is_named_with_what_there_is(written):
    task = load_task(written(WHOLE), {"model-nam": "tiny"})
    with pytest.raises(TaskFailed) as failed:
        task.call("load_data", {"partition_id": 3})
    assert str(failed.value) == (
        "my_task.py: load_data needs 'model_name', which nothing gives: the run has partition_id, "
        "the configuration model-nam"
    )


def test_the_keys_of_a_task_are_the_values_that_its_functions_name(written):
    keys = keys_of(load_task(written(WHOLE)))
    assert {"model-name", "batch-size", "width", "dataset-path", "learning-rate"} <= keys
    assert not keys & {"net", "model", "trainloader", "device", "local-epoch", "seeed"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module_here", "no_such_module_here"),
        ("def load_data(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (WHOLE.replace("load_data", "load_dat"), "my_task.py has no function load_data or"),
        (WHOLE.replace("def test", "def tst"), "my_task.py has no function test or test_fn"),
        (WHOLE.replace("train", "fit"), r"no function train\(net, trainloader, epochs, lr, dev"),
        (WHOLE.replace("class Net", "class _Any").replace("Linear", "Any"), "has no attribute"),
        (WHOLE.replace("torch.nn.Linear", "dict").replace("Net", "N"), "it has: none"),
        (WHOLE.replace("Net", "A") + "class B(A): ...", "it has: A, B"),
        (WHOLE + "test = 3", "my_task.py: test is a int, not a function"),
        (WHOLE + "target = 'mAP'", r"target is 'mAP'; write target = \("),
        (WHOLE + "target = ('mAP', 'most')", r"target is \('mAP', 'most'\)"),
    ],
)
def test_what_is_wrong_with_a_task_is_said_in_one_line(written, text, message):
    with pytest.raises(TaskFailed, match=message) as failed:
        load_task(written(text))
    assert "\n" not in str(failed.value) and "my_task.py" in str(failed.value)


@pytest.mark.parametrize("text", ["nowhere.py", "nowhere", "no where", "os:nothing_there"])
def test_a_task_that_there_is_not_is_an_error(text):
    with pytest.raises(PowerctlError, match="nowhere|no where|nothing_there"):
        load_task(text)


def test_a_function_that_hides_its_parameters_is_told_to_show_them(written):
    task = load_task(written(WHOLE + "train = (lambda f: lambda *a, **k: f(*a, **k))(train)\n"))
    with pytest.raises(TaskFailed, match=r"hides its parameters .* functools\.wraps"):
        task.call("train", {})


def test_the_only_class_of_a_model_is_the_model(written):
    task = load_task(written(WHOLE.replace("Net", "Whatever")), {"width": 5})
    assert task.call("make_model", {}).in_features == 5


@pytest.mark.parametrize(
    "code", ["def train(): raise ValueError('x' * 10**6)\n", f"x = {'[' * 5000}\n"]
)
def test_what_a_users_code_has_us_print_is_cut_off(written, code):
    with pytest.raises(TaskFailed) as failed:
        load_task(written(WHOLE + code)).call("train", {})
    assert len(str(failed.value)) + len(failed.value.traceback) < 6_000


def test_what_the_users_code_raises_is_one_line_with_their_traceback(written):
    task = load_task(written("def inner(): return {}['img']\n" + WHOLE + "def test(): inner()\n"))
    with pytest.raises(TaskFailed) as failed:
        task.call("test", {})
    assert str(failed.value) == "my_task.py: test raised KeyError: 'img'"
    lines = failed.value.traceback.splitlines()
    assert lines[1].endswith("in test") and lines[-1] == "KeyError: 'img'"
    assert [line for line in lines if line.endswith("in inner")]


def test_a_helper_beside_a_task_counts_in_its_hash_and_what_is_elsewhere_does_not(written):
    written("", "parts/__init__.py")
    written("import json, numpy\nfrom parts import second\n", "parts/first.py")
    written("", "parts/second.py")
    written("", "unrelated.py")
    name = written("import powerctl.boards\nfrom parts.first import second\n" + WHOLE)
    task = load_task(name)
    assert list(task.sources) == [
        "my_task.py",
        "parts/__init__.py",
        "parts/first.py",
        "parts/second.py",
    ]
    assert hash_of(task.sources) == task.code_hash
    written("x = 1\n", "unrelated.py")
    assert hash_of(task.sources) == task.code_hash
    written("x = 1\n", "parts/second.py")
    assert hash_of(task.sources) != task.code_hash


def test_the_hash_is_that_of_the_code_that_runs_and_not_of_a_file_that_changed_since(written):
    task = load_task(written(WHOLE))
    again = load_task(written(WHOLE + "x = 1\n"))
    assert again.functions == task.functions and again.code_hash == task.code_hash


def test_a_module_of_a_package_has_the_same_hash_wherever_the_package_lies(tmp_path):
    hashes = set()
    for place in ("here", "there"):
        folder = tmp_path / place / "app"
        folder.mkdir(parents=True)
        (folder.parent / "beside.py").write_text(f"place = {place!r}\n")  # not of the package
        (folder / "__init__.py").write_text("")
        (folder / "helper.py").write_text("")
        (folder / "task.py").write_text("import beside\nfrom . import helper\n")
        module = types.ModuleType("app.task")
        module.__file__ = str(folder / "task.py")
        sources = sources_of(module)
        assert list(sources) == ["app/__init__.py", "app/helper.py", "app/task.py"]
        hashes.add(hash_of(sources))
    assert len(hashes) == 1


def test_an_object_without_a_file_has_no_hash():
    made = types.SimpleNamespace(
        load_data=list, make_model=dict, train=lambda net: None, test=lambda net: None
    )
    module = types.ModuleType("made_up")
    vars(module).update(vars(made))
    assert load_task(module).code_hash == ""
