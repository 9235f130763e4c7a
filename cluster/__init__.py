"""The clusters this project runs on, and the commands that `make` calls: `python -m cluster <command>`."""
