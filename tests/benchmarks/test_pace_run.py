from __future__ import annotations

from click.testing import CliRunner

from benchmarks import pace_run


def test_what_pace_chose_is_told_round_by_round_and_drawn(tmp_path):
    asked = ["--fleet", "twenty-jetsons", "--rounds", "3", "--local-epochs", "1"]
    done = CliRunner().invoke(pace_run.main, [*asked, "--png", str(tmp_path / "pace.png")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "pace.png").read_bytes().startswith(b"\x89PNG")
    *_, whole, in_time = done.stdout.splitlines()
    assert in_time.endswith("for it: 100 %") or in_time.endswith("for it: 0 %")
    assert 0 < int(whole.split()[-2]) <= 100
    assert [one.clients for one in pace_run.WatchedPace.seen] == [
        int(line.split()[1]) for line in done.stdout.splitlines()[1:4]
    ]
