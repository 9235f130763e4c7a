"""Relays the connection of a Dapr sidecar to Dapr's placement service, so that it finds a new one at once."""
