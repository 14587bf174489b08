"""A hospital's node with the troublesome worker: ``node.py SITE``."""

import logging
import sys
from pathlib import Path

from client.node.supervisor import run_node

if __name__ == "__main__":
    logging.basicConfig()
    logging.getLogger("concors.node").setLevel(logging.INFO)
    worker = [sys.executable, str(Path(__file__).with_name("troublesome.py"))]
    run_node(Path(sys.argv[1]), worker=worker)
