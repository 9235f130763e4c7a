#!/bin/sh
# No package starts a service: an image is no machine.
exit 101
