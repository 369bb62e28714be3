"""The page at `/` in Chromium, as a person uses it: with a mouse, a finger, the keyboard, or a screen reader."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.champion import Champion
from serving.server import page as module
from serving.server.limits import Limits
from tests.support import served
from tests.support.devtools import Browser, Tab, chromium
from tests.support.registry import keep, point
from tests.support.server import Running, running

METADATA = served.METADATA | {"dataset": "shades", "network": "cnn", "test_accuracy": "0.875", "temperature": "1.5"}
PHONE = {"width": 320, "height": 700}


def test_the_page_may_run_its_own_script_and_load_nothing() -> None:
    content, headers = module.page()
    assert content == module.FILE.read_bytes()
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-")
    assert "unsafe" not in headers["content-security-policy"]
    assert b"://" not in content.replace(b"http://www.w3.org/2000/svg", b""), "it names no other place"


@dataclass
class Site:
    """A server, and the registry whose champion it follows."""

    server: Running
    root: Path
    champion: Champion


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium") / "profile") as found:
        yield found


@pytest.fixture(scope="module")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    root = folder / "models/registry"
    champion = keep(root, served.model(metadata=METADATA))
    figures = {"accuracy": 0.9, "images": 4000, "largest logit error": 1.2345e-05, "gain": None}
    judged = {
        "model": champion.sha256,
        "time": "2026-11-26T22:29:53.342388+00:00",
        "by": "ana@host",
        "blessings": [{"gate": "quality", "outcome": "passed", "reasons": ["/home/ana"], "figures": figures}],
    }
    (root / champion.sha256 / "verdict.json").write_text(json.dumps(judged))
    point(root, champion, 7)
    with running(folder) as server:
        yield Site(server, root, champion)


Open = Callable[..., Tab]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Open a page of a server; see that it asks nobody else and complains of nothing.

    Args:
        errors: the source of those that are expected: Chromium itself complains of a request that fails (`network`).
    """
    with ExitStack() as stack:

        def leave(tab: Tab, server: Running, errors: str) -> None:
            kept = {
                one["requestId"] for one in tab.events("Network.loadingFailed") if one.get("blockedReason") == "csp"
            }
            sent = [one for one in tab.events("Network.requestWillBeSent") if one["requestId"] not in kept]
            assert [
                url for one in sent if not (url := one["request"]["url"]).startswith((server.url, "data:", "blob:"))
            ] == []
            assert tab.events("Runtime.exceptionThrown") == []
            complaints = [event["entry"] for event in tab.events("Log.entryAdded")]
            assert [one for one in complaints if one["source"] != errors] == []

        def open_page(server: Running, errors: str = "", **options: Any) -> Tab:
            tab = stack.enter_context(browser.tab(server.url, **options))
            stack.callback(leave, tab, server, errors)
            return tab

        yield open_page


@pytest.fixture
def page(site: Site, opened: Open) -> Tab:
    tab = opened(site.server)
    tab.until("document.querySelectorAll('#samples button').length === 2")
    return tab


def picture(path: Path, brightness: int) -> Path:
    Image.fromarray(np.full((4, 4), brightness, np.uint8)).save(path)
    return path


def shows(tab: Tab, beginning: str) -> None:
    """Wait for a result."""
    tab.until("!document.querySelector('#answer').hidden")
    tab.until(f"document.querySelector('#class').innerText.startsWith('{beginning}')")


def complains(tab: Tab, text: str, of: str = "#trouble") -> None:
    tab.until(f"document.querySelector('{of}').innerText.includes({json.dumps(text)})")


def test_a_file_that_is_dropped_is_classified(site: Site, page: Tab, tmp_path: Path) -> None:
    page.drop(picture(tmp_path / "lamp.png", 255))
    shows(page, "light, 99.4%")
    assert page.text("#source") == "lamp.png"
    rows = "[...document.querySelectorAll('#bars tr')].map(row => row.innerText.trim().split(/\\s*\\t\\s*/))"
    assert page.evaluate(rows) == [["light", "99.4%"], ["dark", "0.6%"]]
    widths = page.evaluate(
        "[...document.querySelectorAll('.track div')].map(bar => bar.style.width.slice(0, 4))",
    )
    assert widths == ["99.3", "0.60"]
    assert page.text("#by").startswith(f"Version 7 ({site.champion.sha256[:7]}). ")
    assert page.text("#by").endswith(" ms from this page to the server and back.")
    page.drop(picture(tmp_path / "cellar.png", 0), picture(tmp_path / "lamp.png", 255))
    shows(page, "dark, 50.0%")
    assert page.text("#source") == "cellar.png, the first of 2 files"


