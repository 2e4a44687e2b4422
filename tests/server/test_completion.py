"""Shells complete all three programs by what one command prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wattfed.server.cli import main

pytestmark = pytest.mark.processes
PROGRAMS = ("wattfed", "wattfed-agent", "powerctl")
BIN = Path(sys.executable).parent
# completes the last word, as readline does
ASKS = """
eval "$(wattfed completion bash)"
COMP_WORDS=({words}); COMP_CWORD={last}
{function} {program}
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_is_printed_is_of_all_programs(call, shell):
    printed = call(main, "completion", shell).stdout
    for program in PROGRAMS:
        assert f"_{program.replace('-', '_').upper()}_COMPLETE={shell}_complete" in printed


def asked(shell: str, code: str, cwd=None) -> str:
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run([shell, "-c", code], capture_output=True, text=True, env=env, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["wattfed", "comp"], "compare completion"),
        (["wattfed", "simulate", "--dry"], "--dry-run"),
        (["wattfed-agent", "pred"], "predict"),
        (["powerctl", "boa"], "board boards"),
        (["wattfed", "runs", "delete", "di"], "digits-1 digits-2"),
    ],
)
def test_bash_completes_commands_options_and_names_of_runs(tmp_path, words, found):
    for name in ("digits-1", "digits-2", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text("{}")
    function = f"_{words[0].replace('-', '_')}_completion"
    told = {"words": " ".join(words), "last": len(words) - 1}
    code = ASKS.format(function=function, program=words[0], **told)
    assert asked("bash", code, tmp_path).strip() == found


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_it_where_they_are(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    if shell == "zsh":
        code = 'autoload -Uz compinit; compinit -D; eval "$(wattfed completion zsh)"; echo ok'
    else:
        code = "wattfed completion fish | source; complete -C 'wattfed comp'"
    assert asked(shell, code).split()[0] in ("ok", "compare")
