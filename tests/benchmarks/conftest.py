"""Fixtures that tests of benchmarks share with those of the libraries."""

from __future__ import annotations

from tests.powerctl.fulcrum.conftest import replay as replay
