"""What is in service, as tags of git: `dvc artifacts get URL classifier-onnx --stage prod` brings that model.

classifier-onnx@v42.0.0   the model that entry 42 of the history was the first to put into service
classifier-onnx#prod#43   from entry 43 on it is the one in service

So GTO names them, by whose names and dates DVC goes: https://dvc.org/doc/gto/user-guide. They are a copy, which nothing
here reads back: the history says what is in service. A tag is on a commit whose dvc.lock has the model, or is not made.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from itertools import accumulate
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.promotion import history, shared
from flows.promotion.history import Entry
from flows.promotion.remote import configured
from flows.runtime import branches, night
from flows.runtime.clone import git
from flows.runtime.dvc_files import LOCK
from serving.probe import MODEL
from tasks.harness import section
from tasks.harness.errors import ParamsError, StageError
from tasks.params.retraining import Retraining

ARTIFACT, PATH = "classifier-onnx", "models/model.onnx"  # as dvc.yaml has them
STAGE = "prod"


def mirror(root: Path) -> str | None:
    """Tag what is in service, here and at git's remote, if `retraining.git_tags` asks for it.

    Returns:
        What a person is to know of it; None: nothing. A tag that cannot be made leaves in service what is.
    """
    try:
        entries = history.read(root) if section.load(Retraining).git_tags else []
        made = _mirror(root, entries) if entries else []
    except (ParamsError, StageError, OSError) as error:
        return f"not tagged, and --stage {STAGE} of dvc artifacts get may be an earlier model: {error}"
    return f"tagged {' and '.join(made)}" if made else None


def _mirror(root: Path, entries: list[Entry]) -> list[str]:
    """Make the tags of the last entry that are missing, here or at the remote, and return their names."""
    home, last = night.home(), entries[-1]
    first = next(entry for entry in entries if entry.model == last.model)
    folder = git(home, "rev-parse", "--show-prefix").rstrip("/\n")
    name = f"{folder}={ARTIFACT}" if folder else ARTIFACT
    version, stage = f"{name}@v{first.number}.0.0", f"{name}#{STAGE}#{last.number}"

    remote = branches.remote(home)
    there = _at(home, remote, version, stage) if remote else []
    here = git(home, "for-each-ref", "--format=%(refname:lstrip=2)", *map(_ref, (version, stage))).splitlines()
    if missing := [tag for tag in there if tag not in here]:
        git(home, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(remote), *map(_same, missing))
        here += missing
    model = shared.folder(root, last) / MODEL
    md5 = _md5(model)
    commit = _commit(home, last, here, md5)
    if new := [tag for tag in (version, stage) if tag not in here]:
        _offer(model, md5)
        for tag in new:
            _make(home, tag, commit, *((first, entries[: first.number]) if tag == version else (last, entries)))
    if remote and (unpushed := [tag for tag in (version, stage) if tag not in there]):
        git(home, "push", "--quiet", "--no-verify", "--no-follow-tags", remote, *map(_same, unpushed))
        return unpushed
    return new


def _ref(tag: str) -> str:
    return f"refs/tags/{tag}"


def _same(tag: str) -> str:
    """Name a tag that is to be the same there and here."""
    return f"{_ref(tag)}:{_ref(tag)}"


def _at(home: Path, remote: str, *tags: str) -> list[str]:
    """Return those of the tags that the remote has."""
    lines = git(home, "ls-remote", "--refs", "--", remote, *map(_ref, tags)).splitlines()
    return [line.partition("\trefs/tags/")[2] for line in lines]


def _commit(home: Path, entry: Entry, tags: list[str], md5: str) -> str:
    """Return the commit that the model of an entry is at: that of tags which are there, of a night's branch, or HEAD.

    Raises:
        StageError: a tag leads to another model, or no commit has this one.
    """
    for tag in tags:
        if not _leads(home, _ref(tag), md5):
            raise StageError(f"the tag {tag} is there already, on a commit whose {LOCK} has another {PATH}")
    branch = f"refs/heads/{branches.PREFIX}*-{entry.version}"
    nights = git(home, "for-each-ref", "--sort=-committerdate", "--format=%(objectname)", branch).split()
    for commit in (*map(_ref, tags), *nights, "HEAD"):
        if _leads(home, commit, md5):
            return git(home, "rev-parse", f"{commit}^{{commit}}").strip()
    raise StageError(
        f"neither HEAD nor a branch of a night has {entry.version} in its {LOCK}: commit it, and make promote once more"
    )


def _leads(home: Path, commit: str, md5: str) -> bool:
    """Tell whether DVC would bring, for the artifact at a commit, a file of this MD5 sum."""
    try:
        lock = YAML(typ="safe").load(git(home, "show", f"{commit}:./{LOCK}"))
        outs = [out for stage in lock["stages"].values() for out in stage.get("outs", ())]
        return any((out["path"], out["md5"]) == (PATH, md5) for out in outs)
    except (StageError, YAMLError, ValueError, TypeError, AttributeError, KeyError):  # there is no lock of DVC's
        return False


def _md5(path: Path) -> str:
    """Return the sum by which DVC knows a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _offer(model: Path, md5: str) -> None:
    """Have DVC's default remote, where there is one, hold the model as DVC asks for it there.

    Raises:
        StageError: it does not take it.
    """
    if not (remote := configured()):
        return
    from dvc.repo import Repo  # half a second

    try:
        with Repo(str(night.home())) as repo:
            repo.cloud.get_remote_odb().add(str(model), repo.fs, md5)
    except Exception as error:  # each kind of remote has classes of its own
        raise StageError(f"{remote} does not take the model as DVC keeps it: {error}") from None


def _make(home: Path, tag: str, commit: str, entry: Entry, entries: Iterable[Entry]) -> None:
    """Tag a commit in the name and at the time of an entry, the last of `entries`: the latest is the one in service.

    The clocks of machines differ, and so a tag is a second later than that of the entry before it, at least.
    """
    times = (int(datetime.fromisoformat(one.time).timestamp()) for one in entries)
    *_, seconds = accumulate(times, lambda before, time: max(before + 1, time))
    tagger = {
        "GIT_COMMITTER_NAME": entry.by,
        "GIT_COMMITTER_EMAIL": "nobody@localhost",
        "GIT_COMMITTER_DATE": f"@{seconds} +0000",
    }
    git(home, "tag", "--no-sign", "--cleanup=verbatim", "-a", "-m", entry.line, tag, commit, **tagger)
