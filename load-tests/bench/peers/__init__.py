"""What ours is compared with: small programs that answer ``POST /chat/`` as chat-service does.

Each is written as its user would write it today, and runs under uvicorn without an access log: its best case.
"""
