"""make report: what the page says in each state, that it is whole, and that a browser shows it without complaint."""

import base64
import io
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from flows.report import page, summary, templating, verdicts
from flows.runtime import last_good
from tasks import transform
from tasks.__main__ import STAGES
from tasks.dvc import Outcome, StageRun
from tasks.evaluation import tables
from tasks.evaluation.record import Evaluation
from tasks.gates import parity
from tasks.harness.records import write_json
from tasks.training.record import TRAINING, Epochs, Validated
from tests.support.browser import CHROMIUM
from tests.support.params import write_params
from tests.support.reports import QUALITY, write_verdict

VOID = {"meta", "img", "br", "link", "input", "hr"}


@pytest.fixture(autouse=True)
def nothing_stale(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC is not asked: a workspace has no dvc.yaml."""
    monkeypatch.setattr(page, "stale", list)


@pytest.fixture(scope="session")
def drawn() -> dict[str, dict[str, str]]:
    """The charts of the figures that have been drawn: drawing is most of what a page takes."""
    return {}


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch: pytest.MonkeyPatch, drawn: dict[str, dict[str, str]]) -> None:
    draw = page._charts

    def charts_of(metrics: Evaluation | None) -> dict[str, str]:
        key = repr(metrics)
        if key not in drawn:
            drawn[key] = draw(metrics)
        return drawn[key]

    monkeypatch.setattr(page, "_charts", charts_of)


@pytest.fixture
def reports(evaluated: Path) -> Path:
    """Of a complete run: what export would leave, which takes seconds, is made."""
    report = parity.Report([], 1e-4, "auto", "CPUExecutionProvider", 5, 8, 1e-6, 1e-7, 1.0)
    write_json(evaluated / "parity.json", report.contents())
    (evaluated / "metrics.json").write_text("{}")
    return evaluated


def written() -> tuple[str, str]:
    page.main([])
    return page.HTML.read_text(), page.MARKDOWN.read_text()


class Whole(HTMLParser):
    """Fails on a tag that is closed in the wrong place, and keeps what the page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_all_in_one_file(reports: Path) -> None:
    html, _ = written()
    sources = Whole(html).sources
    assert len(sources) > 3 + 6  # charts, and images of each kind
    for source in sources:
        kind, _, content = source.partition(";base64,")
        data = base64.b64decode(content, validate=True)
        if kind == "data:image/png":
            Image.open(io.BytesIO(data)).verify()
        else:
            assert kind == "data:image/svg+xml"
            assert ElementTree.fromstring(data).tag.endswith("svg")
    assert not re.search(r"https?://(?!www\.w3\.org)|url\(|@import", html)


def test_the_best_and_the_last_epoch_stand_side_by_side(reports: Path) -> None:
    matrix = [[0] * 10 for _ in range(10)]
    matrix[6][0], matrix[0][0] = 7, 3
    best, last = Validated(2, 0.75, 0.5, matrix), Validated(3, 0.5, 0.625, [[0] * 10 for _ in range(10)])
    write_json(Path(TRAINING), asdict(Epochs("best", best, last)))
    html, _ = written()
    text = " ".join(re.sub("<[^>]+>", " ", html).split())
    assert "best epoch 2 75.0% 0.5000 Shirt as T-shirt/top 7 last epoch 3 50.0% 0.6250 The model has the" in text
    assert "The model has the weights of the best epoch." in text


def without_remarks(reports: Path) -> None:
    """Give the model, which has learnt next to nothing, figures that nobody has to look at."""
    evaluation = json.loads((reports / "evaluation.json").read_text())
    good = {name: scores | {"recall": 1.0} for name, scores in evaluation["per_class"].items()}
    write_json(reports / "evaluation.json", evaluation | {"per_class": good, "calibration_error": 0.0123})
    data = json.loads((reports / "data.json").read_text())
    write_json(reports / "data.json", data | {"incomplete": []})


def test_both_say_what_the_stages_found(reports: Path) -> None:
    without_remarks(reports)
    metrics = json.loads((reports / "evaluation.json").read_text())
    for text in written():
        assert "Verified: the data passed their checks; the ONNX model predicts what the .pth model predicts" in text
        assert "before it goes live" not in text
        assert f"{metrics['accuracy']:.1%}" in text
        assert f"{metrics['loss']:.4f}" in text
        assert f"{metrics['calibration_error']:.1%}" in text
        assert "T-shirt/top" in text
        assert "There is nothing to compare this with: no earlier run that differs is kept." in text
        assert "learning_rate: 0.01" in text
    html, markdown = written()
    assert 'class="verdict live"' in html
    suspects = (reports / "suspects.csv").read_text().count("\n") - 1
    assert html.count("<figcaption>") == 6 + 8 + suspects  # samples, the best and the worst of the test images
    assert "- largest logit error: " in markdown
    assert "16 images: 6 train, 2 validation, 8 test; 10 classes." in markdown


def test_the_page_is_of_the_last_run_and_says_so_if_that_is_old(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "stale", lambda: ["train", "evaluate"])
    html, markdown = written()
    for text in (html, markdown):
        assert "Out of date: train and what follows it would run again" in text
        assert "Inputs or outputs of train, evaluate have changed since these figures were made" in text
        assert "This is shown once everything is up to date." in text
    assert 'class="verdict live"' not in html
    assert html.count("<figure>") == 6  # the predictions may be of other images


def test_what_is_not_there_yet_is_not_shown(prepared: Path) -> None:
    html, markdown = written()
    assert "Not verified yet: parity has not run" in html
    Whole(html)
    assert "<h2>Training</h2>" not in html
    assert "## Test" not in markdown
    assert html.count("<figure>") == 6  # the training images


def test_a_model_without_a_verdict_may_not_go_live(reports: Path) -> None:
    (reports / "parity.json").unlink()
    html, _ = written()
    assert "Not verified yet: parity has not run" in html
    assert "<h2>Training</h2>" in html
    assert 'class="verdict live"' not in html


def test_a_model_that_failed_parity_may_not_go_live(reports: Path) -> None:
    write_verdict("parity", "failed", reasons=["a logit differs by 3"])
    for text in written():
        assert "Withheld, parity failed: a logit differs by 3" in text
        assert 'class="verdict live"' not in text


def test_the_verdict_on_the_8_bit_model_is_shown_where_one_was_asked_for(reports: Path) -> None:
    without_remarks(reports)
    figures = {"accuracy": 0.9225, "accuracy in float32": 0.9228, "other labels": 0.0048}
    write_verdict("int8", "failed", reasons=["the accuracy falls"], figures=figures)
    assert not any("int8: failed" in text for text in written()), "it is of an earlier run"
    write_params(quantize={"to": ["int8"]})
    for text in written():
        assert "int8: failed" in text
        assert "the accuracy falls" in text
        assert "Verified: the data passed their checks" in text, "it is another model that was withheld"
    html, markdown = written()
    assert "<div><b>failed</b>gate: int8</div>" in html
    assert '<tr><td>accuracy in float32</td><td class="n">0.9228</td></tr>' in html
    assert "- other labels: 0.0048" in markdown
    write_verdict("parity", "failed", reasons=["a logit differs by 3"])
    for text in written():
        assert "int8: not run" in text, "it comes after parity"


def test_a_verdict_without_numbers_is_shown(reports: Path) -> None:
    report = parity.Report(["no <GPU>"], 1e-4, batch_sizes=[{"size": 1, "max_abs_error": None}])
    write_json(reports / "parity.json", report.contents())
    html, markdown = written()
    assert "Withheld, parity failed: no &lt;GPU&gt;" in html
    assert "Withheld, parity failed: no \\<GPU\\>" in markdown
    assert '<td>largest logit error at batch size 1</td><td class="n">-</td>' in html
    assert "- largest logit error at batch size 1: -" in markdown


def test_timings_are_of_the_run_that_made_the_figures(reports: Path) -> None:
    Path("dvc.lock").write_text("1")
    summary.write_run([StageRun(stage, "ran", 3.14) for stage in STAGES], datetime.now(UTC))
    for text in written():
        assert "3.1" in text
        assert "Timings" in text
    Path("dvc.lock").write_text("2")
    for text in written():
        assert "Timings" not in text


@pytest.mark.parametrize("dirty", ["", "-dirty"])
def test_a_revision_is_as_long_as_git_needs_it(reports: Path, monkeypatch: pytest.MonkeyPatch, dirty: str) -> None:
    Path("dvc.lock").write_text("1")
    monkeypatch.setattr(summary, "_git_revision", lambda: f"{'0123456789' * 4}{dirty}")
    summary.write_run([StageRun(stage, "ran", 3.14) for stage in STAGES], datetime.now(UTC))
    for text in written():
        assert f", at revision 0123456789{dirty}." in text


def test_data_that_failed_its_checks_hide_the_figures_of_an_earlier_run(reports: Path) -> None:
    raw = Path("data/raw/FashionMNIST/raw")
    for prefix in ("images-idx3", "labels-idx1"):
        (raw / f"train-{prefix}-ubyte").write_bytes((raw / f"t10k-{prefix}-ubyte").read_bytes())
    with pytest.raises(SystemExit):
        transform.main()
    for text in written():
        assert "Withheld, data failed: 8 of 8 test images are among the training images, too:" in text
        assert "8 of 8 test images are among the training images, too:" in text
        assert "CPUExecutionProvider" not in text
        assert "parity: not run" in text
        assert "<figure>" not in text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("evaluation", r"is refused, .*: accuracy: missing; .*; run dvc repro$"),
        ("data", r"is refused, .*: verdict = None: input should be an object; run dvc repro$"),
        ("run", r"is refused, .*: started: missing; .*; run make run$"),
    ],
)
def test_a_report_that_no_run_wrote_is_refused_in_a_sentence(reports: Path, name: str, reason: str) -> None:
    write_json(reports / f"{name}.json", {})
    with pytest.raises(SystemExit, match=rf"^report: reports/{name}\.json {reason}"):
        page.main([])


