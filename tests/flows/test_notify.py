"""make notify: who is told how a night ended, by a real server of Prefect's, at a webhook on loopback."""

import json
import os
import queue
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any, NoReturn
from uuid import UUID

import pytest
import requests
from prefect import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import Flow
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_API_PORT, temporary_settings
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running

from flows import notify
from flows.promotion import history
from flows.runtime import deployments, labels, notices, project_lock, server
from flows.runtime.project_lock import ProjectLocked
from flows.runtime.server import Server
from tasks.harness.errors import StageError
from tests.support.loopback import answering
from tests.support.nights import free_port
from tests.support.params import write_params

SOON_S = 30


class Webhook(ThreadingHTTPServer):
    """Keeps the messages that are posted to it; it has no page whose path begins with /gone."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got = queue.Queue[dict[str, Any]]()

    def url(self, path: str = "hook-T0KEN") -> str:
        return f"json://127.0.0.1:{self.server_port}/{path}"

    @property
    def shown(self) -> str:
        return f"JSON (json://127.0.0.1:{self.server_port}/...)"


class Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/gone"):
            self.send_error(404)
            return
        self.server.got.put(message)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with answering(Webhook()) as webhook:
        yield webhook


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project, the working directory, with a Prefect of its own."""
    folder = tmp_path_factory.mktemp("notify")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("URL", raising=False)
        patch.setenv("PREFECT_HOME", str(folder / "home"))  # for the server, which is a process of its own
        write_params()
        own = {PREFECT_API_URL: None, PREFECT_HOME: folder / "home", PREFECT_SERVER_API_PORT: free_port()}
        with temporary_settings(own):
            yield folder


@pytest.fixture(scope="module")
def told_before(project: Path, webhook: Webhook) -> list[dict[str, str]]:
    """The environment of a server that was started to set up who is told, and has ended."""
    started: list[dict[str, str]] = []
    with pytest.MonkeyPatch.context() as patch:
        start = server._start

        def noted(bound: socket.socket, settings: Mapping[str, str]) -> "subprocess.Popen[bytes]":
            started.append(dict(os.environ))
            return start(bound, settings)

        patch.setattr(server, "_start", noted)
        patch.setenv("URL", webhook.url())
        notify.main([])
    assert server._find(server.SCHEDULE) is None
    assert webhook.got.get(timeout=SOON_S)["title"] == "A test of make notify"
    return started


@pytest.fixture(scope="module")
def used(project: Path, told_before: list[dict[str, str]]) -> Iterator[Server]:
    """The server of a schedule that is started afterwards, which each test shares: one takes seconds to start."""
    with server.for_schedule() as used, temporary_settings({PREFECT_API_URL: used.url}):
        yield used


@pytest.fixture
def told(used: Server, webhook: Webhook) -> None:
    """The webhook is told, whatever the test before has done."""
    notices.set_up(webhook.url(), webhook.shown)


@pytest.fixture(autouse=True)
def nothing_is_left(webhook: Webhook) -> Iterator[None]:
    yield
    assert webhook.got.empty()


def ends(state: State[Any], name: str = "a night", flow: str = "retraining", tags: list[str] | None = None) -> str:
    """Have a run of this checkout's end so, and return its id."""
    tags = [labels.checkout()] if tags is None else tags
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(Flow(fn=lambda: None, name=flow), name=name, tags=tags)
        client.set_flow_run_state(run.id, state, force=True)
    return str(run.id)


