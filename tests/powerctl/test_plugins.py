"""Things of others are found, made and checked; what is wrong with them is one line."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import Protocol

import pytest

from powerctl.boards import load_board
from powerctl.errors import InvalidInput, PowerctlError, UnknownName
from powerctl.fulcrum.solvers import find_solver
from powerctl.plugins import Kind, absolute, load_module, load_object, names_code, split_names
from powerctl.workload import load_workload

OWN = """
from dataclasses import dataclass

@dataclass
class Loud:
    volume: int = 1
    seed: int = 0
    of_the_run: str = ""

    def sing(self, song):
        return song.upper() * self.volume

class Silent:
    pitch = 440

class Stubborn:
    def __init__(self, mood):
        self.mood = mood

def broken():
    raise RuntimeError("no\\nvoice")

def nothing():
    pass

CONSTANT = 3
"""


class Singer(Protocol):
    def sing(self, song: str) -> str: ...


@dataclass
class Quiet:
    def sing(self, song):
        return song


SINGERS = Kind[Singer]("singer", "test.singers", {"quiet": Quiet}, Singer, fixed=("of_the_run",))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, and the paths as they were afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def own(here):
    (here / "own singers.py").write_text(OWN)
    return "own singers.py"


@pytest.fixture
def entry_points(tmp_path, monkeypatch):
    """Install packages that have entry points, as pip would leave them."""

    def install(package, **values):
        folder = tmp_path / f"site-{package}"
        (folder / f"{package}-1.dist-info").mkdir(parents=True)
        text = "".join(f"{name} = {value}\n" for name, value in values.items())
        (folder / f"{package}-1.dist-info" / "METADATA").write_text(
            f"Name: {package}\nVersion: 1\n"
        )
        (folder / f"{package}-1.dist-info" / "entry_points.txt").write_text(
            f"[test.singers]\n{text}"
        )
        (folder / f"{package}.py").write_text(OWN)
        monkeypatch.syspath_prepend(str(folder))

    return install


def test_a_name_in_a_file_is_made_with_what_the_text_and_the_run_say(own):
    made = SINGERS.make(f"{own}:Loud(volume=2)", seed=7, of_the_run="x", unknown=1)
    assert (made.volume, made.seed, made.of_the_run) == (2, 7, "x")
    assert made.sing("la") == "LALA"
    assert SINGERS.make(f"{own}:Loud(seed=3)", seed=7).seed == 3


def test_a_module_of_the_current_folder_is_found(here):
    (here / "choir_of_mine.py").write_text(OWN)
    assert SINGERS.make("choir_of_mine:Loud").sing("la") == "LA"


def test_a_file_is_one_module_however_it_is_written_and_finds_what_lies_beside_it(here):
    (here / "deep").mkdir()
    (here / "deep" / "beside_the_first.py").write_text("X = object()\n")
    (here / "deep" / "random.py").write_text("from beside_the_first import X\n")
    module = load_module("deep/random.py")
    assert module is load_module(str(here / "deep" / ".." / "deep" / "random.py"))
    assert module.X is load_object("deep/random.py:X")
    assert __import__("random").seed  # which a file of that name does not hide


def test_what_is_made_in_a_file_can_be_sent_to_another_process(own):
    made = SINGERS.make(f"{own}:Loud(volume=3)")
    assert pickle.loads(pickle.dumps(made)) == made
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(made.sing, ("a",)) == "AAA"


def test_a_folder_with_a_dot_and_a_percent_sign_is_no_hurdle(here):
    (here / "v1.2%2E").mkdir()
    (here / "v1.2%2E" / "a.b.py").write_text(OWN)
    assert SINGERS.make("v1.2%2E/a.b.py:Loud").sing("a") == "A"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nosuch.py:Loud", r"unknown singer .*known: quiet; nosuch.py: no such file"),
        ("no_such_pkg.mod:Loud", "there is no module no_such_pkg; run the command in the folder"),
        ("syntax.py:Loud", r"syntax.py: SyntaxError: .*line 1\)"),
        ("raises.py:Loud", r"raises.py: ZeroDivisionError: division by zero \(.*raises.py:3\)"),
        ("leaves.py:Loud", r"leaves.py: SystemExit: 1 \(.*leaves.py:1\)"),
        ("imports.py:Loud", r"No module named 'not_there' \(.*imports.py:1\)"),
        ("own singers.py:Lout", "own singers.py has no attribute 'Lout'; did you mean 'Loud'"),
        ("own singers.py:", "write pkg.mod:Name or path/to/file.py:Name"),
        ("own singers.py", "unknown singer 'own singers.py': known: quiet; or your own as pkg.mod"),
        ("own singers:Loud", "cannot read 'own singers' as a module"),
        ("own singers.py:Silent", r"gave a Silent without sing; a singer has sing\(song\)"),
        ("own singers.py:nothing", "gave a NoneType without sing"),
        ("own singers.py:Stubborn", "cannot be made without mood: give it a default, or write"),
        ("own singers.py:broken", r"broken: RuntimeError: no voice \(.*own singers.py:\d+\)"),
        ("own singers.py:CONSTANT", "is 3: a singer is named by its class, or by a function"),
        ("own singers.py:Loud(volume=much)", "'much' is no int"),
        ("own singers.py:Loud(loud=1)", "unknown parameter of own singers.py:Loud 'loud'"),
        ("own singers.py:Loud(of_the_run=1)", "unknown parameter.* known: seed, volume"),
        ("quiet(volume=1)", "quiet takes no parameters, got volume=1"),
        ("", "unknown singer ''"),
    ],
)
def test_what_cannot_be_loaded_or_made_is_told_in_one_line(own, here, text, message):
    (here / "syntax.py").write_text("def (\n")
    (here / "raises.py").write_text("def divide():\n    #\n    return 1 / 0\n\ndivide()\n")
    (here / "leaves.py").write_text("raise SystemExit(1)\n")
    (here / "imports.py").write_text("import not_there\n")
    with pytest.raises(PowerctlError, match=message) as error:
        SINGERS.make(text)
    assert "\n" not in str(error.value)


def test_what_a_persons_code_raised_is_the_cause(own):
    with pytest.raises(InvalidInput) as error:
        SINGERS.make(f"{own}:broken")
    assert isinstance(error.value.__cause__, RuntimeError)


def test_a_class_that_only_inherits_the_protocol_lacks_its_methods(here):
    (here / "heir.py").write_text(
        "from tests.powerctl.test_plugins import Singer\n\nclass Heir(Singer):\n    pass\n"
    )
    with pytest.raises(InvalidInput, match="gave a Heir without sing"):
        SINGERS.make("heir.py:Heir")


def test_options_that_a_class_hands_on_are_those_of_its_base(own, here):
    (here / "louder.py").write_text(
        OWN + "\nclass Louder(Loud):\n"
        "    def __init__(self, more=1, **options):\n"
        "        super().__init__(**options)\n"
        "        self.volume += more\n"
    )
    made = SINGERS.make("louder.py:Louder(more=2,volume=5)", seed=4)
    assert (made.volume, made.seed) == (7, 4)


def test_entry_points_of_what_is_installed_are_names(entry_points):
    entry_points("choir_one", loud="choir_one:Loud", silent="choir_one:Silent")
    assert SINGERS.names() == ["loud", "quiet", "silent"]
    assert SINGERS.make("loud(volume=2)").sing("a") == "AA"
    with pytest.raises(InvalidInput, match="silent gave a Silent without sing"):
        SINGERS.make("silent")
    with pytest.raises(UnknownName, match="did you mean 'loud'"):
        SINGERS.make("lout")


def test_a_name_of_ours_comes_before_an_entry_point(entry_points):
    entry_points("choir_two", quiet="choir_two:Loud")
    assert isinstance(SINGERS.make("quiet"), Quiet)
    assert SINGERS.names() == ["quiet"]


def test_two_packages_with_one_name_are_told_apart_by_the_person(entry_points):
    entry_points("choir_three", loud="choir_three:Loud")
    entry_points("choir_four", loud="choir_four:Loud")
    with pytest.raises(InvalidInput, match="choir_four:Loud, choir_three:Loud; write which"):
        SINGERS.make("loud")
    assert SINGERS.make("choir_four:Loud").sing("a") == "A"


def test_an_entry_point_that_leads_nowhere_is_told_by_its_name(entry_points):
    entry_points("choir_five", gone="choir_of_nobody:Loud")
    with pytest.raises(InvalidInput, match="'gone'.*there is no module choir_of_nobody"):
        SINGERS.make("gone")


def test_texts_of_a_list_and_those_that_point_to_code():
    assert split_names("a, m:B(x=1,y=2),a") == ("a", "m:B(x=1,y=2)")
    assert [names_code(t) for t in ("a", "a(x=m:B)", "m:B", "f.py:B(x=1)")] == [0, 0, 1, 1]


def test_a_text_can_be_taken_to_a_process_in_another_folder(here):
    assert absolute("a/b.py:Mine(of=c.py)") == f"{here}/a/b.py:Mine(of=c.py)"
    assert absolute("my.toml") == f"{here}/my.toml"
    assert absolute("my_task.py") == f"{here}/my_task.py"
    for same in ("oort(clip=0.9)", "pkg.py_mod:Mine", "pace", f"{here}/my.toml", "a(of=b.py:C)"):
        assert absolute(same) == same


def test_solvers_of_others_get_seed_and_references(here):
    (here / "mine.py").write_text(
        "class Mine:\n    name = 'mine'\n"
        "    def __init__(self, seed=0, references=None):\n        self.given = seed, references\n"
        "    def solve(self, search):\n        return search.solution('')\n"
    )
    assert find_solver("mine.py:Mine").make(3, ()).given == (3, ())
    with pytest.raises(UnknownName, match="random-N"):
        find_solver("mine")


def test_a_board_of_a_file_is_known_by_its_path(here):
    with pytest.raises(InvalidInput, match=r"my.toml: not a board: it has no cpu_architecture, "):
        (here / "my.toml").write_text('title = "Mine"\n')
        load_board("my.toml")
    with pytest.raises(InvalidInput, match="other.toml: no such file"):
        load_board("other.toml")


def test_a_workload_may_be_an_object_or_what_a_function_makes(here):
    (here / "jobs.py").write_text(
        "from dataclasses import replace\nfrom powerctl.workload import load_workload\n"
        "SMALL = load_workload('lstm-train').with_batch_size(2)\n"
        "def of(size: int = 4):\n    return SMALL.with_batch_size(size)\n"
        "def wrong():\n    return 'x'\n"
    )
    assert load_workload("jobs.py:SMALL").batch_size == 2
    assert load_workload("jobs.py:of(size=8)").batch_size == 8
    with pytest.raises(InvalidInput, match="wrong gave a str, not a Workload"):
        load_workload("jobs.py:wrong")


def test_names_of_ours_are_found_without_looking_at_what_is_installed():
    code = (
        "import sys; from powerctl.boards import load_board; load_board('orin-nano')\n"
        "from powerctl.workload import load_workload; load_workload('lstm-train')\n"
        "print('importlib.metadata' in sys.modules, '' in sys.path[1:])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr
