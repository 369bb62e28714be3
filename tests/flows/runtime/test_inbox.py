"""What DVC would stumble over among one's own images is found before it is asked."""

import os
from pathlib import Path

import pytest

from flows.runtime import inbox
from tasks.harness.errors import StageError
from tests.support.inbox import INBOX, put
from tests.support.params import write_params


def links(**download: object) -> list[str]:
    return inbox.links_to_folders(write_params(download={"dataset": "folder"} | download).download)


def test_links_to_folders_are_listed_however_deep(workspace: Path) -> None:
    put("cat/1.png", ".git/2.png")
    Path("elsewhere").mkdir()
    assert links() == []
    for link in ("dog", "cat/more", ".git/link"):
        (INBOX / link).symlink_to(Path("elsewhere").absolute())
    (INBOX / "cat/2.png").symlink_to("1.png")
    assert sorted(links()) == ["data/inbox/cat/more", "data/inbox/dog"]


def test_a_path_that_is_not_there_is_refused(workspace: Path) -> None:
    with pytest.raises(StageError, match=r"download.path = 'data/inbx': there is nothing of that name"):
        links(path="data/inbx")


def test_own_images_are_in_a_folder(workspace: Path) -> None:
    Path("table.py").touch()
    with pytest.raises(StageError, match=r"'table.py' is no folder, and dataset folder is one of your own images"):
        links(path="table.py")
    assert links(dataset="digits", path="table.py") == []


def test_what_dvc_cannot_hash_is_refused_by_name(workspace: Path) -> None:
    put("cat/1.png")
    os.mkfifo(INBOX / "cat/fifo.png")
    for number in range(7):
        (INBOX / f"cat/{number}.gone").symlink_to("nowhere")
    (INBOX / "cat/self").symlink_to("self")
    with pytest.raises(StageError) as refused:
        links()
    message = str(refused.value)
    assert message.startswith(
        "DVC cannot hash what is in data/inbox: 'data/inbox/cat/0.gone' cannot be followed (No such file or directory)"
    )
    assert message.endswith("and 4 more; take it out")
    for path in (INBOX / "cat").glob("*.gone"):
        path.unlink()
    with pytest.raises(StageError, match=r"cat/fifo.png' is neither a file nor a folder; 'data/inbox/cat/self' cannot"):
        links()


def test_folders_that_dvc_would_not_come_to_the_end_of_are_refused(workspace: Path) -> None:
    put("cat/1.png", f"dog/{'d/' * 99}1.png")
    assert links() == []
    put(f"dog/{'d/' * 100}1.png")
    with pytest.raises(
        StageError, match=r"^'data/inbox/dog/d/.*: folders are nested more than 100 deep here; images of"
    ):
        links()