def test_a_file_is_chosen_twice(page: Tab, tmp_path: Path) -> None:
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    file = picture(tmp_path / "lamp.png", 255)
    for _ in range(2):
        page.evaluate("document.querySelector('#class').textContent = ''")
        page.click("#choose")
        page.choose("#file", file)
        shows(page, "light")
    assert len(page.events("Page.fileChooserOpened")) == 2


PASTE = """
(async () => {
  const canvas = new OffscreenCanvas(4, 4), pen = canvas.getContext("2d"), pasted = new DataTransfer();
  pen.fillStyle = "white";
  pen.fillRect(0, 0, 4, 4);
  if (FILLED) pasted.items.add(new File([await canvas.convertToBlob()], "image.png", {type: "image/png"}));
  document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: pasted, bubbles: true}));
})()
"""


def test_an_image_is_pasted(page: Tab) -> None:
    page.evaluate(PASTE.replace("FILLED", "true"))
    shows(page, "light")
    page.evaluate(PASTE.replace("FILLED", "false"))
    complains(page, "The clipboard holds no image.")


def is_black(tab: Tab, x: int, y: int, width: int, height: int) -> bool:
    """Tell whether nothing is drawn in a part of the canvas."""
    pen = "document.querySelector('#canvas').getContext('2d')"
    drawn = f"{pen}.getImageData({x}, {y}, {width}, {height}).data.some((value, k) => k % 4 < 3 && value)"
    return not tab.evaluate(drawn)


def test_one_draws_with_a_mouse(page: Tab) -> None:
    x, y = page.middle("#canvas")
    page.mouse("mousePressed", x - 60, y)
    page.mouse("mouseMoved", x + 60, y)
    page.mouse("mouseReleased", x + 60, y)
    shows(page, "light")
    assert page.text("#source") == "Your drawing"
    size = page.evaluate("[document.querySelector('#preview').naturalWidth, document.querySelector('#canvas').scale]")
    assert size == [280, 70], "the server makes it smaller, as it does with any image"
    page.click("#clear")
    page.click("#canvas")
    shows(page, "light")
    assert is_black(page, 0, 0, 20, 280)


def test_one_draws_with_a_finger_and_a_second_finger_does_not(page: Tab) -> None:
    x, y = page.middle("#canvas")
    first, second = {"x": x, "y": y, "id": 1}, {"x": x - 90, "y": y - 90, "id": 2}
    page.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[first])
    page.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[first, second])
    page.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{**first, "x": x + 20}, second])
    page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    shows(page, "light")
    assert is_black(page, 0, 0, 60, 60)


FOCUSED = "document.activeElement.id || document.activeElement.innerText"


def test_all_is_reached_by_the_keyboard_in_the_order_in_which_it_is_read(page: Tab) -> None:
    order = []
    for _ in range(7):
        page.press("Tab")
        order.append(page.evaluate(FOCUSED))
        style = "getComputedStyle(document.activeElement)"
        assert page.evaluate(f"{style}.outlineStyle === 'solid' && {style}.outlineWidth === '3px'"), order
        if order[-1] == "light":
            page.press("Enter")
            shows(page, "light")
    assert order == ["choose", "dark", "light", "again", "brush", "clear", "The model\u2019s report"]
    assert page.text("#source") == "Sample: its class is light."
    page.press("Enter")
    assert page.evaluate("document.querySelector('#report').open")
    told = page.text("#report")
    for part in ("shades", "cnn", "90.0% of 4,000 test images", "2026-11-26 22:29 UTC", "0.00001234", "1.5"):
        assert part in told
    assert "ana" not in told


def test_a_screen_reader_is_told_what_everything_is_and_what_has_changed(page: Tab) -> None:
    page.click("#samples li:nth-child(2) button")
    shows(page, "light")
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes}
    assert {
        ("button", "Choose a file"),
        ("list", "Samples"),
        ("button", "light"),
        ("slider", "Brush"),
        ("button", "Clear"),
        ("region", "Result"),
        ("table", "Probabilities, all 2"),
        ("rowheader", "light"),
        ("cell", "99.4%"),
    } <= named
    silent = [node for node in nodes if node["role"]["value"] in ("button", "slider", "image", "Canvas", "textbox")]
    assert all(node.get("name", {}).get("value") for node in silent)
    assert page.evaluate("document.querySelector('#class').closest('[role=status]') !== null")
    assert page.evaluate("document.querySelector('#samples li:nth-child(2) button').ariaPressed") == "true"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("notes.png", b"no image at all", "The image: not a PNG, JPEG, WebP or BMP image."),
        ("empty.png", b"", "The image: not a PNG, JPEG, WebP or BMP image."),
        (
            "large.png",
            b"\0" * (Limits().upload + 1),
            "large.png has 16.0 MiB; 16.0 MiB are the most. This page does not",
        ),
        ("folder", None, "folder cannot be read. Is it a folder?"),
    ],
    ids=["no image", "empty", "too large", "a folder"],
)
def test_a_wrong_file_is_said_in_a_sentence_and_the_next_one_is_taken(
    site: Site, opened: Open, tmp_path: Path, name: str, content: bytes | None, why: str
) -> None:
    page = opened(site.server, errors="network")
    page.until("document.querySelectorAll('#samples button').length === 2")
    page.drop(picture(tmp_path / "lamp.png", 255))
    shows(page, "light")
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(content)
    page.drop(tmp_path / name)
    complains(page, why)
    assert page.evaluate("document.querySelector('#answer').hidden"), "the answer to another image is not shown"
    assert page.text("#result").count("light") == 0
    page.drop(picture(tmp_path / "lamp.png", 255))
    shows(page, "light")
    assert page.evaluate("document.querySelector('#trouble').hidden")


