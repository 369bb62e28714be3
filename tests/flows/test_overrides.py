"""-S key=value: what it makes of params.yaml."""

from pathlib import Path

import pytest

from flows import overrides
from tasks.harness.errors import ParamsError
from tasks.harness.section import PARAMS
from tasks.params import whole
from tests.support.params import shipped_params

SHIPPED = shipped_params()


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.epochs=12", "  epochs: 12"),
        ("params.yaml:train.epochs=12", "  epochs: 12"),
        ("train.learning_rate=1e-2", "  learning_rate: 1e-2"),
        ("train.normalize=half", "  normalize: half              # none: pixels"),
        ("train.threads=2", "  threads: 2                   # null: one per physical core"),
        ("export.batch_sizes=[1, 2]", "  batch_sizes: [1, 2]               # every size"),
        ("flow.time_limit_s.train=60", "    train: 60"),
    ],
)
def test_changes_one_line_and_keeps_its_comment(override: str, line: str) -> None:
    text, changes = overrides.apply(SHIPPED, [override])
    changed = [new for old, new in zip(SHIPPED.splitlines(), text.splitlines(), strict=True) if old != new]
    assert len(changed) == len(changes) == 1
    assert changed[0].startswith(line)


def test_null_is_written_as_null() -> None:
    text, _ = overrides.apply(SHIPPED.replace("threads: null", "threads: 2   "), ["train.threads=null"])
    assert text == SHIPPED


def test_a_value_that_is_there_already_changes_nothing() -> None:
    assert overrides.apply(SHIPPED, ["train.epochs=5", "download.dataset=fashion_mnist"]) == (SHIPPED, [])


def test_the_last_override_of_a_key_wins() -> None:
    text, changes = overrides.apply(SHIPPED, ["train.epochs=7", "train.epochs=8"])
    assert "  epochs: 8\n" in text
    assert changes == ["train.epochs: 5 -> 7", "train.epochs: 7 -> 8"]


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("train.epochs", "expected .*key=value"),
        ("=3", "expected .*key=value"),
        ("train.epoch=3", "train.epoch: unknown key; known here: network"),
        ("trian.epochs=3", "trian: unknown key; known here: download, transform"),
        ("other.yaml:train.epochs=3", "other: unknown key"),
        ("train.epochs.more=3", "epochs is a value in params.yaml, not a section"),
        ("train.epochs=1,2", "train.epochs = '1,2': input should be a valid integer"),
        ("train.epochs=", "train.epochs = None"),
        ("train.epochs=[", r"'\[' is not a YAML value"),
        ("train=3", "train = 3"),
        ("train.seed=!x 3", "could not determine a constructor for the tag '!x'"),
        ("train.seed=!!python/name:os.system", "could not determine a constructor"),
        (f"train.epochs={'[' * 5000}{']' * 5000}", "nested too deeply"),
        (f"{'a.' * 5000}b=1", "nested too deeply"),
        (f"train.epochs={'9' * 5000}", "is not a YAML value|is refused"),
        ("train.epochs=2020-99-99", "'2020-99-99' is not a YAML value"),
        ("download.path=models", "download.path = 'models': should be apart from models"),
        ("train.epochs=<<", "could not determine a constructor|train.epochs = '<<'"),
    ],
)
def test_a_refused_override_changes_nothing(workspace: Path, override: str, reason: str) -> None:
    before = PARAMS.read_bytes()
    with pytest.raises(ParamsError, match=reason):
        overrides.write(["train.seed=1", override])
    assert PARAMS.read_bytes() == before
    assert [path.name for path in workspace.iterdir()] == [PARAMS.name]


def test_what_is_said_of_a_long_override_can_be_read(workspace: Path) -> None:
    for override in (f"train.epochs={'x' * 5000}", "x" * 5000, f"{'a.' * 5000}b=1"):
        with pytest.raises(ParamsError) as refused:
            overrides.check([override])
        assert len(str(refused.value)) < 500


def test_all_refused_values_are_reported_at_once() -> None:
    with pytest.raises(ParamsError, match=r"(?s)train\.epochs = 0.*export\.tolerance = 2"):
        overrides.apply(SHIPPED, ["export.tolerance=2", "train.epochs=0"])


def test_write_changes_the_file(workspace: Path) -> None:
    assert overrides.write(["train.seed=5"]) == ["train.seed: 0 -> 5"]
    assert whole.load().train.seed == 5


def test_a_link_stays_one(workspace: Path) -> None:
    shared = workspace / "shared.yaml"
    PARAMS.rename(shared)
    PARAMS.symlink_to(shared)
    overrides.write(["train.seed=5"])
    assert PARAMS.is_symlink()
    assert "seed: 5" in shared.read_text()
