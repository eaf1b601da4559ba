"""Code shared by Shashin's services, and the ``shashin`` command."""

import os

# Processes of this project fork only to start another program. With gRPC's support for forks, the child
# would start gRPC's threads again, and one may abort when descriptors are closed before exec. gRPC reads
# this when it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
