"""The device side of wattfed: power modes, their cost, and the choice among them.

Public modules: ``modes``, ``boards``, ``measurement``, ``workload``, ``device``, ``devices``,
``bottleneck``, ``calibration``, ``pareto``, ``rounds``, ``errors``. Nothing is imported here, so
that a command pays only for what it uses.
"""
