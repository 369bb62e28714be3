"""python -m serving: what it serves, and in one sentence why it does not."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import served, server
from tests.support.registry import keep, point
from tests.support.wire import metrics

WORDS = (sys.executable, "-m", "serving")
LIMIT_S = 60


def refusal(*words: str, **values: str) -> str:
    """Return what it says instead of serving."""
    answer = subprocess.run(
        (*WORDS, *words), env=server.of(values), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert answer.returncode != 0
    assert "Traceback" not in answer.stderr
    return answer.stderr.strip().splitlines()[-1]


@contextmanager
def running(**values: str) -> Iterator[tuple[list[str], str]]:
    """Serve, and give what was printed and the address."""
    with server.running(Path(), limits=None, stopped=False, **values) as found:
        yield found.log.read_text().splitlines(), found.url


def get(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
        contents: dict[str, object] = json.load(answer)
    return contents


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_champion_is_served_from_a_folder_that_holds_the_registry_alone(folder: Path) -> None:
    champion = point(folder / "models/registry", keep(folder / "models/registry", served.model()), 42)
    with running() as (lines, url):
        assert lines[0] == f"serve: classifier version 42 ({champion.sha256[:7]}), the champion of models/registry"
        assert url.startswith("http://127.0.0.1:"), "this machine alone"
        assert get(f"{url}/v2/models/classifier")["versions"] == ["42"]
        assert get(f"{url}/v2/health/ready") == {"ready": True, "live": True}


def test_without_a_champion_it_serves_the_last_run_and_says_so_until_there_is_one(folder: Path) -> None:
    Path("models").mkdir()
    served.save(served.model(), "models/model.onnx")
    assert refusal(MODEL="champion").startswith(
        "serve: there is no champion in models/registry yet; make promote makes"
    )
    with running(REGISTRY="elsewhere") as (lines, url):
        assert lines[0] == "serve: there is no champion in elsewhere yet; make promote makes one"
        assert lines[1].endswith(", models/model.onnx, which no promotion has judged")
        assert get(f"{url}/v2/models/classifier")["versions"] == ["1"]


def test_a_model_that_is_named_is_served_instead_of_the_champion(folder: Path) -> None:
    point(folder / "models/registry", keep(folder / "models/registry", served.model()), 42)
    served.save(served.model(), "a model.onnx")
    with running(MODEL="a model.onnx") as (lines, url):
        assert lines[0].endswith(", a model.onnx, which no promotion has judged")
        assert get(f"{url}/v2/models/classifier")["versions"] == ["1"]


def test_what_it_cannot_serve_is_said_in_a_sentence(folder: Path) -> None:
    assert refusal().startswith(
        "serve: there is neither a champion in models/registry nor models/model.onnx: copy one of them here"
    )
    assert refusal(MODEL="\x1b.onnx").startswith(r"serve: \x1b.onnx does not exist")
    Path("text.onnx").write_text("no model")
    assert refusal("--model", "text.onnx").startswith("serve: CPUExecutionProvider cannot run the model text.onnx: ")
    served.save(served.model())
    assert refusal("--model", "model.onnx", "--provider", "Abacus").startswith(
        "serve: Abacus is not in this ONNX Runtime"
    )
    assert refusal("--model", "model.onnx", "--port", "70000").endswith(
        "'70000' is no port; a number from 0 to 65535 is expected"
    )
    assert refusal("--model", "model.onnx", PORT="http").endswith(
        "'http' is no port; a number from 0 to 65535 is expected"
    )


def test_a_port_that_is_taken_is_said(folder: Path) -> None:
    served.save(served.model())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal("--model", "model.onnx", PORT=str(port))
    assert said == f"serve: cannot listen on 127.0.0.1, port {port}: Address already in use; PORT= chooses another"


def test_a_champion_that_is_not_what_was_promoted_is_not_served(folder: Path) -> None:
    root = folder / "models/registry"
    champion = point(root, keep(root, served.model()), 42)
    (root / champion.path).write_bytes(b"something else")
    said = refusal()
    assert said.startswith(
        f"serve: entry 42 of the history ({champion.sha256[:7]}): its file is missing, or not the one"
    )
    assert said.endswith(
        "has other bytes than those that were promoted; bring it back from a copy of the registry, "
        "or remove its folder and make pull-champion); make rollback puts the one before it back"
    )
    (root / "champion.json").write_text("{}")
    assert refusal().startswith("serve: models/registry/champion.json is not what a promotion wrote; make history")


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_readiness_and_metrics_say_that_a_new_champion_was_refused_until_another_answers(folder: Path) -> None:
    root = folder / "models/registry"
    champion = point(root, keep(root, served.model()), 1)
    other = keep(root, served.model(weights=served.REVERSED), labels=[0, 1])
    with running() as (_, url):
        point(root, other, 2)
        wait_for(lambda: "refused" in get(f"{url}/v2/health/ready"))
        why = "1 of 2 golden requests get another answer than when it was promoted"
        refused = f"entry 2 of the history ({other.sha256[:7]}): {why}"
        assert get(f"{url}/v2/health/ready") == {"ready": True, "live": True, "refused": refused}
        assert get(f"{url}/v2/models/classifier")["versions"] == ["1"], "the one before it goes on"
        told = metrics(url)
        assert (told["classifier_swap_failed"], told['classifier_swaps_total{result="refused"}']) == (1, 1)

        point(root, champion, 3)
        wait_for(lambda: get(f"{url}/v2/models/classifier")["versions"] == ["3"])
        assert get(f"{url}/v2/health/ready") == {"ready": True, "live": True}
        told = metrics(url)
        assert (told["classifier_swap_failed"], told['classifier_swaps_total{result="switched"}']) == (0, 1)


def test_an_empty_host_does_not_let_all_machines_in(folder: Path) -> None:
    """As `--host "$HOST"` is where nobody has set it."""
    served.save(served.model())
    said = refusal("--model", "model.onnx", "--host", "", PORT="http")
    assert said.endswith("argument --host: '' is no address: 127.0.0.1 is for this machine alone, 0.0.0.0 for any")


@pytest.mark.parametrize("token", ["", "secret ", "sec\rret"])
def test_a_token_that_would_let_all_in_or_nobody_is_refused(folder: Path, token: str) -> None:
    served.save(served.model())
    assert refusal("--model", "model.onnx", TOKEN=token).startswith("serve: TOKEN is empty, or begins or ends with")
