"""The history: its next entry is made once, whoever else is at it, and the pointer follows."""

import json
import multiprocessing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from flows.promotion import history
from flows.promotion.history import Conflict, Entry
from tasks.harness import lock
from tasks.harness.errors import StageError
from tasks.harness.records import write_json
from tests.flows.promotion.conftest import ENTRY

MODELS = [f"{number:064x}" for number in range(50)]


def entry(number: int, model: str | None = None, replaces: str | None = None) -> Entry:
    return replace(
        ENTRY,
        number=number,
        time=f"2026-11-{number:02}T03:41:00+00:00",
        replaces=replaces or (MODELS[number - 1] if number > 1 else None),
        model=model or MODELS[number],
        files={"model.onnx": MODELS[number]},
    )


def append(root: Path, following: Entry) -> None:
    """Make an entry whose model is there."""
    path = root / history.champion(following).path
    path.parent.mkdir(exist_ok=True)
    path.touch()
    history.append(root, following)


def test_entries_follow_each_other_and_the_pointer_is_the_last(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        append(tmp_path, entry(number))
    assert history.read(tmp_path) == [entry(1), entry(2), entry(3)]
    assert sorted(path.name for path in tmp_path.glob("history/*")) == ["000001.json", "000002.json", "000003.json"]
    pointer = json.loads((tmp_path / "champion.json").read_text())
    path = f"{MODELS[3]}/model.onnx"
    assert pointer == {"schema_version": 1, "path": path, "sha256": MODELS[3], "size": 1, "number": 3}


def test_a_line_says_what_happened() -> None:
    assert entry(2).line == "#2    2026-11-02 03:41  0000000 -> 0000000  promoted  +0.84 pt (p = 0.0007)  by ana@host"
    forced = replace(entry(1), forced=True, gain=None, p=None, reason="no time")
    assert forced.line == "#1    2026-11-01 03:41  ------- -> 0000000  promoted by force  by ana@host: no time"


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    append(tmp_path, entry(1))
    with pytest.raises(Conflict, match="entry 1 has been made by somebody else"):
        append(tmp_path, entry(1, MODELS[7]))
    assert history.read(tmp_path) == [entry(1)]
    assert not list(tmp_path.glob("history/.partial-*"))


def _promote_all(root: Path, own: int, won: "multiprocessing.Queue[int]") -> None:
    """Put one model after the other into service, ten in all, against whoever else does."""
    number = 0
    while number < 10:
        before = history.read(root)
        number = len(before) + 1
        following = entry(number, MODELS[20 + own], before[-1].model if before else None)
        try:
            append(root, following)
        except Conflict:
            continue
        won.put(number)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on, where there are threads
def test_of_several_at_once_one_wins_each_time_and_the_pointer_is_valid_throughout(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    won: multiprocessing.Queue[int] = context.Queue()
    promoters = [context.Process(target=_promote_all, args=(tmp_path, own, won)) for own in range(4)]
    for promoter in promoters:
        promoter.start()
    seen = []
    while any(promoter.is_alive() for promoter in promoters):
        if (tmp_path / "champion.json").exists():
            seen.append(json.loads((tmp_path / "champion.json").read_text())["number"])
    assert [promoter.exitcode for promoter in promoters] == [0] * 4
    entries = history.read(tmp_path)
    assert sorted(won.get() for _ in entries) == [one.number for one in entries] == list(range(1, len(entries) + 1))
    assert seen == sorted(seen)
    assert json.loads((tmp_path / "champion.json").read_text())["number"] == len(entries) >= 10


@pytest.mark.parametrize("pointer", [None, "", "{}", '{"schema_version": 1, "number": 1}', "old"])
def test_a_pointer_that_a_kill_has_left_behind_is_put_right(tmp_path: Path, pointer: str | None) -> None:
    append(tmp_path, entry(1))
    old = (tmp_path / "champion.json").read_text()
    append(tmp_path, entry(2))
    expected = (tmp_path / "champion.json").read_text()
    (tmp_path / "champion.json").unlink()
    if pointer is not None:
        (tmp_path / "champion.json").write_text(old if pointer == "old" else pointer)
    assert len(history.read(tmp_path)) == 2
    assert (tmp_path / "champion.json").read_text() == expected


def test_a_promotion_that_is_killed_before_its_entry_leaves_the_next_one_its_number(tmp_path: Path) -> None:
    append(tmp_path, entry(1))
    (tmp_path / "history/.partial-2-99").write_text("{")
    assert history.read(tmp_path) == [entry(1)]
    append(tmp_path, entry(2))
    assert len(history.read(tmp_path)) == 2


def test_whoever_writes_the_pointer_waits_for_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "WAIT_S", 0.2)
    with lock.hold(tmp_path / ".lock", 0), pytest.raises(StageError, match="another process writes the pointer"):
        append(tmp_path, entry(1))
    assert history.read(tmp_path) == [entry(1)]  # it is in service all the same, and now the pointer says so
    assert (tmp_path / "champion.json").exists()


def test_a_hole_is_named(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        append(tmp_path, entry(number))
    (tmp_path / "history/000002.json").unlink()
    with pytest.raises(StageError, match=r"000003\.json should be entry 2, and is entry 3; no command makes it"):
        history.read(tmp_path)


def test_the_last_entry_is_missed_by_the_pointer(tmp_path: Path) -> None:
    for number in (1, 2):
        append(tmp_path, entry(number))
    (tmp_path / "history/000002.json").unlink()
    with pytest.raises(StageError, match=r"champion\.json names entry 2, and .* ends with 1; no command makes it anew"):
        history.read(tmp_path)
    assert json.loads((tmp_path / "champion.json").read_text())["number"] == 2


def test_an_entry_that_does_not_follow_is_named(tmp_path: Path) -> None:
    append(tmp_path, entry(1))
    write_json(tmp_path / "history/000002.json", asdict(entry(2, replaces=MODELS[9])))
    with pytest.raises(StageError, match=f"replaces {MODELS[9]}, but {MODELS[1]} was in service"):
        history.read(tmp_path)


def test_an_entry_that_somebody_has_edited_is_refused(tmp_path: Path) -> None:
    append(tmp_path, entry(1))
    path = tmp_path / "history/000001.json"
    path.write_text(path.read_text().replace(MODELS[1], "../../etc"))
    with pytest.raises(StageError, match="SHA-256 of 64 hexadecimal digits"):
        history.read(tmp_path)


def test_the_pointer_waits_for_a_model_that_is_not_here(tmp_path: Path) -> None:
    append(tmp_path, entry(1))
    history.append(tmp_path, entry(2))
    assert len(history.read(tmp_path)) == 2
    assert json.loads((tmp_path / "champion.json").read_text())["number"] == 1
    (tmp_path / MODELS[2]).mkdir()
    (tmp_path / MODELS[2] / "model.onnx").touch()
    history.read(tmp_path)
    assert json.loads((tmp_path / "champion.json").read_text())["number"] == 2


@pytest.mark.parametrize("name", ["../model.onnx", "a/b", "/etc/passwd", "..", ""])
def test_an_entry_names_no_file_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "history").mkdir()
    write_json(tmp_path / "history/000001.json", asdict(replace(entry(1), files={name: MODELS[1]})))
    with pytest.raises(StageError, match="should be the name of a file in the model's folder"):
        history.read(tmp_path)
