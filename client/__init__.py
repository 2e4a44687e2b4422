"""The federated client: Flower's ClientApp, the local training loop, fleets and tasks."""
