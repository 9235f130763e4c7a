"""``python -m offline_model``."""

from offline_model.main import main

main()
