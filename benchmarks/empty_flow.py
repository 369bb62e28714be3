"""A Prefect flow that does nothing: what Prefect itself takes.

Run:    python benchmarks/empty_flow.py
"""

from prefect import flow


@flow
def empty() -> None:
    """Do nothing."""


if __name__ == "__main__":
    empty()
