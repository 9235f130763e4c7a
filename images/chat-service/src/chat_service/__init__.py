"""Chat over HTTP. The way of a message: routes -> turn -> actor and agent -> events."""
