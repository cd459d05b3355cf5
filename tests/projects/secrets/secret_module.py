"""A module that cannot be imported, and tells a secret."""

import os

raise RuntimeError("no client for " + os.environ["SERVICE_API_KEY"])
