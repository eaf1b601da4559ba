"""Code shared by Shashin's services, and the ``shashin`` command."""

import os

# gRPC reads both when it is imported.

# Processes of this project fork only to start another program. With gRPC's support for forks, the child
# would start gRPC's threads again, and one may abort when descriptors are closed before exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# With its event engine, gRPC has threads that poll, and hands what comes to the thread that waits for it, which
# wakes the event loop. Without it, the thread that waits polls by itself: a call costs a tenth to a fifth less.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
