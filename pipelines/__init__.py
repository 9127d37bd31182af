"""The flows: the only code that knows Prefect. What they do is in `dgasr`; how it is driven and retried is here."""

import os

from pipelines.environment import HERE, complete

os.environ.update(complete(os.environ, HERE))
