"""The model in service is what champion.json names, to the last bit, or nothing is opened."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from serving import champion
from serving.champion import Champion
from serving.session import SessionError

MODEL = b"a model"
DIGEST = sha256(MODEL).hexdigest()
POINTER = {
    "schema_version": 1,
    "path": f"{DIGEST}/model.onnx",
    "sha256": DIGEST,
    "size": len(MODEL),
    "number": 3,
}


def point(root: Path, text: str) -> None:
    (root / "champion.json").write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / DIGEST).mkdir()
    (tmp_path / DIGEST / "model.onnx").write_bytes(MODEL)
    point(tmp_path, json.dumps(POINTER))
    return tmp_path


def test_the_champion_is_read(root: Path) -> None:
    found = champion.read(root)
    assert found == Champion(f"{DIGEST}/model.onnx", DIGEST, len(MODEL), 3)
    assert champion.content(root, found) == MODEL


def test_there_may_be_none_yet(tmp_path: Path) -> None:
    assert champion.read(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "[]",
        json.dumps(POINTER | {"schema_version": 2}),
        json.dumps(POINTER | {"path": "/etc/passwd"}),
        json.dumps(POINTER | {"path": f"../{DIGEST}/model.onnx"}),
        json.dumps(POINTER | {"sha256": "../../etc", "path": "../../etc/model.onnx"}),
        json.dumps(POINTER | {"size": "7"}),
        json.dumps(POINTER | {"size": True}),
        json.dumps({key: value for key, value in POINTER.items() if key != "number"}),
    ],
    ids=lambda text: text[:40],
)
def test_another_pointer_than_a_promotion_writes_is_refused(root: Path, text: str) -> None:
    point(root, text)
    with pytest.raises(SessionError, match=r"champion\.json is not what a promotion wrote; make history"):
        champion.read(root)


@pytest.mark.parametrize("other", [b"b model", b"a mode", b"a model, and more", b""])
def test_other_bytes_than_were_promoted_are_not_opened(root: Path, other: bytes) -> None:
    (root / DIGEST / "model.onnx").write_bytes(other)
    found = champion.read(root)
    assert found
    with pytest.raises(SessionError, match="other bytes than those that were promoted"):
        champion.content(root, found)


def test_a_champion_that_is_elsewhere_says_how_to_bring_it(root: Path) -> None:
    (root / DIGEST / "model.onnx").unlink()
    found = champion.read(root)
    assert found
    with pytest.raises(SessionError, match=r"No such file or directory; make pull-champion brings it"):
        champion.content(root, found)


def test_a_model_is_named_by_its_path_or_as_the_champion(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY", str(root))
    assert champion.chosen("champion") == (root / DIGEST / "model.onnx", MODEL)
    (root / "champion").write_bytes(b"another")
    monkeypatch.chdir(root)
    assert champion.chosen("./champion") == (Path("champion"), b"another")
    with pytest.raises(SessionError, match="nowhere does not exist"):
        champion.chosen("nowhere")


def test_a_champion_that_is_asked_for_has_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY", str(tmp_path))
    with pytest.raises(
        SessionError, match=r"there is no champion in .* yet; make promote makes one, make pull-champion"
    ):
        champion.chosen("champion")
