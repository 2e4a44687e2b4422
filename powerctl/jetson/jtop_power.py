"""Power as the jtop service of jetson-stats reports it: a second source, to compare with."""

from __future__ import annotations

from typing import Any

from powerctl.errors import DeviceUnavailable


class JtopPower:
    """A client of the jtop service; jetson-stats is an optional extra.

    The service looks once a second, in whole milliwatts, and its total adds up every rail where
    the module has no input rail: see `powerctl.jetson.rails.total_labels`.

    Parameters
    ----------
    client : optional
        An open client, by default a new one.

    Raises
    ------
    DeviceUnavailable
        If jetson-stats is not installed, or its service does not answer.
    """

    name = "jtop service"
    period_s = 2.0  # two readings

    def __init__(self, client: Any = None) -> None:
        self._client = client or _open_client()

    @property
    def labels(self) -> tuple[str, ...]:
        """The rails in its total."""
        power = self._client.power
        return (power["tot"]["name"],) if "name" in power["tot"] else tuple(power["rail"])

    def by_rail(self) -> dict[str, float]:
        """Watts of every rail, the total's own rail among them where it has one."""
        power = self._client.power
        rails = {name: float(rail["power"]) / 1000 for name, rail in power["rail"].items()}
        if "name" in power["tot"]:
            rails[power["tot"]["name"]] = float(power["tot"]["power"]) / 1000
        return rails

    def total_w(self) -> float:
        """Watts in total, by jtop's rule."""
        return float(self._client.power["tot"]["power"]) / 1000

    def preset(self) -> str | None:
        """The name of nvpmodel's preset, None where nvpmodel is not installed."""
        nvpmodel = self._client.nvpmodel
        return None if nvpmodel is None else str(nvpmodel.name)

    def close(self) -> None:
        """Leave the service."""
        self._client.close()


def _open_client() -> Any:
    try:
        from jtop import jtop
    except ImportError:
        raise DeviceUnavailable(
            "jtop is part of jetson-stats: pip install 'powerctl[jetson]'"
        ) from None
    client = jtop()
    try:
        client.start()
    except Exception as error:  # jtop's own exceptions share no base but this
        raise DeviceUnavailable(f"the jtop service does not answer: {error}") from None
    return client
