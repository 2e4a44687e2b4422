"""What is done with a minibatch: a step of training, or of inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from powerctl.characterization.tasks import Task
from powerctl.errors import InvalidInput

_LEARNING_RATE, _MOMENTUM = 0.01, 0.9  # POMACS 2022, section 2.1


class Step:
    """Moves a minibatch to the device and computes on it; gives its number of samples."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model = model
        self.device = device

    def __call__(self, batch: Any) -> int:
        """Run one minibatch."""
        inputs, target = batch
        self.compute(self._moved(inputs), self._moved(target))
        return len(target)

    def compute(self, inputs: Any, target: Any) -> None:
        """What is done with it."""
        raise NotImplementedError

    def forward(self, inputs: Any) -> Any:
        """The model's output, of one input or several."""
        return self.model(*inputs) if isinstance(inputs, (tuple, list)) else self.model(inputs)

    def _moved(self, data: Any) -> Any:
        if isinstance(data, (tuple, list)):
            return [self._moved(each) for each in data]
        if not isinstance(data, Tensor):
            raise InvalidInput(f"the data set gives a {type(data).__name__} where a tensor belongs")
        return data.to(self.device, non_blocking=True)


class TrainStep(Step):
    """Forward, backward, and SGD with momentum."""

    def __init__(self, model: nn.Module, device: torch.device, task: Task) -> None:
        super().__init__(model, device)
        self._loss = task.loss
        self._optimizer = torch.optim.SGD(model.parameters(), lr=_LEARNING_RATE, momentum=_MOMENTUM)

    def compute(self, inputs: Any, target: Any) -> None:
        """One step of learning."""
        self._optimizer.zero_grad()
        loss: Any = self._loss(self.forward(inputs), target)
        loss.backward()
        self._optimizer.step()


class InferStep(Step):
    """Forward alone."""

    @torch.no_grad()
    def compute(self, inputs: Any, target: Any) -> None:
        """One step of inference."""
        self.forward(inputs)
