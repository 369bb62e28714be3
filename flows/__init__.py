"""Prefect flows: when the stages run."""

import tasks as tasks  # it refuses the wrong Python, before Prefect is missed
