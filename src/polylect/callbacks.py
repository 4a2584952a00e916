"""The names under which configurations of earlier runs look for the callbacks."""

from polylect.run.callbacks import *  # noqa: F403