def test_a_count_that_the_data_checks_did_not_leave_is_not_taken_for_none(reports: Path) -> None:
    data = json.loads((reports / "data.json").read_text())
    del data["leaked"]
    write_json(reports / "data.json", data)
    with pytest.raises(
        SystemExit, match=r"^report: reports/data\.json is refused, .*: leaked: missing; run dvc repro$"
    ):
        page.main([])


def test_before_the_first_run_it_says_what_to_do(workspace: Path) -> None:
    with pytest.raises(SystemExit, match=r"^report: there is no reports/data.json yet: make run$"):
        page.main([])


@pytest.mark.parametrize(
    ("served", "sentence"),
    [
        (2.0, "The exported model has it"),
        (1.0, "The exported model does not have it; with <code>export.calibrate: true</code> it has."),
        (None, "No model has been exported yet."),
    ],
)
def test_the_page_says_what_the_temperature_does_and_whether_it_is_served(
    reports: Path, served: float | None, sentence: str
) -> None:
    without_remarks(reports)
    metrics = json.loads((reports / "evaluation.json").read_text())
    calibrated = {"loss": 0.4321, "calibration_error": 0.0042, "calibration": metrics["calibration"]}
    fitted = {"value": 2.0, "images": 1234, "remark": None}
    write_json(reports / "evaluation.json", metrics | {"temperature": fitted, "calibrated": calibrated})
    write_verdict("parity", figures={} if served is None else {"temperature": served})
    html, markdown = written()
    assert "a temperature of 2.0, fitted on 1,234 validation images" in html
    assert "calibration error of 0.4% instead of 1.2%" in html
    assert sentence in html
    error, loss = ("0.4%", "0.4321") if served == 2 else ("1.2%", f"{metrics['loss']:.4f}")
    assert f"<b>{error}</b>calibration error" in html
    assert f"| {loss} | {error} |" in markdown


