"""What the requests of a platform's clients say beside their bodies; its server and its clients both know it."""

from __future__ import annotations

VERSION = 1
"""Of the protocol: the number in the paths, and in `VERSION_HEADER`."""
VERSION_HEADER = "HyperFD-Protocol"
"""The version that the client speaks; a server of another one refuses the request."""
HOLDER_HEADER = "HyperFD-Holder"
"""A random id of the advisor's process: of two that run one experiment, the newer one holds its task."""
