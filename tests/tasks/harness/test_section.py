"""A section of params.yaml: read alone, and refused with the name of what is wrong and what would be right."""

from pathlib import Path

import pytest

from tasks.harness import section
from tasks.harness.errors import ParamsError
from tasks.harness.section import PARAMS, Section
from tasks.params.download import Download
from tasks.params.train import Train
from tests.support.params import write_params


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    pass


def change(old: str, new: str) -> None:
    text = PARAMS.read_text()
    assert old in text
    PARAMS.write_text(text.replace(old, new))


def test_a_section_is_read_whatever_is_wrong_with_the_others() -> None:
    expected = write_params(train={"epochs": 7}).train
    change("pictures: 4", "pictures: none")
    change("dataset: fashion_mnist", "dataset: mnits")
    assert section.load(Train) == expected
    with pytest.raises(ParamsError, match=r"^params.yaml is refused:\n  download\.dataset = 'mnits': should be one of"):
        section.load(Download)


def test_a_value_is_refused_by_its_whole_name() -> None:
    change("epochs: 2", "epochs: many")
    with pytest.raises(ParamsError, match=r"^params.yaml is refused:\n  train\.epochs = 'many': .* valid integer"):
        section.load(Train)


def test_an_unknown_key_is_refused_with_those_that_are_known_beside_it() -> None:
    change("header: true", "heading: true")
    with pytest.raises(ParamsError) as refused:
        section.load(Download)
    assert str(refused.value).splitlines() == [
        "params.yaml is refused:",
        "  download.csv.header: missing",
        "  download.csv.heading: unknown key; known here: file, header, image, label, split",
    ]


@pytest.mark.parametrize(("text", "value"), [("", None), ("- train", None), ("train:", None), ("train: 3", 3)])
def test_a_section_that_is_no_mapping_is_refused(text: str, value: object) -> None:
    PARAMS.write_text(text)
    with pytest.raises(ParamsError, match=rf"^params.yaml is refused:\n  train = {value}: "):
        section.load(Train)


def test_bytes_that_are_no_text_are_refused() -> None:
    PARAMS.write_bytes(b"train: caf\xe9")
    with pytest.raises(ParamsError, match=r"^params.yaml is not valid YAML: 'utf-8' codec"):
        section.load(Train)


def test_a_file_that_cannot_be_read_as_yaml_is_refused() -> None:
    PARAMS.write_text(f"train: {'[' * 20_000}{']' * 20_000}")
    with pytest.raises(ParamsError, match=r"^params.yaml is refused:\n  train = \[\[\[\.\.\.\]\]\]: "):
        section.load(Train)
    PARAMS.write_text(f"train: {'9' * 5000}")
    with pytest.raises(ParamsError, match=r"^params.yaml is not valid YAML: .* limit"):
        section.load(Train)


def test_what_an_alias_stands_for_is_not_written_out() -> None:
    levels = "\n".join(f"l{n + 1}: &l{n + 1} [{', '.join([f'*l{n}'] * 9)}]" for n in range(9))
    change("epochs: 2", "epochs: *l9")
    PARAMS.write_text(f"l0: &l0 lol\n{levels}\n{PARAMS.read_text()}")
    with pytest.raises(ParamsError) as refused:
        section.load(Train)
    assert "train.epochs = [[[...], " in str(refused.value)
    assert len(str(refused.value)) < 250


def test_a_missing_file_says_where_to_be() -> None:
    PARAMS.unlink()
    with pytest.raises(ParamsError, match="run from the project's folder"):
        section.load(Train)


def test_a_section_is_frozen() -> None:
    assert Section.model_config["frozen"]
    with pytest.raises(ValueError, match="frozen"):
        section.load(Train).epochs = 3
