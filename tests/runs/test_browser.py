"""docs/deployment.md, section "In a browser": its commands, its page and its model give what Python gives.

onnxruntime-web comes from the npm registry, in the version that the section names; run by .ci/run. With DATA_MIRROR the
model is one of Fashion-MNIST, else of digits.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from flows import overrides, recipes
from serving.images import Resize, decode
from serving.model import Predictor
from serving.session import CPU, open_session
from tasks import download, evaluate, export, train, transform
from tasks.gates import parity
from tasks.harness import section
from tasks.harness.section import PARAMS
from tasks.params.export import Export
from tasks.prepared import Split
from tests.support import pictures, served
from tests.support.browser import CHROMIUM, WEBGPU, visit
from tests.support.params import ROOT, shipped_params

SECTION = (ROOT / "docs/deployment.md").read_text().partition("\n## In a browser\n")[2].partition("\n## ")[0]
WEB = ROOT / "tests/support/web"
IMAGES = {"wasm": 300, "webgpu": 200}  # that the page is asked about

pytestmark = [
    pytest.mark.registry,
    pytest.mark.skipif(
        not (shutil.which("node") and shutil.which("npm")), reason="no node and npm on the PATH for onnxruntime-web"
    ),
]
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")


def block(language: str) -> str:
    """Return the one block of code in that language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/ and data/prepared of a short training, and the folder `site` as the section has it made."""
    mirror = os.environ.get("DATA_MIRROR")
    changes = ["train.epochs=1"] if mirror else [*recipes.changes("digits"), "train.epochs=5"]
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        if mirror and "://" not in mirror:
            patch.setenv("DATA_MIRROR", str(Path(mirror).absolute()))
        patch.chdir(folder)
        PARAMS.write_text(overrides.apply(shipped_params(), changes)[0])
        for stage in (download, transform, train, evaluate, export):
            stage.main()
    subprocess.run(("sh", "-ec", block("sh")), cwd=folder, check=True)
    (folder / "site/index.html").write_text(block("html"))
    (folder / "site/pixels.js").write_text(block("js"))
    return folder


@pytest.fixture
def site(project: Path, tmp_path: Path) -> Path:
    """A copy of `site` for one test, and the folder `images` in it for what the page is asked about."""
    copy = tmp_path / "site"
    shutil.copytree(project / "site", copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(project / "site/node_modules")
    (copy / "images").mkdir()
    return copy


def ask(site: Path, provider: str = "wasm") -> Any:
    """Have the page choose every file in `images`, in order of their names, and return what driver.js tells."""
    names = [f"images/{path.name}" for path in files(site)]
    (site / "images.json").write_text(json.dumps(names))
    page, module = (site / "index.html").read_text(), '<script type="module"'
    driven = page.replace(module, f'{module} src="driver.js"></script>\n{module}', 1)
    for name, text in (("driven.html", driven), ("driver.js", (WEB / "driver.js").read_text())):
        (site / name).write_text(text.replace("wasm", provider))
    return visit(site, "driven.html", site.parent, *(WEBGPU if provider == "webgpu" else ()))


def files(site: Path) -> list[Path]:
    return sorted((site / "images").iterdir())


def test_the_section_pins_one_version_and_the_page_is_short() -> None:
    assert len(re.findall(r"onnxruntime-web@\d+\.\d+\.\d+$", SECTION, re.MULTILINE)) == 1
    assert len(re.findall(r"onnxruntime-web@", SECTION)) == 1
    assert block("html").count("\n") <= 30


def test_node_gives_every_test_image_pythons_label(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    test = Split.read("test")
    Path("images.raw").write_bytes(test.images.tobytes())
    shutil.copy(WEB / "node.mjs", "site")  # from where `import` finds the package
    words = ("node", "site/node.mjs", "models/model.onnx", "images.raw", "64", *map(str, test.images.shape[1:]))
    printed = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
    session = open_session("models/model.onnx", CPU)
    temperature = float(session.get_modelmeta().custom_metadata_map["temperature"])
    reference, _ = session.run(None, {"images": test.images})
    run = parity.measure(reference, temperature, *np.frombuffer(printed, np.float32).reshape(2, *reference.shape))
    report = parity.judge(reference, {64: run}, test.labels, section.load(Export).tolerance)
    assert report.reasons == []
    assert report.label_agreement == 1
    assert report.samples == (10_000 if os.environ.get("DATA_MIRROR") else 359)
    assert report.accuracy_onnx is not None
    assert report.accuracy_onnx > 0.8, "the model has learnt, so that labels tell something"


@in_chromium
@pytest.mark.parametrize("provider", ["wasm", "webgpu"])
def test_the_page_says_what_python_says_of_test_images(project: Path, site: Path, provider: str) -> None:
    images = Split.read("test", project / "data/prepared").images[: IMAGES[provider]]
    for number, pixels in enumerate(images):
        Image.fromarray(pixels.squeeze(-1)).save(site / f"images/{number:03}.png")
    answer = ask(site, provider)
    if provider == "webgpu" and not answer["adapter"]:
        pytest.skip(f"{CHROMIUM} has no WebGPU on SwiftShader: {answer['begin']}")
    np.testing.assert_array_equal(answer["inputs"], images.reshape(len(images), -1))
    predictor = Predictor(project / "models/model.onnx", CPU)
    probabilities = predictor(images)
    said = [re.fullmatch(r"images/\d+\.png: (.+) ([\d.]+)%", text) for text in answer["answers"]]
    assert [match and match[1] for match in said] == [predictor.class_names[k] for k in probabilities.argmax(1)]
    shown = [float(match[2]) for match in said if match]
    np.testing.assert_allclose(shown, 100 * probabilities.max(1), atol=0.051)  # it shows one digit after the point
    # driver.js has no node of the graph fall back to the CPU; that the GPU was asked says that it was not left out.
    assert (answer["dispatches"] > len(images)) == (provider == "webgpu")


def served_as(site: Path, image_shape: tuple[int, int, int], resize: str) -> None:
    """Put a made model in the place of the trained one."""
    made = served.model(inputs=[served.images("batch", *image_shape)])
    (site / "model.onnx").write_bytes(made.SerializeToString())
    about = {"class_names": served.CLASSES, "image_shape": image_shape, "dataset": {"resize": resize}}
    (site / "model.json").write_text(json.dumps(about))


def differences(site: Path, image_shape: tuple[int, int, int], resize: Resize) -> dict[str, NDArray[np.int64]]:
    """Return, for each file, by how much the page's pixels are not those of serving/images.py."""
    served_as(site, image_shape, resize)
    seen = ask(site)["inputs"]
    return {
        path.name: np.abs(np.array(pixels, np.int64).reshape(image_shape) - decode(path, image_shape, resize))
        for path, pixels in zip(files(site), seen, strict=True)
    }


