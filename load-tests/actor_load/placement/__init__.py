"""Where actors live: Dapr's ring, and what a cluster says of it. Nothing in here imports Locust or gevent."""
