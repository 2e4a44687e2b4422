"""The agent: the process on a device that serves inference, hands out turns, and trains."""
