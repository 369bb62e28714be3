"""What the stage transform says when it refuses to run."""

from pathlib import Path

import pytest

from tasks import transform


def refusal() -> str:
    """Run the stage, which has to fail and to publish nothing, and return what it says."""
    with pytest.raises(SystemExit) as stopped:
        transform.main()
    assert not Path("data/prepared").exists()
    return str(stopped.value.code)
