"""The ServerApp of the app that this repository is; that of others is `wattfed.server.app:app`."""

from wattfed.server.app import app

__all__ = ["app"]
