"""Fake boards for the tests of their kernel."""

from tests.powerctl.jetson.conftest import board, fake, folder  # noqa: F401, fixtures
