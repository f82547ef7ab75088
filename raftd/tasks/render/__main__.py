"""``python -m raftd.tasks.render``: the reference picture, see ``raftd.tasks.render.reference``."""

import sys

from raftd.tasks.render.reference import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
