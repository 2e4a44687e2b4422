"""Results as the code of commit 63636ab wrote them, when a run had an accuracy and no target."""

from __future__ import annotations

import json

CONFIG = {
    "task": "digits",
    "workload": "mobilenetv3-train",
    "fleet": "two.toml",
    "strategy": "pace",
    "power": "maxn",
    "aggregation": "fedavg",
    "proximal-mu": 0.1,
    "hostile": 1,
    "clip-norm": 0.0,
    "min-reports": 1,
    "rounds": 2,
    "target-accuracy": 0.2,
    "per-round": 1,
    "over-commit": 1.0,
    "buffer": 0,
    "late": "drop",
    "max-staleness": 5,
    "deadline-s": 0.0,
    "local-epochs": 1,
    "learning-rate": 0.05,
    "dirichlet-alpha": 0.3,
    "skew": "",
    "label-privacy": 0.0,
    "seed": 0,
    "data-dir": "",
    "out-dir": "c/runs",
    "name": "pace-joint-1-seed0",
    "min-nodes": 2,
    "workers": 0,
    "resume": False,
    "checkpoint-every": 0,
    "timeout-s": 600.0,
}
ROUNDS = (
    "round,accuracy,loss,clock_s,total_energy_j,clients,reported,declined,failed,rejected,partial,"
    "deadline_s,round_time_s,train_energy_j,wait_energy_j,power_violations,budget_violations,late,"
    "train_loss,time_error_pct,energy_error_pct,guarded,latency_violations,transfer_energy_j,"
    "wasted_energy_j,stale,dropped,inference_energy_j,energy_j\n"
    "0,0.13055555555555556,2.3028601752387154,0,0,,,,,,,,,,,,,,,,,,,,,,,,\n"
    "1,0.2722222222222222,3.424638197157118,8.638621712475645,169.97510846766957,0,1,0,0,0,0,"
    "9.521170224159798,8.638621712475645,129.81115768601828,0.0,0,0,0,1.7818483268060992,"
    "1.3562484699500694,0.789921504358262,0,0,40.16395078165129,0.0,0,0,0.0,169.97510846766957\n"
)
REPORT = {
    "round": 1,
    "client": 0,
    "examples": 490,
    "minibatches": 31,
    "time_s": 5.129481232475645,
    "energy_j": 129.81115768601828,
    "peak_power_w": 24.889089383570806,
    "transfer_s": 3.50914048,
    "idle_power_w": 11.445523771579326,
    "loss": 1.7818483268060992,
    "power_limit_w": 30.0,
    "allowance_j": None,
    "deadline_s": 9.521170224159798,
    "wanted_minibatches": 31,
    "planned_minibatches": 31,
    "planned_time_s": 5.059912721743818,
    "planned_energy_j": 128.7857514364,
    "modes": ["6c/1574/726/2133"],
    "stopped": "",
    "decline": "",
    "rms_loss": 0.0,
    "used": True,
    "staleness": 0,
    "inference_p99_s": 0.0,
    "guard_steps": 0,
    "guard_cause": "",
    "inference_budget_s": None,
    "inference_energy_j": 0.0,
    "lost": "",
    "budget_left_j": None,
}
SUMMARY = {
    "task": "digits",
    "charged_workload": "mobilenetv3-train",
    "strategy": "pace",
    "power": "maxn",
    "rounds": 1,
    "final_accuracy": 0.2722222222222222,
    "best_accuracy": 0.2722222222222222,
    "virtual_time_s": 8.638621712475645,
    "energy_j": 169.97510846766957,
    "train_energy_j": 129.81115768601828,
    "transfer_energy_j": 40.16395078165129,
    "wait_energy_j": 0.0,
    "wasted_energy_j": 0.0,
    "power_violations": 0,
    "budget_violations": 0,
    "latency_violations": 0,
    "inference_energy_j": 0.0,
    "guarded": 0,
    "late": 0,
    "declined": 0,
    "failed": 0,
    "rejected": 0,
    "stale": 0,
    "dropped": 0,
}
COMPARISON = {
    "code": "0b04a13192ad",
    "clients": 2,
    "asked": {
        "base": {**CONFIG, "target-accuracy": 0.0, "per-round": 6, "name": "", "min-nodes": 1},
        "strategies": ["pace"],
        "powers": ["maxn"],
        "per_round": [1],
        "seeds": [0],
        "targets": [0.2],
        "all_rounds": False,
    },
}


def write_comparison(path):
    """The folder of a comparison of one run; returns the run's."""
    run = path / "runs" / CONFIG["name"]
    run.mkdir(parents=True)
    (path / "comparison.json").write_text(json.dumps(COMPARISON, indent=2) + "\n")
    (run / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (run / "rounds.csv").write_text(ROUNDS)
    (run / "reports.jsonl").write_text(json.dumps(REPORT) + "\n")
    (run / "summary.json").write_text(json.dumps(SUMMARY, indent=2) + "\n")
    return run
