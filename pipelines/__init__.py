"""The flows: the only code that knows Prefect. What they do is in `dgasr`; how it is driven and retried is here."""

import os

# Read by Prefect when it is imported: nothing that runs here reports to anyone unless someone asks it to, and a busy
# machine may take its time to start the temporary server of a run without one.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # read by torch: threads that spin starve the others of a busy machine
