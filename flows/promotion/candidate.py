"""A model that may go into service: what lies in models/, or one that has been in service before."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from flows.promotion import shared, store
from flows.promotion.history import AGAIN, DIGITS, Entry
from flows.promotion.judgement import Judgement
from serving.probe import MODEL
from tasks.dvc import stale
from tasks.gates.drift import Digests
from tasks.gates.parity import REPORT
from tasks.gates.verdict import Verdict
from tasks.harness.errors import StageError
from tasks.harness.records import read_record
from tasks.prepared import Split

MODELS = Path("models")
FILES = ("model.onnx", "model.pth", "model.json")


@dataclass(frozen=True)
class Candidate:
    """A model, and what its parity gate said."""

    digest: str  # SHA-256 of model.onnx
    files: Mapping[str, bytes]  # those that a run leaves, by name
    parity: Verdict
    training_digests: Callable[[], Digests]  # of the images that it was trained on

    @property
    def version(self) -> str:
        return self.digest[:DIGITS]

    @property
    def onnx(self) -> bytes:
        return self.files[MODEL]


def of_models() -> Candidate:
    """Take what the last run left.

    Raises:
        StageError: there is none, or it is not what the parameters, the data and the code would make now, so that its
            parity report and the test images may belong to another model.
    """
    if changed := stale():
        raise StageError(f"models/ is out of date: {changed[0]} and what follows it would run again; make run first")
    try:
        files = {name: (MODELS / name).read_bytes() for name in FILES}
    except OSError as error:
        raise StageError(f"{error.filename} cannot be read: {error.strerror}; make run first") from None
    parity = Verdict.read(Path(REPORT)) or Verdict("parity", "not run", [f"{REPORT} holds no verdict"])
    digest = sha256(files[MODEL]).hexdigest()
    return Candidate(digest, files, parity, lambda: store.digests(Split.read("train").images))


def of_registry(root: Path, entry: Entry) -> Candidate:
    """Take a model that has been in service; its test images are those of now.

    Raises:
        StageError: its files are not what they were; or the prepared data are not what the parameters ask for.
    """
    folder = shared.folder(root, entry)
    if changed := [stage for stage in stale() if stage in ("download", "transform")]:
        raise StageError(f"data/prepared is out of date: {changed[0]} would run again; make run first")
    judged = read_record(folder / store.VERDICT, Judgement, AGAIN)
    files = {name: (folder / name).read_bytes() for name in FILES}
    parity = judged.blessing("parity")
    return Candidate(entry.model, files, parity, lambda: store.read_reference(folder).digests)
