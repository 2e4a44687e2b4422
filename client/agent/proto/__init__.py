"""The agent's protocol: `agent.proto`, and what ``make proto`` makes of it."""
