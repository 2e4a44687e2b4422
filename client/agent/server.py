"""The agent as a whole: it opens the device, serves over gRPC until it is told to stop, restores.

Calls are handled on one asyncio loop: a waiting call or an open stream costs no thread, and gRPC's
flow control holds back who reads slowly. Models and holders run on the engine's thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import grpc
import torch
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_health.v1.health_pb2 import HealthCheckResponse

from powerctl.accelerator import Accelerator, choose_accelerator
from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.fulcrum.interleave import Interleaver
from wattfed.client.agent import rpc
from wattfed.client.agent.async_bridge import AsyncBridge
from wattfed.client.agent.calls import Hearing
from wattfed.client.agent.framing import GATE_SUFFIX
from wattfed.client.agent.gate_connections import GateService, GateSocket
from wattfed.client.agent.gate_holders import Holders
from wattfed.client.agent.idle_learning import IdleLearner
from wattfed.client.agent.idle_task import idle_task
from wattfed.client.agent.inference import ModelService
from wattfed.client.agent.known_tasks import KnownTasks
from wattfed.client.agent.members import Members
from wattfed.client.agent.model_host import Hosting
from wattfed.client.agent.opening import CLIENTS, KeptDevice, claim_socket, claim_state, open_kept
from wattfed.client.agent.own_tasks import OwnTasks
from wattfed.client.agent.planning import PlanState, ServicePlanner, model_to_plan
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.registry import Registry
from wattfed.client.agent.round_device import PlannedDevice
from wattfed.client.agent.rounds import RoundsService
from wattfed.client.agent.security import TokenCheck, read_tls, read_tokens
from wattfed.client.agent.settings import Settings, parse_address
from wattfed.client.agent.telemetry import Metrics, PowerService
from wattfed.client.agent.turn_engine import TurnEngine
from wattfed.client.worker.cost_models import CostModels

_LOG = logging.getLogger("wattfed.agent")
_GRACE_S = 2.0  # for answers that are on their way out
_SWITCH_S = 0.0005  # the device thread must not wait 5 ms for the interpreter
_SERVICES = tuple(service.full_name for service in pb.DESCRIPTOR.services_by_name.values())


async def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Run an agent until SIGTERM or SIGINT.

    Parameters
    ----------
    settings : Settings
    ready : callable
        Told where it listens, once it answers.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sys.setswitchinterval(_SWITCH_S)
    choose_accelerator(settings.accelerator)
    Accelerator.here()  # raises for what its unit or container says and is not there
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with claim_state(Path(settings.state_dir)):
        for suffix in ("", GATE_SUFFIX):
            claim_socket(Path(settings.socket + suffix))
        metrics = Metrics() if settings.metrics else None
        device = open_kept(settings.device, Path(settings.state_dir))
        if device.restored:
            _LOG.warning("restored mode %s, left by an agent that was killed", device.restored)
        agent = Agent(settings, device, metrics)
        agent.engine.failed.add_done_callback(lambda _: loop.call_soon_threadsafe(stop.set))
        opening, told = asyncio.create_task(agent.open()), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((opening, told), return_when=asyncio.FIRST_COMPLETED)
            if opening.done():  # else it is told to stop while a model loads
                ready(opening.result())
                await told
            if agent.engine.failed.done():
                raise DeviceUnavailable("the device thread has failed; the log says how")
        finally:
            opening.cancel()
            await agent.close()


class Agent:
    """The engine, the services that ask it, and the servers that offer them."""

    def __init__(self, settings: Settings, device: KeptDevice, metrics: Metrics | None) -> None:
        self._settings = settings
        self._device = device
        self._metrics = metrics
        self.engine = TurnEngine(device, Interleaver(), metrics)
        self._bridge = AsyncBridge(self.engine)
        limits = settings.limits
        unsafe = settings.allow_unsafe_models
        hosting = Hosting(limits.load_s, limits.batch_s, limits.model_bytes, unsafe)
        self._registry = Registry(self.engine, limits.queue_length, hosting, settings.lease_s)
        holders = Holders(self._bridge, settings.lease_s)
        self._gate = GateService(holders)
        self._gate_socket = GateSocket(holders)
        state = Path(settings.state_dir)
        self._cost_models = CostModels(state, settings.device)
        sets_modes = not settings.plan.power_w
        seen = device if sets_modes else PlannedDevice(device)
        self._members = Members(seen, state / CLIENTS, self._cost_models, OwnTasks(state))
        self._idle = self._learner() if settings.idle.task and sets_modes else None
        if settings.idle.task and not sets_modes:
            _LOG.warning(
                "where the agent plans the mode, only rounds measure: [idle] has no effect"
            )
        self._rounds = RoundsService(
            self.engine,
            self._registry,
            self._members,
            sets_modes=sets_modes,
            away=self._idle.away if self._idle else nullcontext,
        )
        self._tasks = KnownTasks(device.board, self._cost_models, self._members, self._idle)
        self._plan_state: Callable[[], PlanState] = PlanState  # as configured
        self._planning: asyncio.Task[None] | None = None
        self._health = health_aio.HealthServicer()
        self._servers: list[grpc.aio.Server] = []

    async def open(self) -> str:
        """Load the models, then listen; returns where."""
        settings = self._settings
        self.engine.start()
        if settings.mode:
            mode = self._device.board.mode(settings.mode)
            await asyncio.wrap_future(self.engine.change(mode))
        for file in settings.model:
            await asyncio.to_thread(self._registry.load, file)
        if settings.plan.power_w:
            planner = await asyncio.to_thread(self._make_planner)
            await asyncio.to_thread(planner.look)
            self._plan_state = planner.state
            self._planning = asyncio.create_task(planner.run())
        if self._idle is not None:
            self._idle.start()
        for name in ("", *_SERVICES):
            await self._health.set(name, HealthCheckResponse.SERVING)
        where = [await self._listen_locally()]
        if settings.listen:
            where.append(await self._listen_to_tcp())
        if self._metrics is not None:
            host, port = parse_address(settings.metrics, "metrics", "127.0.0.1")
            bound = self._metrics.serve(self.engine, self._members.budgets, host, port)
            where.append(f"metrics at {host}:{bound}")
        return ", ".join(where)

    def _learner(self) -> IdleLearner:
        idle, tasks = self._settings.idle, OwnTasks(Path(self._settings.state_dir))
        return IdleLearner(
            self.engine,
            self._cost_models,
            idle,
            partial(idle_task, idle.task, idle.settings, tasks),
        )

    def _make_planner(self) -> ServicePlanner:
        plan = self._settings.plan
        file = model_to_plan({file.name: file for file in self._settings.model}, plan.model)
        service = self.engine.service(file.name)
        return ServicePlanner.of(self.engine, service, file, plan, self._cost_models)

    async def close(self) -> None:
        """Finish the running turn, refuse what waits, restore the device and end."""
        if self._planning is not None:
            self._planning.cancel()
        lease_s = self._settings.lease_s
        await self._health.enter_graceful_shutdown()
        # no new calls from here on; those there are go on until they are answered
        stopping = [
            asyncio.create_task(server.stop(lease_s + _GRACE_S)) for server in self._servers
        ]
        self._rounds.interrupt_all("the agent stops")
        if self._idle is not None:
            await asyncio.to_thread(self._idle.close)
        if not await asyncio.to_thread(self.engine.stop, "the agent stops", lease_s):
            _LOG.warning("a turn did not end within %g s", lease_s)
        await asyncio.to_thread(self._registry.close)
        self._device.restore()
        self._members.keep()
        self._gate.close()
        self._gate_socket.close()
        if stopping:
            await asyncio.wait(stopping, timeout=_GRACE_S)
        for server in self._servers:
            await server.stop(None)
        for suffix in ("", GATE_SUFFIX):
            Path(self._settings.socket + suffix).unlink(missing_ok=True)
        if self._metrics is not None:
            self._metrics.close()

    async def _listen_locally(self) -> str:
        server = self._server(local=True)
        self._servers.append(server)
        path = self._settings.socket
        before = os.umask(0o177)  # so that nobody else can connect even for a moment
        try:
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            await self._gate_socket.open(Path(path + GATE_SUFFIX))
        except (RuntimeError, OSError) as error:
            raise InvalidInput(f"cannot listen at {path}: {error}") from None
        finally:
            os.umask(before)
        return f"unix:{path}"

    async def _listen_to_tcp(self) -> str:
        settings = self._settings
        host, port = parse_address(settings.listen, "--listen")
        tls = read_tls(Path(settings.tls_cert), Path(settings.tls_key))
        tokens = read_tokens(Path(settings.token_file))
        server = self._server(local=False, interceptors=(TokenCheck(tokens),))
        self._servers.append(server)
        try:
            # first as a probe, because gRPC does not say why it cannot
            (await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port)).close()
            bound = server.add_secure_port(f"{host}:{port}", tls)
        except (OSError, RuntimeError) as error:
            raise InvalidInput(f"cannot listen at {settings.listen}: {error}") from None
        await server.start()
        return f"{host}:{bound} (TLS)"

    def _server(self, *, local: bool, interceptors: tuple[TokenCheck, ...] = ()) -> grpc.aio.Server:
        """A server; the gate, the rounds and the loading of files are for this machine only."""
        settings, limits = self._settings, self._settings.limits
        server = grpc.aio.server(
            interceptors=(*interceptors, Hearing()),
            options=_options(limits.message_bytes),
            maximum_concurrent_rpcs=limits.concurrent,
        )
        inference = ModelService(
            self._bridge, self._registry, limits, settings.defaults, may_load=local
        )
        power = PowerService(self.engine, settings.device, self._plan_state, self._tasks)
        rpc.add_service(server, "Inference", inference)
        rpc.add_service(server, "Power", power)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if local:
            rpc.add_service(server, "Gate", self._gate)
            rpc.add_service(server, "Rounds", self._rounds)
        return server


def _options(message_bytes: int) -> list[tuple[str, int]]:
    """Limits of messages, and the pings by which a connection that died silently is noticed."""
    return [
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", message_bytes),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.so_reuseport", 0),
    ]
