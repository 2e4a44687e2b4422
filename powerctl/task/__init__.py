"""The user's task: model, data, loop and metrics as they wrote them, driven one turn at a time."""
