"""Trying a served model: random inputs, one request after another."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import grpc
import numpy as np
import torch

from powerctl.errors import InvalidInput, UnknownName
from wattfed.client.agent import tensors
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.tensors import decode_tensor, encode_tensor

_TIMEOUT_S = 60.0  # a board that does much else answers late
_BUSY = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)


class Trial(NamedTuple):
    """What came back: shapes of the outputs, and latencies as the client saw them."""

    model: str
    version: int
    outputs: list[str]
    refused: int
    p50_s: float
    p99_s: float
    batch_size: float


def try_model(stub: Any, name: str, count: int, seed: int) -> Trial:
    """Send a model random inputs; raises `InvalidInput` if none is served, or all is refused."""
    model = _find(stub, name)
    request = pb.PredictRequest(model=model.name, inputs=_random_inputs(model, seed))
    latencies_s, batches, refused, reply = [], [], 0, None
    for _ in range(count):
        start_s = time.perf_counter()
        try:
            reply = stub.Predict(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() not in _BUSY:
                raise
            refused, reason = refused + 1, error.details()
            continue
        latencies_s.append(time.perf_counter() - start_s)
        batches.append(reply.batch_size)
    if reply is None:
        raise InvalidInput(f"all {refused} requests were refused; the last: {reason}")
    outputs = [str(decode_tensor(output).shape) for output in reply.outputs]
    p50_s, p99_s = (float(p) for p in np.percentile(latencies_s, (50, 99)))
    return Trial(
        *(model.name, reply.model_version, outputs, refused),
        *(p50_s, p99_s, math.fsum(batches) / len(batches)),
    )


def _find(stub: Any, name: str) -> pb.Model:
    served: pb.ListModelsReply = stub.ListModels(pb.ListModelsRequest(), timeout=_TIMEOUT_S)
    models: dict[str, pb.Model] = {model.name: model for model in served.models}
    if not models:
        raise InvalidInput("the agent serves no model; start it with --model")
    if not name and len(models) == 1:
        return next(iter(models.values()))
    if name not in models:
        raise UnknownName("model", name, models)
    return models[name]


def _random_inputs(model: pb.Model, seed: int) -> list[pb.Tensor]:
    """Random inputs of the right shapes: uniform numbers, and zeros and ones for whole ones."""
    generator = torch.Generator().manual_seed(seed)
    inputs = []
    for spec in model.inputs:
        dtype = tensors.dtype_of(spec.dtype)
        values = torch.rand(tuple(spec.shape), generator=generator)
        inputs.append(
            encode_tensor(values.to(dtype) if dtype.is_floating_point else values.round().to(dtype))
        )
    return inputs
