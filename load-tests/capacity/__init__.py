"""`make capacity`: how far it goes, worked out from measured runs, as docs/capacity.md; `make bench-capacity` measures.

Layers, lowest first: actors, users, rounds (one kind of measurement each), runs (the files that keep them, in runs/),
measure (makes these files); fit (lines through measurements, with errors), model (what is worked out), page (how it is
told).
"""