@pytest.fixture(scope="module")
def deployment(used: Server) -> None:
    """A deployment of this checkout's that comes due every night."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=labels.checkout(), type="process"))
        nightly = [DeploymentScheduleCreate(schedule=CronSchedule(cron="0 3 * * *"))]
        flow, tags = client.create_flow_from_name("retraining"), [labels.checkout()]
        made = client.create_deployment(
            flow, "nightly", work_pool_name=labels.checkout(), tags=tags, schedules=nightly, parameter_openapi_schema={}
        )
    assert requests.post(f"{used.url}/deployments/{made}/schedule", json={"min_runs": 9}, timeout=SOON_S).ok


def due(*states: State[Any]) -> UUID:
    """Have a night that the server has made be in these states, and return its id."""
    with get_client(sync_client=True) as client:
        run = next(run for run in client.read_flow_runs() if run.auto_scheduled and run.state_name == "Scheduled")
        for state in states:
            client.set_flow_run_state(run.id, state, force=True)
    return run.id


def titles(webhook: Webhook) -> list[str]:
    """Return the titles of all messages up to that of a run that ends last."""
    ends(Crashed(), "the last one")
    got = [webhook.got.get(timeout=SOON_S)["title"]]
    while "the last one" not in got[-1]:
        got.append(webhook.got.get(timeout=SOON_S)["title"])
    return got[:-1]


def refused(*words: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        notify.main(words)
    return str(exit_.value.code)


def test_a_night_is_told_in_its_own_words_and_with_a_link_by_a_server_that_is_started_later(
    used: Server, webhook: Webhook
) -> None:
    message = "Refused: quality failed, {{ flow_run.id }} <b>; see models/registry/verdicts/7.html"
    run = ends(Completed(name="Refused", message=message))
    told = webhook.got.get(timeout=SOON_S)
    where = used.url.removesuffix("/api")
    assert (told["title"], told["message"]) == ("Refused: a night", f"{message}\n\n{where}/runs/flow-run/{run}")


def test_who_is_told_of_which_states(told: None, used: Server, webhook: Webhook) -> None:
    for state in ("Promoted", "Nothing new", "Refused", "Skipped", "Superseded", "Waiting"):
        ends(Completed(name=state))
    for name in ("Blocked", "Failed", "TimedOut"):
        ends(Failed(name=name))
    ends(Crashed())
    ends(Failed(), "of another checkout", tags=["elsewhere-1a2b3c"])
    ends(Failed(), "of a person", flow="training")
    got = titles(webhook)
    assert sorted(got) == [f"{state}: a night" for state in sorted(notices.TOLD)]


def test_a_night_that_comes_due_as_soon_as_its_schedule_was_made_is_told_at_once(
    told: None, deployment: None, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = due(Pending(), Running())
    monkeypatch.setattr(deployments, "flow_run", SimpleNamespace(id=run))
    deployments.begin()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Failed(message="at once"), force=True)
    assert webhook.got.get(timeout=SOON_S)["message"].startswith("at once\n")


def test_what_a_schedule_that_was_killed_has_left_is_told_at_once_but_not_what_a_person_has_cancelled(
    told: None, deployment: None, webhook: Webhook
) -> None:
    crashed = due(Pending())
    cancelled = due(Cancelling())
    with get_client(sync_client=True) as client:
        deployments.settle(client)
        states = [client.read_flow_run(run).state_name for run in (crashed, cancelled)]
    assert states == ["Crashed", "Cancelled"]
    assert webhook.got.get(timeout=SOON_S)["message"].startswith("The worker that ran it had ended before it.\n")
    assert titles(webhook) == []


def test_of_nights_that_were_missed_the_newest_is_run(
    used: Server, deployment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_flow_runs() if run.auto_scheduled and run.state_name == "Scheduled"]
        first, second, third, fourth = sorted(runs, key=lambda run: str(run.expected_start_time))[:4]
        now = datetime.fromisoformat(str(third.expected_start_time)) + timedelta(minutes=1)
        monkeypatch.setattr(history, "now", lambda: now)

        def begins(run: FlowRun) -> str | None:
            client.set_flow_run_state(run.id, Running(), force=True)
            monkeypatch.setattr(deployments, "flow_run", SimpleNamespace(id=run.id))
            return deployments.overtaken()

        assert begins(first) == f"Superseded by the run that was due at {third.expected_start_time:%F %R} UTC"
        assert begins(third) is None
        states = [client.read_flow_run(run.id).state_name for run in (first, second, third, fourth)]
        assert states == ["Running", "Superseded", "Running", "Scheduled"]
        for run in (first, third):
            client.set_flow_run_state(run.id, Completed(), force=True)


def test_runs_that_are_waited_for_are_cancelled_if_a_person_has_ended_their_schedule(
    used: Server, deployment: None
) -> None:
    run = due(Pending(), Running())
    with get_client(sync_client=True) as client:
        worker = Timer(1, client.set_flow_run_state, (run, Cancelled()), {"force": True})
        worker.start()
        began = time.monotonic()
        assert deployments.cancel(used.url, SOON_S)
        worker.join()
        assert time.monotonic() - began < SOON_S
        names = [state.name for state in client.read_flow_run_states(run)]
        assert names == ["Scheduled", "Pending", "Running", "Cancelling", "Cancelled"]
        rest = due(Pending())
        deployments.settle_at(used.url, by_hand=True)
        assert client.read_flow_run(rest).state_name == "Cancelled"


def test_runs_on_a_server_that_does_not_answer_are_not_waited_for() -> None:
    began = time.monotonic()
    assert not deployments.cancel("http://127.0.0.1:9/api", SOON_S)
    deployments.settle_at("http://127.0.0.1:9/api", by_hand=True)
    assert time.monotonic() - began < SOON_S


def test_the_address_is_a_secret(
    told: None, used: Server, told_before: list[dict[str, str]], capsys: pytest.CaptureFixture[str], webhook: Webhook
) -> None:
    assert ["URL" in environment for environment in told_before] == [False]
    notify.main([])
    printed = capsys.readouterr()
    assert printed.out == f"asking Prefect's server\ntold how nights end: {webhook.shown}\n"
    for path in ("block_documents/filter", "automations/filter", "events/filter"):
        answer = requests.post(f"{used.url}/{path}", json={}, timeout=10)
        assert answer.ok
        assert labels.checkout() in answer.text
        assert "T0KEN" not in answer.text
    assert "T0KEN" not in printed.err + server.LOG.read_text()


def test_an_address_that_takes_no_message_changes_nothing(
    told: None, used: Server, webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.fullmatch(
        re.escape(f"notify: {webhook.shown} did not take the message, so nothing was changed: ") + ".*error=404.",
        refused("--url", webhook.url("gone-T0KEN")),
    )
    assert capsys.readouterr() == (f"sending a message to {webhook.shown}\n", "")
    ends(Completed(name="Promoted"))
    assert titles(webhook) == ["Promoted: a night"]


def test_a_second_address_replaces_the_first_and_nobody_is_told_after_off(
    told: None, used: Server, webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(Webhook()) as other:
        notify.main(["--url", other.url()])
        ends(Completed(name="Promoted"))
        assert [other.got.get(timeout=SOON_S)["title"] for _ in range(2)] == [
            "A test of make notify",
            "Promoted: a night",
        ]
        notify.main(["--url", "off"])
        assert capsys.readouterr().out.endswith(f"\nnobody is told any more; it was {other.shown}\n")
        notify.main(["--url", "off"])
        assert capsys.readouterr().out.endswith("\nnobody was told\n")
        notify.main([])
        assert capsys.readouterr().out.endswith("\nnobody is told how nights end: make notify URL=...\n")
        for path in ("block_documents/filter", "automations/filter"):
            assert labels.checkout() not in requests.post(f"{used.url}/{path}", json={}, timeout=10).text
        ends(Completed(name="Promoted"))
        notify.main(["--url", f"{webhook.url()} {other.url()}"])
        assert webhook.got.get(timeout=SOON_S)["title"] == "A test of make notify"
        assert other.got.get(timeout=SOON_S)["title"] == "A test of make notify"
        ends(Completed(name="Refused"))
        assert titles(webhook) == [other.got.get(timeout=SOON_S)["title"]] == ["Refused: a night"]


def test_what_was_done_in_the_ui_is_said_and_mended(
    told: None, used: Server, webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    with get_client(sync_client=True) as client:
        client.pause_automation(notices._found(client)[0].id)
    notify.main([])
    assert capsys.readouterr().out.endswith(f"\ntold how nights end: {webhook.shown}, but that is paused in the UI\n")
    with get_client(sync_client=True) as client:
        client.delete_block_document(notices._block(client).id)  # type: ignore[union-attr]
    notify.main([])
    assert capsys.readouterr().out.endswith(", but no longer: the address was removed in the UI\n")
    notify.main(["--url", webhook.url()])
    webhook.got.get(timeout=SOON_S)
    capsys.readouterr()
    notify.main([])
    assert capsys.readouterr().out.endswith(f"\ntold how nights end: {webhook.shown}\n")
    ends(Failed())
    assert titles(webhook) == ["Failed: a night"]


def test_the_server_of_a_schedule_that_is_at_work_is_left_at_work(
    told: None, used: Server, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hold(path: Path) -> NoReturn:
        assert path == project_lock.SCHEDULE
        raise ProjectLocked("the run with pid 7")

    monkeypatch.setattr(project_lock, "hold", hold)
    with temporary_settings({PREFECT_API_URL: None}):
        notify.main([])
        assert used.answers()
    with socket.socket() as closed:
        closed.bind((server.HOST, 0))
        with temporary_settings({PREFECT_API_URL: None, PREFECT_SERVER_API_PORT: closed.getsockname()[1]}):
            assert "a schedule is at work in this project, and its server does not answer at " in refused()


def test_a_message_that_cannot_be_delivered_at_night_shows_no_secret(
    told: None, used: Server, webhook: Webhook
) -> None:
    gone = Webhook()
    notices.set_up(gone.url("gone-T0KEN"), "somebody")
    gone.server_close()
    ends(Failed(message="first"))
    notices.set_up(webhook.url(), webhook.shown)
    assert titles(webhook) == []
    assert "T0KEN" not in server.LOG.read_text()
    assert "T0KEN" not in requests.post(f"{used.url}/events/filter", json={}, timeout=10).text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("json://ana:pa55@127.0.0.1:99/S3CRET?key=S3CRET", "JSON (json://ana:****@127.0.0.1:99/...)"),
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "Slack (slack://T...2/...)"),
        ("tgram://123456789:S3CRET_S3CRET/12315544/", "Telegram (tgram://1...T/...)"),
        (
            "mailto://ana:S3CRET@gmail.com, ntfys://ana:S3CRET@ntfy.example.com/topic",
            "E-Mail (mailtos://ana:****@gmail.com/...), ntfy (ntfys://ana:****@ntfy.example.com/...)",
        ),
    ],
)
def test_what_is_shown_of_an_address(url: str, shown: str) -> None:
    addresses, who = notify.addressed(url)
    assert who == shown
    assert notify.addressed(addresses)[1] == shown
    assert addresses.count("format=text") == who.count("(")


@pytest.mark.parametrize("url", ["S3CRET", "https://hooks.example.com/S3CRET", "json://", "mailto://", "ftp://S3CRET"])
def test_what_is_no_address_is_not_repeated(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        StageError, match=r"^URL=([a-z]+://)?\.\.\. is no address that Apprise knows: json://"
    ) as refusal:
        notify.addressed(url)
    assert "S3CRET" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_a_server_that_is_configured_and_does_not_answer_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert refused().startswith("notify: PREFECT_API_URL=http://127.0.0.1:9/api does not answer: ")


def test_outside_of_a_project_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "params.yaml" in refused("--url", "json://127.0.0.1:9/")
    assert list(tmp_path.iterdir()) == []