@in_chromium
@pytest.mark.parametrize("image_shape", [(28, 28, 1), (48, 64, 3)], ids=["grey", "colour"])
def test_the_page_sees_the_pixels_that_training_saw(site: Path, image_shape: tuple[int, int, int]) -> None:
    pictures.opaque(site / "images")
    found = differences(site, image_shape, "stretch")
    assert len(found) == 24
    assert {name for name, difference in found.items() if difference.any()} == set()


@in_chromium
def test_a_crop_at_fractions_of_a_pixel_differs_by_a_rounding_here_and_there(site: Path) -> None:
    pictures.opaque(site / "images")
    for name, difference in differences(site, (48, 64, 3), "crop").items():
        assert difference.max() <= 1, name
        assert difference.mean() <= 0.02, name


@in_chromium
def test_transparency_and_16_bits_differ_by_two_at_most_as_the_section_says(site: Path) -> None:
    pictures.others(site / "images")
    assert max(int(difference.max()) for difference in differences(site, (48, 64, 3), "stretch").values()) <= 2


@in_chromium
def test_the_page_says_so_where_a_file_is_no_image_and_answers_the_next(site: Path) -> None:
    served_as(site, (4, 4, 1), "stretch")
    (site / "images/1.png").write_text("no image")
    Image.new("L", (4, 4), 255).save(site / "images/2.png")
    wrong, right = ask(site)["answers"]
    assert "The source image could not be decoded" in wrong
    assert right == "images/2.png: light 99.4%"


@in_chromium
@pytest.mark.parametrize("name", ["model.json", "model.onnx"])
def test_the_page_says_so_where_a_file_of_the_model_is_missing(site: Path, name: str) -> None:
    (site / name).unlink()
    assert re.fullmatch(rf"Error: .*{name}.*", ask(site)["begin"])
