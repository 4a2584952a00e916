"""Where configurations of earlier runs look for the callbacks."""

from polylect.run.callbacks import *  # noqa: F403
