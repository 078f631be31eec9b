"""Stand-in worker-facing API: takes jobs from the dispatcher, gives them to workers.

Start it with `python -m deploy.sandbox.peer --help`, or in a test with `create_app`.
"""

from deploy.sandbox.peer.app import create_app
from deploy.sandbox.peer.state import PEER, Peer, PeerSettings

__all__ = ["PEER", "Peer", "PeerSettings", "create_app"]
