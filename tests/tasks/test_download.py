"""download: what is in data/raw afterwards, and that a failure leaves what was there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import download
from tasks.data import fetch
from tests.support.params import ROOT, write_params

RAW = Path("data/raw/FashionMNIST/raw")


def test_a_failure_leaves_the_data_that_is_there(
    workspace: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.data.fetch.time.sleep", lambda _: None)
    monkeypatch.setenv("DATA_MIRROR", str(workspace))
    (workspace / "fashion_mnist").mkdir()
    for name, content in archives.items():
        (workspace / "fashion_mnist" / name).write_bytes(content)
    download.main()
    before = {path: path.read_bytes() for path in RAW.iterdir()}
    assert len(before) == 8
    lost = "train-images-idx3-ubyte.gz"
    (fetch.CACHE / "fashion_mnist" / lost).unlink()
    (workspace / "fashion_mnist" / lost).unlink()
    with pytest.raises(SystemExit, match=f"^download: no source delivered {lost}"):
        download.main()
    assert {path: path.read_bytes() for path in RAW.iterdir()} == before
    assert [path.name for path in Path("data").iterdir()] == ["raw"]


def test_digits_come_from_the_installed_scikit_learn(workspace: Path) -> None:
    write_params(download={"dataset": "digits"})
    download.main()
    assert (workspace / "data/raw/digits/digits.csv").read_text().count("\n") == 1797


def test_download_imports_no_torch() -> None:
    code = "import sys, tasks.download; sys.exit(str({'torch', 'prefect', 'dvc'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert answer.stderr.strip() == "set()"
