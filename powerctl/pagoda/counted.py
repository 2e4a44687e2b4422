"""A model that is counted: its workload, without any measurement."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from powerctl.cost_model import Signature
from powerctl.errors import InvalidInput
from powerctl.pagoda.counting import NeedsData, Optimiser, count_model
from powerctl.pagoda.counts import Counts
from powerctl.pagoda.estimate import Efficiency, efficiency_of, estimate_signature
from powerctl.pagoda.models import NamedModel, load_model
from powerctl.workload import Workload


@dataclass(frozen=True, eq=False)
class CountedModel:
    """Training or inference of a model.

    Parameters
    ----------
    model : NamedModel
        What runs.
    kind : str
        ``"train"`` or ``"infer"``.
    optimiser : {"sgd", "sgd-momentum", "adam"}
        Of training.
    """

    model: NamedModel
    kind: str = "infer"
    optimiser: Optimiser = "sgd"

    @classmethod
    def of(
        cls, spec: str, input_text: str | None, kind: str, optimiser: Optimiser = "sgd"
    ) -> CountedModel:
        """Of a model's name; see `load_model`."""
        if kind not in ("train", "infer"):
            raise InvalidInput(f"kind is 'train' or 'infer', not {kind!r}")
        return cls(load_model(spec, input_text), kind, optimiser)

    @property
    def name(self) -> str:
        """Name of the workload: that of the model, and the kind."""
        return f"{self.model.name}-{self.kind}"

    @property
    def efficiency(self) -> Efficiency:
        """What its kernels are expected to reach."""
        return efficiency_of(self.kind)

    @lru_cache(maxsize=8)  # noqa: B019  counting takes a second, and such objects are few
    def counts(self, batch_size: int) -> Counts:
        """What a minibatch needs; of a model that needs data, what it does on zeros."""
        training = self.kind == "train"
        optimiser = self.optimiser if training else None
        module, inputs = self.model.module, self.model.inputs(batch_size)
        try:
            return count_model(module, inputs, training=training, optimiser=optimiser)
        except NeedsData:
            zeros = [torch.zeros_like(x, device="cpu") for x in inputs]
            return count_model(module, zeros, training=training, optimiser=optimiser, compute=True)

    @cached_property
    def signature(self) -> Signature:
        """What a minibatch needs, estimated from the counts."""
        floats = self.model.samples[0].dtype.is_floating_point
        return estimate_signature(self.counts, self.kind, "image" if floats else "tokens")

    def workload(self, batch_size: int) -> Workload:
        """The workload that devices, simulations and solvers take."""
        return Workload(
            name=self.name,
            kind=self.kind,
            batch_size=batch_size,
            signature=self.signature,
            title=f"{self.model.name}, {self.kind}",
            source=f"estimated from counts of {self.model.name}, not measured",
            parameters=self.model.parameters,
        )