def answered_with(tab: Tab, *answers: tuple[int, dict[str, str], str]) -> None:
    """Have the next requests for an answer get these, each a status, headers and a body."""
    tab.evaluate(
        f"{{ const real = fetch, made = {json.dumps(answers)}; "
        "fetch = async (path, options) => { if (path !== 'predict' || !made.length) return real(path, options); "
        "const [status, headers, body] = made.shift(); return new Response(body, {status, headers}); }; }"
    )


def test_a_busy_server_is_asked_again_when_it_says_so(page: Tab) -> None:
    busy = (503, {"retry-after": "1"}, '{"error": "4096 images wait already; try again in a second"}')
    answered_with(page, busy)
    page.click("#samples button")
    complains(page, "The server is busy. It is asked again in 1 s.")
    shows(page, "dark")
    assert page.evaluate("document.querySelector('#trouble').hidden")


def test_what_a_proxy_says_is_not_shown_as_the_servers_word(page: Tab) -> None:
    answered_with(page, (413, {}, "<html>413 Request Entity Too Large</html>"))
    page.click("#samples button")
    complains(page, "Something between this page and the server answered with status 413. This page does not scale")


def test_of_many_classes_ten_are_shown_at_first(page: Tab) -> None:
    classes = [{"label": f"class {number}", "probability": 0.01} for number in range(100)]
    answer = {"label": "class 0", "probability": 0.01, "classes": classes, "model_version": "8", "sha256": "0" * 64}
    answered_with(page, (200, {}, json.dumps(answer)))
    page.click("#samples button")
    shows(page, "class 0")
    visible = "[...document.querySelectorAll('#bars tr')].filter(row => !row.hidden).length"
    assert page.evaluate(visible) == 10
    assert page.text("#caption") == "Probabilities, the 10 largest of 100"
    page.click("#more")
    assert page.evaluate(visible) == 100
    page.click("#more")
    assert (page.evaluate(visible), page.text("#more")) == (10, "Show all 100")


LATE = """
{
  const real = fetch;
  let first = true;
  fetch = async (path, options) => {
    const answer = await real(path, options);
    if (path === "predict" && first) {
      first = false;
      await new Promise(done => setTimeout(done, 300));
      window.late = true;
    }
    return answer;
  };
}
"""


def test_an_answer_that_comes_late_is_not_shown_for_a_later_image(page: Tab) -> None:
    page.evaluate(LATE)
    page.click("#samples li:nth-child(1) button")
    page.click("#samples li:nth-child(2) button")
    page.until("window.late")
    page.evaluate("new Promise(done => setTimeout(done, 50))")
    shows(page, "light")


def test_a_server_that_is_gone_is_said_and_its_return_is_noticed(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "models").mkdir()
    served_model = served.model(metadata=METADATA).SerializeToString()
    (tmp_path / "models/model.onnx").write_bytes(served_model)
    with running(tmp_path) as server:
        page = opened(server, errors="network")
        page.until("!document.querySelector('#main').hidden")
        assert page.evaluate("document.querySelector('#samples-part').hidden"), "no promotion has kept samples"
        assert "No verdict lies beside this model." in page.evaluate("document.querySelector('#report').textContent")
    complains(page, "The server does not answer. It is asked again every 2 seconds.", of="#gone")
    page.drop(picture(tmp_path / "lamp.png", 255))
    complains(page, "The server does not answer.")
    with running(tmp_path, "--port", server.url.rpartition(":")[2]):
        shows(page, "light")
        assert page.evaluate("document.querySelector('#gone').hidden")


