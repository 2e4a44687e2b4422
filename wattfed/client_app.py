"""The ClientApp of the app that this repository is; that of others is `wattfed.client.app:app`."""

from wattfed.client.app import app

__all__ = ["app"]
