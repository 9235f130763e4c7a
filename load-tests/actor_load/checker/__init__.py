"""Holds what clients were told against what is stored afterwards, from outside; for the load tests and other drivers.

- ``told``: what clients noted; ``seen``: what is read afterwards.
- ``rules``: the promises to those who chat; ``pauses``: how long nobody was answered. Pure.
- ``reader``: the HTTP that reads; ``verification``: all of it as a section of the report.
"""
