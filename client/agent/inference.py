"""The Inference service: requests in, answers or refusals out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from functools import partial
from urllib.parse import unquote

import grpc

from powerctl.errors import InvalidInput, PowerctlError, UnknownName
from powerctl.fields import build
from wattfed.client.agent import tensors
from wattfed.client.agent.async_bridge import AsyncBridge
from wattfed.client.agent.calls import ByteLimit, CallRefused, RateLimit, check_budget
from wattfed.client.agent.engine_jobs import TicketRefusal
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.registry import Registry
from wattfed.client.agent.served_models import Model
from wattfed.client.agent.settings import AgentLimits, ModelFile
from wattfed.client.agent.tensors import decode_tensor, encode_tensor

CLIENT_KEY = "wattfed-client"  # metadata by which processes on the Unix socket differ


class ModelService:
    """Serves the models of a registry.

    Parameters
    ----------
    bridge : AsyncBridge
    registry : Registry
    limits : AgentLimits
    defaults : ModelFile
        Budget and batch sizes of models that are loaded without.
    may_load : bool
        Whether callers may have files of this machine loaded.
    """

    def __init__(
        self,
        bridge: AsyncBridge,
        registry: Registry,
        limits: AgentLimits,
        defaults: ModelFile,
        *,
        may_load: bool,
    ) -> None:
        self._bridge = bridge
        self._registry = registry
        self._limits = limits
        self._defaults = defaults
        self._may_load = may_load
        self._rate = RateLimit(limits.rate_hz, limits.burst)
        self._bytes = ByteLimit(limits.queued_bytes)

    async def Predict(
        self, request: pb.PredictRequest, context: grpc.aio.ServicerContext
    ) -> pb.PredictReply:
        """Answer one request with the model that it names."""
        return await self._predict(request, client_of(context), context.time_remaining())

    async def PredictStream(
        self,
        requests: AsyncIterator[pb.PredictRequest],
        context: grpc.aio.ServicerContext,
    ) -> None:
        """Answer the requests of a stream, each when it is ready.

        Only so many are under way, counting answers that the client has not taken: then no more
        are read, and gRPC's flow control holds the client back.
        """
        client, room = client_of(context), asyncio.Semaphore(self._limits.stream_window)
        writing = asyncio.Lock()  # a stream takes one message at a time

        async def answer(request: pb.PredictRequest) -> None:
            try:
                reply = await self._predict(request, client, None)
                outcome = pb.PredictStreamReply(id=request.id, reply=reply)
            except CallRefused as refused:
                outcome = pb.PredictStreamReply(id=request.id, refusal=refused.to_proto())
            async with writing:
                await context.write(outcome)
            room.release()

        answering: set[asyncio.Task[None]] = set()
        try:
            async for request in requests:
                await room.acquire()
                task = asyncio.create_task(answer(request))
                answering.add(task)
                task.add_done_callback(answering.discard)
            await asyncio.gather(*answering)
        finally:
            for task in answering:
                task.cancel()

    async def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListModelsReply:
        """List the models that are served."""
        return pb.ListModelsReply(models=[self._describe(m) for m in self._registry.models()])

    async def LoadModel(
        self, request: pb.LoadModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.Model:
        """Read a file of this machine, and serve one more model."""
        fields = {
            "name": request.name,
            "path": request.path,
            "task": request.task,
            "inputs": request.inputs,
            "latency_s": request.latency_s or self._defaults.latency_s,
            "batch_size": request.batch_size or self._defaults.batch_size,
            "largest_batch": self._defaults.largest_batch,
        }
        return await self._load(lambda: self._registry.load(build(ModelFile, fields, "the model")))

    async def ReloadModel(
        self, request: pb.ReloadModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.Model:
        """Serve the next version of a model."""
        call = partial(self._registry.reload, request.name, request.path)
        return await self._load(call)

    async def _load(self, call: Callable[[], Model]) -> pb.Model:
        if not self._may_load:
            raise CallRefused(
                grpc.StatusCode.PERMISSION_DENIED,
                "models are loaded over the agent's Unix socket only",
            )
        try:
            return self._describe(await asyncio.to_thread(call))
        except PowerctlError as error:
            raise CallRefused.of(error) from None

    async def _predict(
        self, request: pb.PredictRequest, client: str, remaining_s: float | None
    ) -> pb.PredictReply:
        self._rate.take(client)
        with self._bytes.held(request.ByteSize()):
            return await self._answer(request, remaining_s)

    async def _answer(
        self, request: pb.PredictRequest, remaining_s: float | None
    ) -> pb.PredictReply:
        try:
            model = self._registry.get(request.model)
            inputs = [decode_tensor(tensor) for tensor in request.inputs]
            tensors.check_inputs(inputs, model.inputs)
            budget_s = self._budget_s(model, request, remaining_s)
        except (InvalidInput, UnknownName) as error:
            raise CallRefused.of(error) from None
        broken = model.host.broken
        if broken and self._registry.get(model.name) is model:  # not just replaced by a new version
            raise CallRefused(grpc.StatusCode.UNAVAILABLE, broken)
        outcome = await self._bridge.ask(model.name, inputs, budget_s)
        if isinstance(outcome, TicketRefusal):
            raise CallRefused.by(outcome)
        version, outputs = outcome.value
        return pb.PredictReply(
            id=request.id,
            outputs=[encode_tensor(output) for output in outputs],
            model_version=version,
            batch_size=outcome.batch_size,
            waited_s=outcome.waited_s,
            ran_s=outcome.ran_s,
        )

    def _budget_s(
        self, model: Model, request: pb.PredictRequest, remaining_s: float | None
    ) -> float:
        budget_s = request.deadline_s or self._bridge.engine.service(model.name).latency_s
        check_budget(budget_s)
        return min(budget_s, math.inf if remaining_s is None else max(remaining_s, 1e-3))

    def _describe(self, model: Model) -> pb.Model:
        service = self._bridge.engine.service(model.name)
        return pb.Model(
            name=model.name,
            version=model.version,
            source=model.source,
            format=model.format,
            inputs=[spec.to_proto() for spec in model.inputs],
            latency_s=service.latency_s,
            batch_size=service.batch_size,
            largest_batch=max(service.time_s),
            isolation=model.host.isolation,
            broken=model.host.broken,
        )


def client_of(context: grpc.aio.ServicerContext) -> str:
    """Whose rate a call counts for: the host over TCP, and by its own word on the Unix socket."""
    peer = unquote(context.peer() or "")
    if peer.startswith("unix"):
        metadata = dict(context.invocation_metadata() or ())
        return f"unix:{metadata.get(CLIENT_KEY, '')}"
    return peer.rpartition(":")[0]
