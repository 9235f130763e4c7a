"""Load on the chat and on Dapr's actor placement, with Locust, and what it shows."""
