"""What stops a run before or while it is under way."""


class LoadError(Exception):
    """One line that names what is wrong and the mend; the run ends with exit code 2."""
