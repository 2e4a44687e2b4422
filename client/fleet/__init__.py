"""Fleets: which boards there are, how they are linked, what each may spend, what goes on around."""

from wattfed.client.fleet.fleet import ClientProfile, Fleet, profile_from_node_config
from wattfed.client.fleet.fleet_file import FLEETS, load_fleet

__all__ = ["ClientProfile", "Fleet", "FLEETS", "load_fleet", "profile_from_node_config"]