def test_the_page_says_why_there_is_no_temperature(reports: Path) -> None:
    metrics = json.loads((reports / "evaluation.json").read_text())
    fitted = {"value": 1.0, "images": 2, "remark": "the 2 images say <nothing>"}
    write_json(reports / "evaluation.json", metrics | {"temperature": fitted})
    html, _ = written()
    assert "No temperature was fitted: the 2 images say &lt;nothing&gt;." in html


def test_the_page_names_the_recipe_and_what_it_should_reach(reports: Path) -> None:
    Path("recipes").mkdir()
    reaches = "{accuracy: [0.631, 0.645], n: 5, hardware: two <cores>, train_s: 63}"
    Path("recipes/mine.yaml").write_text(
        f"about: {{summary: Small &c., reaches: {reaches}}}\ntrain: {{learning_rate: 0.01}}\n"
    )
    html, markdown = written()
    assert "<p>params.yaml has the values of recipe <b>mine</b>. Small &amp;c.</p>" in html
    assert "It should reach 63.1% to 64.5% of the test images: n = 5, trained in 63 s, on two &lt;cores&gt;." in html
    assert "params.yaml has the values of recipe `mine`. Small &c. It should reach 63.1% to 64.5%" in markdown
    Path("recipes/mine.yaml").write_text("about: {summary: Small., reaches: null}\n")
    assert all("What it should reach has not been measured." in text for text in written())


