"""A client at work: it offers, plans, trains within its limits, and reports."""
