"""The parts that act, and the one public door: ``from peers import Peer, Job, Files``."""