def test_the_page_says_what_differs_from_the_nearest_recipe(reports: Path) -> None:
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text("train: {learning_rate: 0.5, clip_norm: 2}\n")
    html, markdown = written()
    Whole(html)
    assert "No recipe: these values of params.yaml differ from the nearest, <b>mine</b>." in html
    assert '<tr><td>train.learning_rate</td><td class="n">0.5</td><td class="n">0.01</td></tr>' in html
    assert '<tr><td>train.clip_norm</td><td class="n">2</td><td class="n">-</td></tr>' in html
    assert "differ from the nearest, `mine`: train.learning" in markdown


def test_a_recipe_that_is_none_is_refused_in_a_sentence(reports: Path) -> None:
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text("about: {summary: 1}\n")
    with pytest.raises(SystemExit, match=r"^report: recipes/mine\.yaml is refused:\n  about\.summary = 1: "):
        page.main([])


def test_names_are_text_and_not_html(reports: Path) -> None:
    for path in (reports / "data.json", reports / "evaluation.json"):
        text = path.read_text()
        assert "T-shirt/top" in text
        path.write_text(text.replace("T-shirt/top", "<script>alert(1)</script>|x"))
    html, markdown = written()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;|x" in html
    assert "| \\<script\\>alert(1)\\</script\\>\\|x |" in markdown


def test_markdown_is_read_as_it_is_written() -> None:
    assert templating.markdown("__x__ *y* `z` a_b\n<!-- |") == "\\_\\_x\\_\\_ \\*y\\* \\`z\\` a_b \\<!-- \\|"


def test_names_of_files_are_text_and_not_html(reports: Path) -> None:
    found = {"count": 2, "images": ["<b>.png", "x.png"], "classes": ["Cat", "cat"], "splits": ["train", "validation"]}
    data = json.loads((reports / "data.json").read_text())
    bad = {"image": "<i>.png", "reason": "broken image"}
    write_json(reports / "data.json", data | {"groups": [found], "unreadable": [bad], "conflicts": 1})
    html, _ = written()
    Whole(html)
    assert "train: &lt;b&gt;.png, validation: x.png" in html
    assert "Cat, cat" in html
    assert "&lt;i&gt;.png: broken image" in html


def test_what_a_person_should_look_at_is_said_first(reports: Path) -> None:
    data = json.loads((reports / "data.json").read_text())
    bad = [{"image": "a.png", "reason": "broken image"}]
    write_json(reports / "data.json", data | {"leaked": 3, "unreadable": bad, "nearly_constant": 1200})
    metrics = json.loads((reports / "evaluation.json").read_text())
    metrics["per_class"]["Trouser"]["recall"] = 0.0
    write_json(reports / "evaluation.json", metrics | {"accuracy": 0.5, "calibration_error": 0.24})
    html, markdown = written()
    assert 'class="verdict look"' in html
    for text in (html, markdown):
        assert "Look at 5 remarks before it goes live. Proven: the data passed their checks; " in text
        assert "Verified" not in text
        assert "test images that are among the training images, allowed by transform.on" in text
        assert "images left out, because they cannot be read: 1" in text
        assert "nearly constant images: 1,200" in text
        assert "weak classes, recall at most 50% of the accuracy: Trouser 0.0%" in text
        assert "calibration error above 10%: 24.0%" in text
        assert "a.png: broken image" in text
        assert "labelled" in text


