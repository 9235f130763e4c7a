"""What is known of a user, and the transcript of every session; fed by the events of chat-service."""
