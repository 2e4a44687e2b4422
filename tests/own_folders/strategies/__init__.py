"""A folder of the app, not of wattfed."""