def test_a_token_is_asked_for_and_kept_in_the_page_alone(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.onnx").write_bytes(served.model().SerializeToString())
    with running(tmp_path, TOKEN="gehe\u00efm") as server:
        page = opened(server, errors="network")
        page.until("document.activeElement.id === 'token'")
        assert page.evaluate("document.querySelector('#main').hidden")
        page.write("guessed")
        page.press("Enter")
        complains(page, "The server does not take this token.", of="#gone")
        page.write("gehe\u00efm")
        page.press("Enter")
        page.until("document.activeElement.id === 'choose'")
        page.drop(picture(tmp_path / "lamp.png", 255))
        shows(page, "light")
        assert page.evaluate("document.cookie + localStorage.length + sessionStorage.length + location.search") == "00"
        assert "gehe" not in page.evaluate(
            "document.documentElement.outerHTML + document.querySelector('#token').value"
        )


def test_a_model_that_takes_over_or_is_refused_while_the_page_is_open_is_shown(site: Site, page: Tab) -> None:
    page.click("#samples li:nth-child(2) button")
    shows(page, "light")
    tall = served.model(inputs=[served.images("batch", 8, 4, 1)], metadata=METADATA | {"dataset": "tones"})
    other = keep(site.root, tall)
    point(site.root, other, 8)
    complains(page, f"Version 8 ({other.sha256[:7]}), right on 87.5% of its test images", of="#model")
    assert page.text("#title") == "tones classifier"
    assert page.evaluate("[document.querySelector('#canvas').width, document.querySelector('#canvas').height]") == [
        140,
        280,
    ]
    assert page.text("#by").endswith("By now version 8 answers.")
    page.click("#again")
    page.until(f"document.querySelector('#by').innerText.startsWith('Version 8 ({other.sha256[:7]})')")

    broken = Champion(f"{'0' * 64}/model.onnx", "0" * 64, 1, 10)
    point(site.root, broken, 10)
    complains(page, "A newer model was refused: entry 10 of the history (0000000): its file is missing", of="#refused")
    assert page.text("#refused").endswith("Version 8 goes on answering.")
    point(site.root, site.champion, 7)
    complains(page, "Version 7", of="#model")
    page.until("document.querySelector('#refused').hidden")


def test_of_a_colour_model_nothing_is_drawn_and_no_name_is_taken_for_html(tmp_path: Path, opened: Open) -> None:
    name = "<img src=x onerror=alert(1)>" + "a_name_without_a_space" * 5
    metadata = METADATA | {"class_names": json.dumps(["dark", name]), "dataset": name}
    model = served.model(inputs=[served.images("batch", 4, 4, 3)], metadata=metadata)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.onnx").write_bytes(model.SerializeToString())
    with running(tmp_path) as server:
        page = opened(server, **PHONE)
        page.until("!document.querySelector('#main').hidden")
        assert page.evaluate("document.querySelector('#draw').hidden")
        page.drop(picture(tmp_path / "lamp.png", 255))
        shows(page, "<img")
        page.evaluate("document.querySelector('#report').open = true")
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        assert page.text("#bars th") == name


def test_the_page_does_not_move_sideways(page: Tab) -> None:
    page.click("#samples button")
    shows(page, "dark")
    page.evaluate("document.querySelector('#report').open = true")
    for width in (320, 360, 799, 800, 2000):
        page.resize(width, 700)
        assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]


# https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio, of all elements that have text of their own.
CONTRASTS = """
(() => {
  const luminance = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (one) => { const colour = getComputedStyle(one).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? one.parentElement ? behind(one.parentElement) : "none" : colour; };
  for (const one of document.querySelectorAll("[hidden]")) one.hidden = one.id === "file";
  document.querySelector("#report").open = true;
  return [...document.querySelectorAll("body *:not(script, noscript)")]
    .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()) || one.matches(".note"))
    .map(one => { const [a, b] = [getComputedStyle(one).color, behind(one)].map(luminance);
      return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), one.outerHTML.slice(0, 80)]; }); })()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_and_nothing_moves_for_those_who_do_not_want_it(
    site: Site, opened: Open, scheme: str
) -> None:
    page = opened(site.server, scheme=scheme)
    page.until("document.querySelectorAll('#samples button').length === 2")
    page.click("#samples button")
    shows(page, "dark")
    found = page.evaluate(CONTRASTS)
    assert len(found) > 40
    assert [one for one in found if one[0] < 4.5] == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(25, 25, 25)"}[scheme]
    moves = "getComputedStyle(document.querySelector('.track div')).transitionDuration"
    assert page.evaluate(moves) == "0.15s"
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    assert page.evaluate(moves) == "0s"


def test_what_is_not_the_pages_own_is_neither_loaded_nor_run(site: Site, opened: Open) -> None:
    page = opened(site.server, errors="security")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = true'}))"
    )
    page.evaluate(
        "new Promise(done => { const one = new Image(); one.onerror = done; one.src = 'http://127.0.0.1:9/x.png'; })"
    )
    assert not page.evaluate("window.ran")
    said = [event["entry"]["text"] for event in page.events("Log.entryAdded")]
    assert sum("Content Security Policy" in text for text in said) == 2
