"""`make local`: both services with their sidecars, and what those need, as processes of this machine."""
