"""Fake boards for the doctor to look at."""

from tests.powerctl.jetson.conftest import fake, folder  # noqa: F401, fixtures
