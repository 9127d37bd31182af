"""The flows: the only code that knows Prefect. What they do is in `dgasr`; how it is driven and retried is here."""

import os

# Read by Prefect when it is imported: nothing that runs here reports to anyone unless someone asks it to.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
