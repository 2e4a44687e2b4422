"""The agent's protocol: `agent.proto`, and what `wattfed.client.agent.generate` makes of it."""
