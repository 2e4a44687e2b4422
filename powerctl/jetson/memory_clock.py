"""The memory clock (EMC): its rates, its cap, and how it is held at one rate."""

from __future__ import annotations

from dataclasses import dataclass

from powerctl.jetson.sysfs import Sysfs

_BPMP = "sys/kernel/debug/bpmp/debug"
_T210 = "sys/kernel/debug/clk"
_CAPS = ("sys/kernel/nvpmodel_clk_cap/emc", "sys/kernel/nvpmodel_emc_cap/emc_iso_cap")


@dataclass(frozen=True)
class MemoryClock:
    """The files of the memory clock: of the BPMP, or of Tegra X1 (Nano), which has none.

    Attributes
    ----------
    hold : str
        1 holds the rate, 0 lets it float with the load.
    request : str
        The rate asked for.
    rate : str
        The rate in force. The cap is no substitute: it repeats what was written to it.
    enable : str or None
        Must be 1 for a held rate to count, where it exists.
    lowest, highest : str
        The rates between which the hardware can go.
    listed : str
        The rates, where the kernel lists them.
    cap : str or None
        Where nvpmodel keeps the rate down; 0 is no cap.
    holds_first : bool
        Whether the hold is written before the rate.
    """

    hold: str
    request: str
    rate: str
    enable: str | None
    lowest: str
    highest: str
    listed: str
    cap: str | None
    holds_first: bool

    def files(self, sysfs: Sysfs) -> list[str]:
        """What holding a rate may write, the hold last."""
        paths = [self.cap, self.request, self.enable, self.hold]
        return [path for path in paths if path is not None and sysfs.exists(path)]

    def is_held(self, sysfs: Sysfs) -> bool:
        """Whether the rate is held, rather than floating."""
        return sysfs.int_if(self.hold) == 1

    def rates(self, sysfs: Sysfs, known: tuple[int, ...]) -> tuple[int, ...]:
        """The rates in Hz, ascending: the kernel's list, else those known within its range.

        Of a board of which none is known they are the ends of that range.
        """
        low, high = (
            sysfs.int_if(self.lowest) or 0,
            sysfs.int_if(self.highest) or max(known, default=0),
        )
        known = known or tuple(sorted({rate for rate in (low, high) if rate > 0}))
        listed = tuple(1000 * khz for khz in sysfs.clocks_if(self.listed))
        return tuple(rate for rate in listed or known if low <= rate <= 1.001 * high)

    def set(self, sysfs: Sysfs, hz: int) -> None:
        """Hold a rate; a cap below it is raised, and what is held already is not written."""
        cap = sysfs.int_if(self.cap) if self.cap else None
        if self.cap and cap and cap < hz:
            sysfs.write(self.cap, hz)
        if self.is_held(sysfs) and sysfs.int_if(self.rate) == hz:
            return
        order = [(self.hold, 1), (self.request, hz)]
        for path, value in order if self.holds_first else reversed(order):
            if path == self.request or sysfs.int_if(path) != value:
                sysfs.write(path, value)
        if self.enable and sysfs.int_if(self.enable) != 1:
            sysfs.write(self.enable, 1)

    def ceiling(self, sysfs: Sysfs) -> int | None:
        """The rate in Hz that is held, or up to which it floats; None if nobody says."""
        if self.is_held(sysfs):
            return sysfs.int_if(self.rate)
        cap, high = sysfs.int_if(self.cap) if self.cap else None, sysfs.int_if(self.highest)
        return min((v for v in (cap, high) if v), default=None)

    def measured(self, sysfs: Sysfs) -> int | None:
        """The rate in force in Hz, None if it cannot be read."""
        return sysfs.int_if(self.rate)


def find_memory(sysfs: Sysfs) -> MemoryClock | None:
    """The memory clock's files; None if debugfs is not mounted or may not be read.

    One whose rate could be asked for and not be held, as a file is missing, is none.
    """
    cap = next((path for path in _CAPS if sysfs.exists(path)), None)
    for clock in (_of_bpmp(cap), _of_t210(cap)):
        if all(sysfs.exists(path) for path in (clock.hold, clock.request, clock.rate)):
            return clock
    return None


def _of_bpmp(cap: str | None) -> MemoryClock:
    emc = f"{_BPMP}/clk/emc"
    return MemoryClock(
        hold=f"{emc}/mrq_rate_locked",
        request=f"{emc}/rate",
        rate=f"{emc}/rate",
        enable=f"{emc}/state",
        lowest=f"{emc}/min_rate",
        highest=f"{emc}/max_rate",
        listed=f"{_BPMP}/emc/possible_rates",
        cap=cap,
        holds_first=True,
    )


def _of_t210(cap: str | None) -> MemoryClock:
    override = f"{_T210}/override.emc"
    return MemoryClock(
        hold=f"{override}/clk_state",
        request=f"{override}/clk_update_rate",
        rate=f"{_T210}/emc/clk_rate",
        enable=None,
        lowest="sys/kernel/debug/tegra_bwmgr/emc_min_rate",
        highest="sys/kernel/debug/tegra_bwmgr/emc_max_rate",
        listed=f"{_T210}/emc/clk_possible_rates",
        cap=cap,
        holds_first=False,
    )
