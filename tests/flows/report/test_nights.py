"""What Prefect's UI shows of a night that has judged."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.actions import ArtifactCreate

from flows.promotion import judgement
from flows.promotion.judgement import Judgement
from flows.report import nights
from flows.runtime import labels
from tasks.gates.quality import Recall
from tasks.gates.verdict import Figure, Verdict

FIGURES: dict[str, Figure] = {
    "accuracy": 0.5,
    "gain": -0.25,
    "better": 1,
    "worse": 3,
    "images": 1200,
    "accuracy of the champion": 0.9,
    "calibration error": 0.02207,
    "calibration error of the champion": 0.01987,
    "log loss": 0.1175,
    "log loss of the champion": None,
}
REFUSED = Judgement(
    time="2026-11-24T03:41:07+00:00",
    model="7c1e0aa0" * 8,
    champion="50da4d10" * 8,
    by="run pets in here, 7",
    dataset="pets_2",
    test_images=2000,
    looks=3,
    limits={},
    test_set="1a2b",
    blessings=[Verdict("quality", "failed", ["a|b is known <worse>"], FIGURES), Verdict("parity", "passed")],
    remarks=["not trained, because it is not committed: README.md"],
    arrivals=None,
    recalls=[Recall("cat", 1100, 0.7, 0.925), Recall("dog <x>", 100, 0.1, 0.625)],
)
BLOCKED = replace(
    REFUSED, model=None, blessings=[], arrivals=Verdict("arrivals", "failed", ["all 60 arrivals are labelled 3"])
)


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The artifacts that would be sent to Prefect, by their key."""
    sent: dict[str, dict[str, Any]] = {}
    for kind in ("table", "markdown", "link"):
        monkeypatch.setattr(nights, f"create_{kind}_artifact", lambda key, **values: sent.update({key: values}))
    monkeypatch.setattr(labels, "checkout", lambda: "Pets_2-1a2b3c")
    return sent


def test_a_verdict_says_what_was_judged_and_why(created: dict[str, dict[str, Any]]) -> None:
    nights.publish(REFUSED, Path("verdict.html"))
    verdict = created["verdict-pets-2-1a2b3c"]
    assert verdict["description"] == "Refused: quality failed"
    lines = [line for line in verdict["markdown"].splitlines() if line]
    assert lines[:7] == [
        "Candidate **7c1e0aa**, against 50da4d1, which was in service. 2026-11-24 03:41 UTC, "
        "on 2,000 test images of pets_2: look 3 at them.",
        "- look at not trained, because it is not committed: README.md",
        "## Quality: failed",
        r"- a\|b is known \<worse>".replace(">", r"\>"),
        "| figure | value |",
        "|---|---:|",
        "| accuracy | 0.5 |",
    ]
    assert lines[-1] == "## Parity: passed"


def test_the_candidate_is_compared_on_the_images_that_the_model_in_service_had(
    created: dict[str, dict[str, Any]],
) -> None:
    nights.publish(REFUSED, Path("verdict.html"))
    candidate, champion = "candidate 7c1e0aa", "in service 50da4d1"
    assert created["comparison-pets-2-1a2b3c"]["table"] == [
        {"figure": "accuracy", candidate: "65.00%", champion: "90.00%"},
        {"figure": "calibration error", candidate: "0.02207", champion: "0.01987"},
        {"figure": "log loss", candidate: "0.1175", champion: "-"},
        {"figure": "images that it alone knows", candidate: "1", champion: "3"},
        {"figure": "test images", candidate: "1,200", champion: "1,200"},
        {"figure": "recall of cat, 1,100 images", candidate: "70.00%", champion: "92.50%"},
        {"figure": "recall of dog <x>, 100 images", candidate: "10.00%", champion: "62.50%"},
    ]


def test_the_page_compares_the_classes_too() -> None:
    page = judgement.render(REFUSED)
    rows = [re.sub(r"<[^>]*>", "|", row) for row in page.partition("Recall by class")[2].split("<tr>")[1:]]
    assert [row.strip().strip("|").split("||")[:4] for row in rows] == [
        ["class", "images", "7c1e0aa", "50da4d1, in service"],
        ["cat", "1,100", "70.00%", "92.50%"],
        ["dog &lt;x&gt;", "100", "10.00%", "62.50%"],
    ]
    assert "Recall by class" not in judgement.render(replace(REFUSED, recalls=[]))


@pytest.mark.parametrize(
    "judged",
    [
        BLOCKED,
        replace(REFUSED, champion=None, blessings=[Verdict("quality", "passed", [], {"accuracy": 0.5})]),
        replace(REFUSED, blessings=[Verdict("quality", "not run", ["other classes"], {"accuracy": 0.5})]),
    ],
    ids=["blocked", "the first", "cannot be compared"],
)
def test_without_two_models_nothing_is_compared(judged: Judgement, created: dict[str, dict[str, Any]]) -> None:
    nights.publish(judged, Path("verdict.html"))
    assert created.keys() == {"verdict-pets-2-1a2b3c", "verdict-page-pets-2-1a2b3c"}


def test_a_blocked_night_says_what_stays_in_service(created: dict[str, dict[str, Any]]) -> None:
    nights.publish(BLOCKED, Path("verdict.html"))
    verdict = created["verdict-pets-2-1a2b3c"]
    assert verdict["description"] == "Blocked: no model was trained, because of what has arrived"
    assert verdict["markdown"].startswith("50da4d1 stays in service. 2026-11-24 03:41 UTC, ")
    assert "\n## Arrivals: failed\n\n- all 60 arrivals are labelled 3\n" in verdict["markdown"]


def test_the_page_is_linked_as_the_file_that_it_is(created: dict[str, dict[str, Any]], workspace: Path) -> None:
    nights.publish(REFUSED, Path("a folder/ver dict.html"))
    page = created["verdict-page-pets-2-1a2b3c"]
    assert page["link"] == f"{workspace.as_uri()}/a%20folder/ver%20dict.html"
    assert page["link_text"] == "a folder/ver dict.html"


def test_prefect_allows_the_keys(created: dict[str, dict[str, Any]]) -> None:
    nights.publish(REFUSED, Path("verdict.html"))
    assert len([ArtifactCreate(key=key, type="markdown", data="") for key in created]) == 3
