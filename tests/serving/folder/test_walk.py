"""What of a folder is an image, by its name."""

import os
from pathlib import Path

import pytest

from serving.folder.walk import Found, walk
from tests.support.exhausted import no_more_files


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def paths() -> list[str]:
    return sorted(found.path for found in walk(Path("folder")))


def test_images_are_found_by_their_suffix_at_any_depth_and_hidden_ones_are_not() -> None:
    names = ["1.PNG", "a b/2.jpeg", "a b/c.png/3.webp", "line\nbreak.bmp"]
    put(*(f"folder/{name}" for name in (*names, ".hidden.png", ".hidden/4.png", "5.gif", "png")))
    assert paths() == sorted(names)


def test_circles_of_links_end_and_a_folder_is_entered_once_where_it_comes_first_by_name() -> None:
    put("folder/one/1.png", "elsewhere/2.png")
    Path("folder/one/loop").symlink_to("..")
    Path("folder/again").symlink_to("one")
    Path("folder/link").symlink_to(Path("elsewhere").absolute())
    Path("folder/itself").symlink_to("itself")
    assert paths() == ["again/1.png", "link/2.png"]


def test_a_link_that_leads_nowhere_is_named_like_an_image() -> None:
    put("folder/1.png")
    Path("folder/2.png").symlink_to("nowhere")
    Path("folder/3.png").symlink_to("3.png")
    assert sorted((found for found in walk(Path("folder")) if found.path != "1.png"), key=lambda one: one.path) == [
        Found("2.png", ""),
        Found("3.png", ""),
    ]


def test_a_name_that_is_no_utf_8_is_kept() -> None:
    put("folder/1.png")
    os.close(os.open(b"folder/\xff.png", os.O_CREAT))
    assert paths() == ["1.png", os.fsdecode(b"\xff.png")]


def test_another_file_of_the_same_name_has_another_stamp() -> None:
    put("folder/1.png")
    (before,) = walk(Path("folder"))
    assert before.error is None
    assert list(walk(Path("folder"))) == [before]
    status = Path("folder/1.png").stat()
    Path("folder/1.png").write_bytes(b"")
    os.utime("folder/1.png", ns=(status.st_atime_ns, status.st_mtime_ns))  # as a copy that keeps times
    assert list(walk(Path("folder"))) != [before]


def test_a_folder_that_cannot_be_looked_into_is_named_with_the_reason(tmp_path: Path) -> None:
    put("folder/1.png")
    deep = Path("folder")
    descriptor = os.open("folder", os.O_RDONLY)
    for _ in range(20):  # whoever runs the tests may be root, who can read all but a path too long
        os.mkdir("d" * 250, dir_fd=descriptor)
        deeper = os.open("d" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor, deep = deeper, deep / ("d" * 250)
    os.close(descriptor)
    (image, shut) = sorted(walk(Path("folder")), key=lambda found: len(found.path))
    assert (image.path, image.error) == ("1.png", None)
    assert shut.path.endswith("/" + "d" * 250)
    assert shut.error == "File name too long"


def test_that_no_more_files_can_be_opened_is_no_fault_of_a_folders() -> None:
    put("folder/1.png")
    with no_more_files(), pytest.raises(OSError, match="Too many open files"):
        paths()
