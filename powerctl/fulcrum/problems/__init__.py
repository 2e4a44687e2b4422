"""The problems: what is chosen, what is bounded, what is best; as functions over measured modes.

    cycle b/a, in it one inference batch and k = floor((b/a - t_i) / t_t) training minibatches

with b the inference batch, a the arrival rate, t_i and t_t the times of an inference batch and of a
training minibatch. Power is the larger of the two, as one of them runs at a time.

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
