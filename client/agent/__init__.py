"""The agent: the process on a device that serves inference, hands out turns, and trains.

The way of a request: `inference` takes it off the wire (`calls` limits and refuses, `tensors` reads
what it brings) and waits at the `async_bridge`; the `turn_engine` queues it as a ticket, asks the
interleaver of powerctl whose turn it is, and runs a batch of the model's job (`registry`) on its
one thread; the model (`served_models`) computes it here, or in a process of its own (`model_host`
asks `model_process` by an `exchange`, within a `sandbox`).

The way of a turn of another process: `wattfed.client.gate` asks (`framing`), `gate_connections`
hears it, and `gate_holders` makes it a job of the same engine, whose turn lasts until it is
released, or its lease ends.

The way of a round: the ClientApp forwards the server's message (`wire`), `rounds` finds the client
that it is for (`members`) and has it train in a thread of its own, on a `round_device` whose every
minibatch waits for its turn.

`server` puts all of it together from `settings`, after `opening` has claimed the device; `planning`
sets mode and batch size by what `worker.cost_models` predict; `telemetry` and
`known_tasks` tell what goes on; `idle_learning` measures a task in idle time;
`security` says who may call over TCP. `cli` is the command, with `connecting`, `trying` and `top`.
"""
