"""`python -m motedge`, the same as the command `motedge`."""

import sys

from motedge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
