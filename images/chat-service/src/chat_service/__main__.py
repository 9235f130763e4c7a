"""``python -m chat_service``."""

from chat_service.main import main

main()
