"""``python -m agent_memory_service``."""

from agent_memory_service.main import main

main()