def test_a_name_that_a_spreadsheet_would_run_is_shown_as_it_is(reports: Path) -> None:
    row = ("=a.png", "train", "0", "@cat", "-dog", "0.5", "2.5")
    tables.write(
        reports / "suspects.csv", ("image", "split", "index", "label", "predicted", "confidence", "loss"), [row]
    )
    html, markdown = written()
    assert "labelled @cat, looks like -dog" in html
    assert "- labelled @cat, looks like -dog: =a.png" in markdown


def test_sizes_are_summed_up_by_mode(reports: Path) -> None:
    data = json.loads((reports / "data.json").read_text())
    rows = [(640, 480, "RGB", 3), (480, 640, "RGB", 2), (28, 28, "L", 1)]
    formats = [dict(zip(("width", "height", "mode", "images"), row, strict=True)) for row in rows]
    write_json(reports / "data.json", data | {"formats": formats})
    html, _ = written()
    assert '<td>RGB</td><td class="n">5</td><td class="n">480 to 640</td><td class="n">480 to 640</td>' in html
    assert '<td>L</td><td class="n">1</td><td class="n">28</td><td class="n">28</td>' in html


def test_what_differs_from_the_run_before(reports: Path) -> None:
    lock = "stages: {transform: {outs: [{path: data/prepared, md5: %s}]}} # %s"
    Path("dvc.lock").write_text(lock % ("a", 1))
    last_good.keep()
    assert last_good.before() is None
    Path("dvc.lock").write_text(lock % ("a", 2))
    before = json.loads((reports / "evaluation.json").read_text())
    write_params(train={"learning_rate": 0.5}, transform={"seed": 3})
    write_json(reports / "evaluation.json", before | {"accuracy": 0.987})
    for kept in (False, True):
        if kept:  # the next complete run keeps the one before it, too
            last_good.keep()
            last_good.keep()
        html, markdown = written()
        assert "| train.learning_rate | 0.01 | 0.5 | +0.49 |" in markdown
        assert "| transform.seed | 0 | 3 | +3 |" in markdown
        change = 0.987 - before["accuracy"]
        assert f"| accuracy | {before['accuracy']:.4g} | 0.987 | {change:+.4g} |" in markdown
        assert "train.epochs |" not in markdown
        assert ">train.learning_rate</td>" in html
        assert "not measured on the same test images" not in html
    Path("dvc.lock").write_text(lock % ("b", 2))
    for text in written():
        assert "not measured on the same test images" in text


NOTHING_TO_COMPARE = "There is nothing to compare this with: no earlier run that differs is kept."
NOTHING_NEW = "Nothing has changed since the run before."
COMPARED = "The comparison is with the last complete run that differs."


def complete_run(outcome: Outcome, lock: str) -> None:
    """Leave what a run does that is complete, whose stages all came to the same."""
    Path("dvc.lock").write_text(lock)
    summary.write_run([StageRun(stage, outcome, 3.14) for stage in STAGES], datetime.now(UTC))
    last_good.keep()


def compared() -> tuple[str, ...]:
    """Return the sentences about the comparison that both forms of the report have."""
    texts = written()
    return tuple(said for said in (NOTHING_TO_COMPARE, NOTHING_NEW, COMPARED) if all(said in text for text in texts))


def test_what_is_said_of_the_run_before_is_true_of_every_run(reports: Path) -> None:
    complete_run("ran", "{} # 1")
    assert compared() == (NOTHING_TO_COMPARE,), "it is the first"
    complete_run("up to date", "{} # 1")
    assert compared() == (NOTHING_NEW,), "it is the second, and unchanged"
    complete_run("ran", "{} # 2")
    assert compared() == (COMPARED,)
    complete_run("up to date", "{} # 2")
    assert compared() == (NOTHING_NEW, COMPARED), "the run before is not the one that is compared"
    Path("dvc.lock").write_text("{} # 3")  # as dvc repro leaves it
    assert compared() == (COMPARED,)


