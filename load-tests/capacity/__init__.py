"""`make capacity`: how far it goes, worked out from measured runs, as docs/capacity.md; `make bench-capacity` measures them.

Layers, lowest first: actors, users, rounds (one kind of measurement each), measure (the order of them, and the files in
runs/); runs (reads these files), fit (lines through measurements, with their errors), model (what is worked out), page
(how it is told).
"""
