"""What the services share: settings, ids, problem+json, logs, health, the server, and clients of Dapr and the model."""