def test_a_kept_run_that_cannot_be_read_is_said_so_and_stops_no_report(reports: Path) -> None:
    complete_run("ran", "{} # 1")
    Path("dvc.lock").write_text("{} # 2")
    write_json(last_good.FOLDER / "reports/evaluation.json", {})
    for text in written():
        assert ".cache/last-good keeps an earlier run, but not as this version writes it: it is not compared." in text


@pytest.fixture
def chromium(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Open the page in Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")

    def open_page(*words: str) -> subprocess.CompletedProcess[str]:
        command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", *words, page.HTML.absolute().as_uri()]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)

    return open_page


@pytest.mark.parametrize(("scheme", "lightness"), [(0, range(64)), (1, range(192, 256))], ids=["dark", "light"])
def test_chromium_shows_it_without_an_error_as_dark_as_the_reader_wants_it(
    reports: Path,
    tmp_path: Path,
    chromium: Callable[..., subprocess.CompletedProcess[str]],
    scheme: int,
    lightness: range,
) -> None:
    written()
    shot = tmp_path / "page.png"
    words = ("--enable-logging=stderr", f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={shot}")
    answer = chromium(*words, "--window-size=1000,4000")
    assert "CONSOLE" not in answer.stderr
    with Image.open(shot) as image:
        colors = image.convert("RGB").getcolors(1 << 24)
        grey = image.convert("L")
    assert colors
    assert len(colors) > 200  # text, charts and images, not a blank page
    assert grey.getpixel((5, 5)) in lightness
    assert np.median(np.asarray(grey)) in lightness

    # What the page may not load, it would complain of: the test can fail.
    page.HTML.write_text(page.HTML.read_text().replace("</body>", '<img src="http://127.0.0.1:9/x.png"></body>'))
    assert "CONSOLE" in chromium(*words).stderr


def test_on_a_telephone_the_page_does_not_move_sideways(
    reports: Path, chromium: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    long = "a_name_without_a_space" * 10
    for path in (reports / "data.json", reports / "evaluation.json"):
        path.write_text(path.read_text().replace("T-shirt/top", long))
    data = json.loads((reports / "data.json").read_text())
    write_json(reports / "data.json", data | {"dataset": long, "unreadable": [{"image": long, "reason": long}]})
    write_verdict("parity", "failed", reasons=[long], figures={long: 1})
    html, _ = written()
    assert measured(chromium, html, "page.documentElement.scrollWidth") == 400


def test_on_a_telephone_a_sentence_in_a_table_is_wider_than_a_word(
    reports: Path, chromium: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    html, _ = written()
    assert "<th>most often confused</th>" in html
    assert measured(chromium, html, "page.querySelector('td.long').clientWidth") >= 200


def measured(chromium: Callable[..., subprocess.CompletedProcess[str]], html: str, length: str) -> int:
    """Measure a length in pixels on the page, shown 400 pixels wide."""
    # In a frame, because a window of Chromium's is 500 pixels wide at least.
    shown = escape(re.sub("<meta http-equiv.*", "", html))
    script = f"onload = () => {{ const page = frames[0].document; document.title = {length}; }}"
    page.HTML.write_text(f'<iframe style="width: 400px; border: 0" srcdoc="{shown}"></iframe><script>{script}</script>')
    found = re.search(r"<title>(\d+)</title>", chromium("--hide-scrollbars", "--dump-dom").stdout)
    assert found
    return int(found[1])


def test_a_gate_that_is_added_is_on_the_page(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "GATES", (*verdicts.GATES, QUALITY))
    write_verdict("quality", "failed", reasons=["it is worse"], figures={"margin": -0.02})
    html, markdown = written()
    for text in (html, markdown):
        assert "Withheld, quality failed: it is worse" in text
        assert "quality: failed" in text
    assert '<td>margin</td><td class="n">-0.02</td>' in html
    assert "- margin: -0.02" in markdown
