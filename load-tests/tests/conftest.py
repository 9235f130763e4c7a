"""Locust is imported here, first, and without gevent's patches: they would change every other test of this process."""

import os

os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
import locust  # noqa: F401

# A Locust that a test starts is to be patched as ever.
del os.environ["LOCUST_SKIP_MONKEY_PATCH"]
