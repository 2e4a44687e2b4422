from pathlib import Path

from wattfed import simulate

HERE = Path(__file__).parent


def test_two_rounds_learn(tmp_path):
    files = {"task": str(HERE / "task.py"), "fleet": str(HERE / "fleet.toml")}
    run = simulate(**files, rounds=2, out_dir=str(tmp_path))
    assert run.rows[-1].value > 0.5
