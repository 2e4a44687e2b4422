"""The agent's protocol: `agent.proto`, and what `client.agent.generate` makes of it."""
