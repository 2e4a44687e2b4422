"""Fleet files that several tests simulate."""

# everything that can go on around a client
WILD = """start_hour = 8

[[group]]
board = "orin-nx"
count = 20
power_w = 20
energy_budget_j = 2500

[group.battery]
capacity_j = 9000
start = { low = 0.2, high = 1, seed = 1 }
charge_w = 15

[group.inference]
rate_hz = { low = 0, high = 30, seed = 1 }
latency_s = 1
shape = "traffic"

[group.availability]
mean_on_s = 120
mean_off_s = 30
foreseen = false

[group.failures]
crashes_per_h = 10
silent_share = 0.2
"""
