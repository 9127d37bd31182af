"""The flows: the only code that knows Prefect. What they do is in `dgasr`; how it is driven and retried is here.

Prefect reads its environment when it is imported, so the environment is set here, before: of this process, and for the
servers and workers that `pipelines.start` becomes.
"""

import logging
import os
from collections.abc import Mapping

EVERYWHERE = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}
"""Nothing that runs here reports to anyone unless someone asks it to."""

HERE = EVERYWHERE | {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Of a process that imports the flows: a busy machine may take its time to start the temporary server of a run without
one, and torch's threads must not spin, which starves the others of that machine."""

SERVER = EVERYWHERE | {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_METRICS_ENABLED": "true",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "10",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "60",
}
"""A parent run ends when the lease on its slot is gone, and leases in memory go with a server that is started anew
(found by `make chaos`): they lie in PREFECT_HOME. Prometheus reads `/api/metrics`; children of a cancelled run are told
within 10 s, and given up after 60 s."""

WORKER = EVERYWHERE | {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_WORKER_QUERY_SECONDS": "5",
    "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
    "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "30",
    "PREFECT_CLIENT_MAX_RETRIES": "7",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "dgasr,pipelines",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Of workers and their flow runs.

The automation `dgasr: a run without a heartbeat has crashed` counts on the heartbeat every 30 s. Seven retries bridge a
server that is away for four minutes. The library's log lines are shown in Prefect, but not those of threads that
belong to no flow run.
"""


def complete(environment: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with what is wanted and not set in it; a variable that is set stays."""
    return {**wanted, **environment}


os.environ.update(complete(os.environ, HERE))

# Prefect gives the loggers that it is told of its handlers, but not its level: their lines below WARNING would be lost.
for name in filter(None, os.environ.get("PREFECT_LOGGING_EXTRA_LOGGERS", "").split(",")):
    logging.getLogger(name.strip()).setLevel(os.environ.get("PREFECT_LOGGING_LEVEL", "INFO").upper())
