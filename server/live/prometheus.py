"""A run in numbers for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from wattfed.server.live.snapshot import Snapshot
from wattfed.server.run.contender import Contender
from wattfed.server.run.history import TROUBLES, last_metrics

MOST_CLIENTS = 100  # of a fleet whose clients have series of their own
CONTENT_TYPE = CONTENT_TYPE_LATEST
_CLIENT = ("client", "name")  # its number, and its board or node
_ENERGIES = ("train", "transfer", "wait", "wasted")


def render_metrics(now: Snapshot) -> bytes:
    """The text that Prometheus scrapes."""
    return generate_latest(_Families(now))


class _Families:
    """The metrics of a snapshot."""

    def __init__(self, now: Snapshot) -> None:
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """All families, as prometheus_client asks for them."""
        yield from self._run()
        if self._now.rows:
            yield from self._sums()
            yield from self._last_round()
        yield from self._clients()

    def _run(self) -> Iterator[Metric]:
        now, config = self._now, self._now.config
        labels = {
            "run": now.folder.name,
            "task": config.task,
            "strategy": config.strategy,
            "power": Contender.of(config).power,
            "workload": now.charged,
        }
        info = GaugeMetricFamily("wattfed_run_info", "What runs.", labels=[*labels])
        info.add_metric([*labels.values()], 1)
        yield info
        yield GaugeMetricFamily("wattfed_run_finished", "1 once it is.", int(now.is_finished))
        yield GaugeMetricFamily(
            "wattfed_run_written_timestamp_seconds",
            "When results were last written.",
            now.written_s,
        )
        yield GaugeMetricFamily("wattfed_rounds_wanted", "Rounds to run.", config.rounds)
        yield CounterMetricFamily("wattfed_rounds", "Rounds that are over.", now.round)

    def _sums(self) -> Iterator[Metric]:
        total = self._now.summary
        metrics = last_metrics(self._now.rows)
        if "accuracy" in metrics:
            yield GaugeMetricFamily(
                "wattfed_accuracy_ratio", "Of the global model.", metrics["accuracy"]
            )
        values = GaugeMetricFamily(
            "wattfed_metric_value", "Of the last evaluation, by its own name.", labels=["metric"]
        )
        for name, value in metrics.items():
            values.add_metric([name], value)
        yield values
        target = GaugeMetricFamily(
            "wattfed_target_info", "What the run is judged by.", labels=["metric", "direction"]
        )
        target.add_metric([self._now.target.name, self._now.target.direction], 1)
        yield target
        yield CounterMetricFamily(
            "wattfed_fleet_time_seconds", "On the devices' clock.", total["virtual_time_s"]
        )
        energy = CounterMetricFamily(
            "wattfed_fleet_energy_joules",
            "Of the participants' modules; wasted is a part of the others.",
            labels=["part"],
        )
        for part in _ENERGIES:
            energy.add_metric([part], total[f"{part}_energy_j"])
        yield energy
        troubles = CounterMetricFamily(
            "wattfed_troubles", "Clients in a round that met with it.", labels=["kind"]
        )
        for key, _ in TROUBLES:
            troubles.add_metric([key], total[key])
        yield troubles

    def _last_round(self) -> Iterator[Metric]:
        row = self._now.rows[-1]
        if row.entry is None:
            return
        yield GaugeMetricFamily(
            "wattfed_round_time_seconds", "Of the last round.", row.entry.round_time_s
        )
        yield GaugeMetricFamily(
            "wattfed_round_energy_joules", "Of the last round.", row.entry.energy_j
        )
        if (work := self._now.work.get(row.round)) is None:
            return
        for name, about, measured, expected in (
            ("energy_joules", "energy", work.energy_j, work.expected_energy_j),
            ("time_seconds", "longest training", work.time_s, work.expected_time_s),
        ):
            family = GaugeMetricFamily(
                f"wattfed_round_training_{name}", f"The last round's {about}.", labels=["kind"]
            )
            family.add_metric(["measured"], measured)
            family.add_metric(["predicted"], expected)
            yield family

    def _clients(self) -> Iterator[Metric]:
        now = self._now
        asked = sum(account.asked > 0 for account in now.clients)
        yield GaugeMetricFamily("wattfed_clients_asked", "Ever, in this run.", asked)
        unable = GaugeMetricFamily(
            "wattfed_clients_unable", "That cannot take part now, by the reason.", labels=["reason"]
        )
        for reason, clients in now.participants.reasons().items():
            unable.add_metric([reason], len(clients))
        yield unable
        limited = [a for a in now.clients if math.isfinite(a.budget_left_j)]
        yield GaugeMetricFamily(
            "wattfed_budget_left_joules",
            "Sum over the clients that were asked and have an energy budget.",
            sum(account.budget_left_j for account in limited),
        )
        if now.n_clients > MOST_CLIENTS:
            return
        few = f"In fleets of at most {MOST_CLIENTS} clients:"
        left = GaugeMetricFamily(
            "wattfed_client_budget_left_joules", f"{few} of its energy budget.", labels=_CLIENT
        )
        for account in limited:
            left.add_metric([str(account.client), account.name], account.budget_left_j)
        energy = CounterMetricFamily(
            "wattfed_client_training_energy_joules", f"{few} in all rounds.", labels=_CLIENT
        )
        rounds = CounterMetricFamily(
            "wattfed_client_rounds", f"{few} rounds it trained in.", labels=_CLIENT
        )
        for account in now.clients:
            who = [str(account.client), account.name]
            energy.add_metric(who, account.energy_j)
            rounds.add_metric(who, account.trained)
        yield from (left, energy, rounds)
