"""serving.predict: from image file to label, with the ONNX model alone."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from serving import predict
from serving.folder.journal import Journal
from serving.images import decode
from serving.model import Predictor
from serving.session import SessionError
from tasks import export, train
from tasks.model.batches import predict as torch_predict
from tasks.model.classifier import load
from tasks.prepared import Images, Split
from tests.support import served
from tests.support.exhausted import no_more_files
from tests.support.params import ROOT, write_params


def save(image: Images) -> Path:
    Image.fromarray(image.squeeze()).save("image.png")
    return Path("image.png")


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FOLDER", "IMAGE", "MODEL", "OUT", "REGISTRY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("normalize", ["none", "half", "fitted"])
def test_from_file_to_label_it_predicts_what_the_pth_model_predicts(
    exported: Path, normalize: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if normalize != "none":  # which is what the model in the workspace does
        write_params(train={"normalize": normalize})
        train.main()
        export.main()
    model, description = load()
    probabilities = torch_predict(model, Split.read("test"), 8, torch.device("cpu")).softmax(1).numpy()
    predictor = Predictor(Path("models/model.onnx"))
    assert predictor.class_names == description.class_names
    for index, image in enumerate(Split.read("test").images):
        found = predictor(decode(save(image), predictor.image_shape)[np.newaxis])[0]
        np.testing.assert_allclose(found, probabilities[index], atol=1e-5)
    capsys.readouterr()

    monkeypatch.setattr(sys, "argv", ["predict", str(save(Split.read("test").images[0])), "missing.png"])
    assert predict.main() == 1
    printed = capsys.readouterr()
    best = np.argsort(-probabilities[0])[:3]
    first = f"image.png: {description.class_names[best[0]]} {probabilities[0][best[0]]:.1%}  (then "
    assert printed.out.startswith(first)
    assert printed.out.count("%") == 3
    assert printed.err == "predict: missing.png: no such file\n"


def test_a_model_that_cannot_be_used_is_refused_with_the_reason() -> None:
    image = save(np.zeros((28, 28, 1), np.uint8))
    with pytest.raises(SessionError, match=r"model.onnx does not exist: make run trains models/model.onnx"):
        Predictor(Path("model.onnx"))
    with pytest.raises(SessionError, match="CPUExecutionProvider cannot run the model"):
        Predictor(image)
    with pytest.raises(SessionError, match="CUDAExecutionProvider is not in this ONNX Runtime"):
        Predictor(image, "CUDAExecutionProvider")


Predict = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def run_predict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Run main with arguments, on a small model; give its code, the names that it classified, and its errors."""
    model = served.save(served.model(), ".model.onnx")

    def run(*arguments: str, **environment: str) -> tuple[int, list[str], list[str]]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["predict", f"--model={model}", *arguments])
        code = predict.main()
        printed = capsys.readouterr()
        return code, [line.rpartition(": ")[0] for line in printed.out.splitlines()], printed.err.splitlines()

    return run


