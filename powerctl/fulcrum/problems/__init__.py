"""The problems: what is chosen, what is bounded, what is best; as functions over measured modes.

    a         requests that arrive in a second (`rate_hz`)
    b         inference batch (`batch_sizes`)
    t_i, p_i  seconds and watts of an inference batch
    t_t, p_t  the same of a training minibatch, or of the inference that can wait (t_n, p_n)
    L         bound of the latency (`latency_s`)

    cycle     b/a: in it one inference batch, and k training minibatches
    k         floor((b/a - t_i) / t_t); with a bound E of energy at most (E - t_i p_i) / (t_t p_t)
    latency   b/a + t_i of the oldest request, and t_t more if a minibatch may be running (`guard`)
    power     max(p_i, p_t), as one of them runs at a time

References
----------
Fulcrum (arXiv 2509.20205), its problem formulation.
"""

from powerctl.fulcrum.problems.alone import InferAlone, TrainAlone
from powerctl.fulcrum.problems.problem import Assessment, Job, Problem
from powerctl.fulcrum.problems.sharing import OBJECTIVES, Concurrent, TwoInferences

__all__ = [
    "OBJECTIVES",
    "Concurrent",
    "Assessment",
    "InferAlone",
    "Job",
    "Problem",
    "TrainAlone",
    "TwoInferences",
]
