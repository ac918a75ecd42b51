"""`python -m services.sandbox` runs the service."""

import os
import sys

# gRPC's fork handlers crash children between fork and exec; it reads this when it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from services.sandbox.app import main

if __name__ == "__main__":
    sys.exit(main())
