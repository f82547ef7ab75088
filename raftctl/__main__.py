"""``python -m raftctl`` is ``raftctl``."""

from raftctl.app import main

main()
