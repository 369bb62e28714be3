"""Images of one's own in data/inbox, and what download makes of them."""

from pathlib import Path

import pytest

from tasks import download
from tasks.data.stock import Stock
from tests.support.params import write_params

INBOX = Path("data/inbox")


def put(*paths: str) -> None:
    """Put files there: download looks at their names, and hashes what is in them."""
    for path in paths:
        (INBOX / path).parent.mkdir(parents=True, exist_ok=True)
        (INBOX / path).write_text(path)


def write_csv(text: str, encoding: str = "utf-8") -> None:
    (INBOX / "labels.csv").write_bytes(text.encode(encoding))


def taken(dataset: str = "folder", **csv: object) -> Stock:
    """Run the stage and return the stock that it took."""
    settings = {"file": "labels.csv", "header": True, "image": "image", "label": "label", "split": None}
    write_params(download={"dataset": dataset, "csv": settings | csv})
    download.main()
    return Stock.read()


def listed(found: Stock) -> list[tuple[str, str, str | None]]:
    return [(item.path, item.label, item.split) for item in found.items]


def refusal(dataset: str = "folder", **csv: object) -> str:
    """Run the stage, which has to fail and to publish nothing, and return what it says."""
    with pytest.raises(SystemExit) as stopped:
        taken(dataset, **csv)
    assert not Path("data/raw").exists()
    return str(stopped.value.code)
