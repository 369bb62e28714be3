"""What the form on a server shows. Of the runs there tests/flows/test_notify.py has tests."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.exceptions import ObjectNotFound

from flows import overrides
from flows.runtime import deployments, labels
from flows.runtime.deployments import Form

URL = "http://127.0.0.1:4200/api"


class Client:
    """A server that has one deployment, and fails once for each of `failures`."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.failures: list[Exception] = []

    def read_deployment_by_name(self, name: str) -> Any:
        assert name == f"retraining/on demand in {labels.checkout()}"
        if self.failures:
            raise self.failures.pop()
        return SimpleNamespace(id=7)

    def update_deployment(self, deployment: int, values: Any) -> None:
        assert deployment == 7
        self.epochs.append(values.parameters["epochs"])


def git(*words: str) -> None:
    subprocess.run(("git", "-c", "user.name=test", "-c", "user.email=test@example.com", *words), check=True)


def commit(epochs: int) -> None:
    overrides.write([f"train.epochs={epochs}"])
    git("commit", "-qm", "others", "params.yaml")


@pytest.fixture(autouse=True)
def in_repository(workspace: Path) -> None:
    git("init", "-q")
    git("add", "params.yaml")
    git("commit", "-qm", "start")
    commit(5)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client()

    @contextmanager
    def asking(url: str) -> Iterator[Client]:
        assert url == URL
        yield client

    monkeypatch.setattr(deployments, "_asking", asking)
    return client


def test_the_form_shows_what_is_committed_and_the_server_is_told_when_that_changes(client: Client) -> None:
    form = Form(URL)
    form.follow()
    form.follow()
    overrides.write(["train.epochs=6"])  # which is not committed
    form.follow()
    assert client.epochs == [5]
    commit(7)
    form.follow()
    git("reset", "-q", "--hard", "HEAD~")
    form.follow()
    assert client.epochs == [5, 7, 5]


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("refused"), ObjectNotFound(httpx.HTTPError("a person has deleted it"))]
)
def test_a_server_that_has_no_answer_is_asked_again(failure: Exception, client: Client) -> None:
    client.failures.append(failure)
    form = Form(URL)
    form.follow()
    assert client.epochs == []
    form.follow()
    assert client.epochs == [5]


def test_what_no_run_would_take_is_said_once_and_not_shown(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    form = Form(URL)
    form.follow()
    params = Path("params.yaml").read_text()
    Path("params.yaml").write_text(params.replace("epochs: 5", "epochs: many"))
    git("commit", "-qam", "wrong")
    form.follow()
    form.follow()
    said, why = capsys.readouterr().out.splitlines()
    assert said == "the form still shows what was committed before: params.yaml, as committed, is refused:"
    assert why.startswith("  train.epochs = 'many': ")
    Path("params.yaml").write_text(params)
    git("commit", "-qam", "right")
    form.follow()
    assert client.epochs == [5, 5]


def test_without_a_commit_of_it_nothing_is_shown(client: Client) -> None:
    git("rm", "-q", "params.yaml")
    git("commit", "-qm", "gone")
    Form(URL).follow()
    assert client.epochs == []