def put(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(name, "PNG")


def test_a_folder_stands_for_the_images_in_it_and_below(run_predict: Predict) -> None:
    names = ["a b/1.png", "a b/2.PNG", "a b/c/0.jpeg", "a b/d.png/3.webp"]
    put(*reversed(names), "a b/.hidden.png", "a b/.hidden/4.png", "a b/5.gif", "single.gif")
    assert run_predict("a b", "single.gif") == (0, [*names, "single.gif"], [])


def test_loops_of_links_end_and_an_image_is_classified_once(run_predict: Predict) -> None:
    put("folder/one/1.png", "elsewhere/2.png")
    Path("folder/one/loop").symlink_to("..")
    Path("folder/link").symlink_to(Path("elsewhere").absolute())
    Path("folder/again").symlink_to("one")
    assert run_predict("folder") == (0, ["folder/again/1.png", "folder/link/2.png"], [])


def test_what_cannot_be_classified_is_named_and_the_others_are_classified(run_predict: Predict) -> None:
    put("folder/1.png", "folder/3.png", "4.png")
    Path("folder/2.png").symlink_to("nowhere")
    Path("barren").mkdir()
    long = "a" * 300
    code, names, errors = run_predict("folder", "barren", "", long, "4.png")
    assert (code, names) == (1, ["folder/1.png", "folder/3.png", "4.png"])
    assert errors == [
        "predict: folder/2.png: no such file",
        "predict: barren: no image in this folder or below; images are .png, .jpg, .jpeg, .webp, .bmp files",
        "predict: an image has an empty name; a path is expected",
        f"predict: {long}: File name too long",
    ]


def test_a_folder_below_that_cannot_be_read_is_named(run_predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    put("folder/1.png", "folder/shut/2.png")
    scandir = os.scandir

    def guarded(path: str) -> object:  # whoever runs the tests may be root, who can read everything
        if path.endswith("shut"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert run_predict("folder") == (1, ["folder/1.png"], ["predict: folder/shut: Permission denied"])


def test_its_help_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["predict", "--help"])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        predict.main()
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_names_with_a_dash_follow_two_dashes(run_predict: Predict) -> None:
    put("-x.png", "--help")
    assert run_predict("--", "-x.png", "--help") == (0, ["-x.png", "--help"], [])


@pytest.mark.parametrize(
    ("image", "names"),
    [
        ("a b.png", ["a b.png"]),
        ("-x.png", ["-x.png"]),
        ("--help", ["--help"]),
        ("$(touch made); 'it\"s.png", ["$(touch made); 'it\"s.png"]),
        ("-x.png 'a b.png'", ["-x.png", "a b.png"]),
        (" -x.png\n  a\\ b.png ", ["-x.png", "a b.png"]),
    ],
)
def test_the_environment_names_one_path_or_several_as_in_a_shell(
    run_predict: Predict, image: str, names: list[str]
) -> None:
    put("a b.png", "-x.png", "--help", "$(touch made); 'it\"s.png", "not this.png")
    assert run_predict(IMAGE=image) == (0, names, [])
    assert not Path("made").exists()


def test_nothing_of_what_a_shell_does_besides_is_done_to_the_environments_paths(run_predict: Predict) -> None:
    put("1.png")
    code, names, errors = run_predict(IMAGE="*.png $HOME ~ `id` ; 1.png")
    assert (code, names) == (1, ["1.png"])
    assert errors == [f"predict: {name}: no such file" for name in ("*.png", "$HOME", "~", "`id`", ";")]


def test_the_command_line_comes_before_the_environment(run_predict: Predict) -> None:
    put("1.png", "2.png")
    assert run_predict("1.png", IMAGE="2.png") == (0, ["1.png"], [])


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (None, "which image? make predict IMAGE=path.png, or python -m serving.predict path.png"),
        (" ", "which image? make predict IMAGE=path.png, or python -m serving.predict path.png"),
        ("it's\x1b", r"IMAGE=it's\x1b: there is no such file, and several are no list: No closing quotation"),
    ],
)
def test_without_an_image_it_says_what_to_type(
    run_predict: Predict, image: str | None, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_predict(**{} if image is None else {"IMAGE": image})
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {reason}\n")


def test_names_of_classes_and_files_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = json.dumps(["\x1b[2Jdark", "li\nght\ud800"])
    served.save(served.model(metadata=served.METADATA | {"class_names": names}), "\x1b.onnx")
    put("\x1b[31m.png")
    monkeypatch.setattr(sys, "argv", ["predict", "--model=\x1b.onnx", "\x1b[31m.png", "\x1b[32m\n.png", "\udcff.png"])
    assert predict.main() == 1
    printed = capsys.readouterr()
    assert printed.out == "\\x1b[31m.png: \\x1b[2Jdark 50.0%  (then li\\nght\\ud800 50.0%)\n"
    assert printed.err == ("predict: \\x1b[32m\\n.png: no such file\npredict: \\udcff.png: no such file\n")
    served.save(served.model(metadata={"schema_version": "1"}), "\x1b.onnx")
    with pytest.raises(SystemExit, match=r"^predict: \\x1b.onnx is no model of this pipeline: class_names of its"):
        predict.main()


def test_an_option_that_there_is_not_cannot_either(run_predict: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_predict("-\x1b[31m.png")
    assert "\x1b" not in capsys.readouterr().err


def test_a_model_that_fails_while_it_runs_ends_it_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = served.nodes()
    graph[0].input[0] = "by sevens"
    graph.insert(0, onnx.helper.make_node("Constant", [], ["sizes"], value_ints=[-1, 4, 4, 7]))
    graph.insert(1, onnx.helper.make_node("Reshape", ["images", "sizes"], ["by sevens"]))
    served.save(served.model(graph=graph))
    put("1.png", "2.png")
    monkeypatch.setattr(sys, "argv", ["predict", "--model=model.onnx", "1.png", "2.png"])
    with pytest.raises(SystemExit, match=r"^predict: model.onnx failed on images \(1, 4, 4, 1\): .*Reshape[^\n]*$"):
        predict.main()


def test_that_no_more_files_can_be_opened_ends_it_in_one_sentence(
    run_predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("1.png")
    answer = predict.answer

    def exhausted(predictor: Predictor, path: Path) -> str:
        with no_more_files():
            return answer(predictor, path)

    monkeypatch.setattr(predict, "answer", exhausted)
    with pytest.raises(SystemExit, match=r"^predict: 1\.png: Too many open files$"):
        run_predict("1.png")


def command(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    served.save(served.model(metadata=served.METADATA | {"class_names": '["h\u00e4ll", "dunkel"]'}))
    words = (sys.executable, "-m", "serving.predict", "--model=model.onnx", *arguments)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, **options)


def test_a_letter_that_the_output_cannot_hold_is_escaped() -> None:
    put("1.png")
    with command("1.png", stdout=subprocess.PIPE) as process:
        assert process.communicate() == ("1.png: h\\xe4ll 50.0%  (then dunkel 50.0%)\n", "")


def test_a_reader_that_has_seen_enough_ends_it_without_a_traceback() -> None:
    put("1.png")
    reader, writer = os.pipe()
    os.close(reader)
    with command("1.png", stdout=writer) as process:
        os.close(writer)
        assert process.communicate()[1] == ""
    assert process.returncode == -signal.SIGPIPE


def test_serving_imports_no_torch() -> None:
    code = "import sys, serving.predict; sys.exit(str({'torch', 'prefect', 'dvc', 'pydantic'} & set(sys.modules)))"
    answer = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert answer.stderr.strip() == "set()"


@pytest.fixture
def signals() -> Iterator[None]:
    """Put back what the command does with signals, as its process would end here."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("how", ["options", "environment"])
def test_a_folder_becomes_a_table(
    how: str, signals: None, run_predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    put("-photos/1.png", "-photos/a b.png")
    Path("-photos/2.png").touch()
    options, environment = ["--folder=-photos", "--out=labels.csv"], {"FOLDER": "-photos", "OUT": "labels.csv"}
    code, printed, errors = run_predict(*options) if how == "options" else run_predict(**environment)
    assert code == 0, "as the table is there, and names the bad one"
    assert printed == ["labels.csv"]
    assert errors == ["predict: looking through -photos", "predict: 3 images"]
    assert len(Path("labels.csv").read_text().splitlines()) == 4


def test_what_hinders_a_folder_is_one_sentence(signals: None, run_predict: Predict) -> None:
    put("photos/1.png")
    Path("labels.csv").touch()
    with pytest.raises(SystemExit, match=r"^predict: labels.csv exists already; remove it, or name another OUT$"):
        run_predict("--folder=photos", "--out=labels.csv")
    with pytest.raises(SystemExit, match=r"^predict: \\x1b: No such file or directory$"):
        run_predict("--folder=\x1b", "--out=new.csv")


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (
            ["--folder=photos"],
            {},
            "a folder and a table belong together: make predict FOLDER=photos OUT=labels.parquet",
        ),
        ([], {"OUT": "x.csv"}, "a folder and a table belong together: make predict FOLDER=photos OUT=labels.parquet"),
        (
            ["--folder=photos", "--out=x.csv", "1.png"],
            {},
            "either images or a folder: --folder takes all that are in one",
        ),
        (["--folder=photos", "--out=x.csv", "--threads=0"], {}, "argument --threads: '0' is no number from 1 on"),
        (
            [],
            {"FOLDER": "photos", "OUT": "x.csv", "IMAGE": "1.png"},
            "either images or a folder: --folder takes all that are in one",
        ),
    ],
)
def test_a_folder_that_is_asked_for_in_a_wrong_way_is_refused(
    arguments: list[str],
    environment: dict[str, str],
    reason: str,
    run_predict: Predict,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_predict(*arguments, **environment)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {reason}\n")


def test_the_command_line_comes_before_the_environment_for_a_folder_too(signals: None, run_predict: Predict) -> None:
    put("1.png", "photos/2.png")
    assert run_predict("1.png", FOLDER="photos", OUT="labels.csv") == (0, ["1.png"], [])
    assert not Path("labels.csv").exists()
    assert run_predict("--folder=photos", "--out=new.csv", IMAGE="1.png")[0] == 0
    assert Path("new.csv").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_how_to_go_on(
    number: signal.Signals, signals: None, run_predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("photos/1.png")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", lambda *_: signal.raise_signal(number))
        code, _, errors = run_predict("--folder=photos", "--out=labels.csv")
    assert code == 128 + number
    assert errors[-1] == f"predict: stopped by {number.name}; the same command goes on"
    assert signal.getsignal(number) == signal.SIG_DFL, "so that a second one ends it at once"
    assert run_predict("--folder=photos", "--out=labels.csv")[0] == 0


def test_the_champion_answers_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = served.model(metadata=served.METADATA | {"class_names": '["champion", "also"]'}).SerializeToString()
    digest = hashlib.sha256(content).hexdigest()
    (Path("registry") / digest).mkdir(parents=True)
    (Path("registry") / digest / "model.onnx").write_bytes(content)
    pointer = {"schema_version": 1, "path": f"{digest}/model.onnx", "sha256": digest, "size": len(content), "number": 1}
    Path("registry/champion.json").write_text(json.dumps(pointer))
    put("1.png")
    monkeypatch.setenv("REGISTRY", "registry")
    monkeypatch.setattr(sys, "argv", ["predict", "1.png"])
    with pytest.raises(SystemExit, match=r"^predict: models/model.onnx does not exist"):
        predict.main()
    monkeypatch.setenv("MODEL", "champion")
    assert predict.main() == 0
    assert "champion" in capsys.readouterr().out
    (Path("registry") / digest / "model.onnx").write_bytes(b"x" + content[1:])
    with pytest.raises(SystemExit, match=r"^predict: the champion .* has other bytes than those that were promoted"):
        predict.main()
