"""Fleets: which boards there are, how they are linked, what each may spend, what goes on around."""

from wattfed.client.fleet.fleet import Fleet
from wattfed.client.fleet.fleet_file import fleet_names, load_fleet
from wattfed.client.fleet.profile import ClientProfile, profile_from_node_config

__all__ = ["ClientProfile", "Fleet", "fleet_names", "load_fleet", "profile_from_node_config"]
