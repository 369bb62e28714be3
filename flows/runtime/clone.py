"""A checkout of a run's own, in which it may change what it likes while the person's tree stays as it is.

It is a clone that borrows git's objects and shares DVC's cache, so that what was downloaded, prepared and trained once
is linked from there; so are images and weights which git does not track.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from configobj import ConfigObj

from tasks.data.datasets import DATASETS
from tasks.harness.code import PACKAGES
from tasks.harness.errors import StageError, shown
from tasks.params.whole import Params

NOT_YET_TRACKED = ("--others", "--exclude-standard", "--", *PACKAGES)  # modules that a trial may be about
LIMIT_S = 600  # for a command of git
GONE_WITHIN_S = 15.0  # what a run that was killed has left running


@dataclass(frozen=True)
class Clone:
    """`git` is its root, `folder` the project in it."""

    git: Path
    folder: Path

    def bring(self, home: Path, ref: str) -> None:
        """Fetch a ref, `from:to`, from here into the repository of `home`.

        Raises:
            StageError: that failed.
        """
        quietly = ("--quiet", "--no-tags", "--no-write-fetch-head")
        git(home, "fetch", *quietly, str(self.git.absolute()), ref)


def make(place: Path, cache: Path, what: str, edits: bool) -> Clone:
    """Make a checkout at `place`, where an earlier one may be.

    Args:
        cache: a folder that becomes its .cache/ and outlives it: checkpoints, logs.
        what: it is for, in messages and as the author of commits.
        edits: bring it to what the person's tree is, else it is what was committed.

    Raises:
        StageError: there is no commit.
    """
    head, prefix = revision(what)
    remove(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    common = git(Path(), "rev-parse", "--path-format=absolute", "--git-common-dir").rstrip("\n")
    options = ("--quiet", "--shared", "--no-checkout", "--template=", "-c", "core.hooksPath=/dev/null")
    git(Path(), "clone", *options, "--", common, str(place))
    git(place, "checkout", "--quiet", "--detach", head)
    for key, otherwise in (("user.name", what), ("user.email", "nobody@localhost")):
        git(place, "config", key, git(Path(), "config", "--default", otherwise, key).rstrip("\n"))
    git(place, "config", "commit.gpgsign", "false")  # nobody is there to enter a passphrase
    folder = place / prefix
    if edits:
        _copy(folder)
    private = Path(".dvc/config.local")
    if private.exists() and (folder / ".dvc").is_dir():
        shutil.copy2(private, folder / private)
    if not (folder / ".dvc").is_dir():
        raise StageError(
            f"{what} needs the project in git, and what is committed has no .dvc/ here: git add and commit it"
        )
    cache.mkdir(parents=True, exist_ok=True)
    (folder / ".cache").symlink_to(cache.absolute())
    _configure_dvc(folder)
    return Clone(place, folder)


def remove(folder: Path) -> None:
    """Remove a folder, in which something that was killed may be writing its last; links are not followed."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=time.monotonic() < deadline)
        if folder.exists():
            time.sleep(0.1)


def revision(what: str) -> tuple[str, str]:
    """Return the commit that the person's tree is at, and where in the repository the project is.

    Raises:
        StageError: there is no git, or no commit.
    """
    try:
        head, prefix = (
            git(Path(), "rev-parse", *word).rstrip("\n") for word in (["--verify", "HEAD"], ["--show-prefix"])
        )
    except (StageError, FileNotFoundError):
        raise StageError(
            f"{what} needs the project in a git repository with a commit: git init, git add, git commit"
        ) from None
    return head, prefix


def git(folder: Path, *words: str, **variables: str) -> str:
    """Run git in a folder, and return what it prints. It takes no lock that it can do without, and asks for nothing.

    Args:
        variables: of the environment.

    Raises:
        StageError: it failed, or took too long.
    """
    command = ("git", "--no-optional-locks", "-c", "gc.auto=0", "-c", "maintenance.auto=false", *words)
    silent = {"GIT_TERMINAL_PROMPT": "0", "SSH_ASKPASS_REQUIRE": "never"}
    try:
        answer = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **silent, **variables},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # without a terminal, where ssh would ask
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StageError(f"git {words[0]} took longer than {LIMIT_S} s") from None
    if answer.returncode:
        raise StageError(f"git {words[0]} failed: {answer.stderr.strip()}")
    return answer.stdout


def listed(*words: str, folder: Path = Path()) -> list[str]:
    """Return the names that git ls-files gives."""
    return [name for name in git(folder, "ls-files", "-z", *words).split("\0") if name]


def _copy(folder: Path) -> None:
    """Bring what git tracks, and modules that it does not track yet, to what they are in the person's tree."""
    for name in (*listed("--cached"), *listed(*NOT_YET_TRACKED)):
        source, place = Path(name), folder / name
        if source.is_dir() and not source.is_symlink():
            continue  # a submodule
        place.unlink(missing_ok=True)
        if source.is_symlink() or source.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place, follow_symlinks=False)


def link(paths: Iterable[str], home: Path, folder: Path, what: str) -> None:
    """Link images and weights of the project at `home`, which git need not track, into its checkout at `folder`.

    Raises:
        StageError: a path leads out of the project.
    """
    for path in map(Path, paths):
        if path.is_absolute():
            continue
        if ".." in Path(os.path.normpath(path)).parts:
            where = (home / path).resolve()
            raise StageError(f"{shown(str(path))} leads out of the project: {what} needs it from /, as {where}")
        for name in _not_there(path, home, folder):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to((home / name).absolute())


def own(params: Params, weights: Iterable[str | None]) -> list[str]:
    """List the paths that a checkout may need of what git need not track: images of one's own, and weights."""
    images = [params.download.path] if DATASETS[params.download.dataset].format == "files" else []
    return images + [path for path in weights if path not in (None, "hub")]


def name_mirror_from_root() -> None:
    """Name the folder in DATA_MIRROR from /, for stages that run in a checkout elsewhere."""
    if (mirror := os.environ.get("DATA_MIRROR")) and "://" not in mirror:
        os.environ["DATA_MIRROR"] = str(Path(mirror).absolute())


def _not_there(path: Path, home: Path, folder: Path) -> list[str]:
    """Name what git does not track: the whole of it, or of a folder in which it tracks some the rest, file by file."""
    if not os.path.lexists(folder / path):
        return [str(path)] if (home / path).exists() else []  # who reads it says that it is not there
    return listed("--others", "--", str(path), folder=home) if (home / path).is_dir() else []


def _configure_dvc(folder: Path) -> None:
    """Share the cache of the person's project, and keep DVC's notes about the checkout in it.

    In UTF-8, as DVC reads it: `dvc config` writes ASCII alone, and fails where a folder's name has more.
    """
    asked = subprocess.run((sys.executable, "-m", "dvc", "cache", "dir"), capture_output=True, text=True, check=False)
    if asked.returncode:
        raise StageError(f"dvc cache dir failed: {asked.stderr.strip()}")
    notes = {"site_cache_dir": str(folder.absolute() / ".dvc/tmp/site")}
    config = ConfigObj({"cache": {"dir": asked.stdout.rstrip("\n")}, "core": notes}, encoding="utf-8")
    with (folder / ".dvc/config.local").open("wb") as file:
        config.write(file)
