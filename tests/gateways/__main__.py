"""Writes the responses of every gateway: ``python -m tests.gateways FOLDER``, one folder for each."""

import sys
from pathlib import Path

from tests.gateways.catalog import GATEWAYS


def main() -> int:
    """Write them and print where."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    for gateway in GATEWAYS:
        print(gateway.write(Path(sys.argv[1]) / gateway.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
