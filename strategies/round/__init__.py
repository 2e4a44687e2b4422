"""The way of a round on the server: the Flower Strategy, its aggregations and its ledger."""
