"""A developer's tool: kind on a Linux machine that has neither an engine nor a registry to pull from.

It makes kind's node image and all images of a cluster from the programs that the bare node is built from, and runs a
command where Podman, kind, Helm, kubectl and Skaffold work as on a developer's machine: in namespaces that end with it.
"""
