"""The flows: the only code that knows Prefect. What they do is in `dgasr`; how it is driven and retried is here."""

import logging
import os

from pipelines.environment import HERE, complete

os.environ.update(complete(os.environ, HERE))

# Prefect gives the loggers that it is told of its handlers, but not its level: their lines below WARNING would be lost.
for name in filter(None, os.environ.get("PREFECT_LOGGING_EXTRA_LOGGERS", "").split(",")):
    logging.getLogger(name.strip()).setLevel(os.environ.get("PREFECT_LOGGING_LEVEL", "INFO").upper())
