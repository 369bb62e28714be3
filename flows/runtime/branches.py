"""What a night came to, as a branch of its own in the person's repository: nothing is merged, nothing is forced."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.promotion.history import DIGITS
from flows.runtime.clone import Clone, git
from tasks.harness.errors import StageError

PREFIX = "retraining/"
NAME = re.compile(rf"{PREFIX}\d{{8}}T\d{{6}}Z-[0-9a-f]{{{DIGITS}}}")  # and nobody else's in that folder
KEPT = ("dvc.lock", "params.yaml", "reports/metrics.json")  # of a run, what git keeps
REFUSED = "Refused"


def keep(clone: Clone, home: Path, outcome: str, model: str) -> str | None:
    """Commit what a run has changed in its clone, and bring it to the repository of `home` as a branch.

    Args:
        outcome: the first word of the commit's subject.
        model: the SHA-256 of what it made.

    Returns:
        The name of the branch; None: nothing has changed, or there is one of that outcome.
    """
    version = model[:DIGITS]
    subjects = git(home, "for-each-ref", "--format=%(subject)", f"refs/heads/{PREFIX}*-{version}")
    if any(line.startswith(f"{outcome}:") for line in subjects.splitlines()):
        return None
    there = [name for name in KEPT if (clone.folder / name).exists()]
    git(clone.folder, "add", "--", *there)
    if not git(clone.folder, "diff", "--cached", "--name-only"):
        return None
    branch = f"{PREFIX}{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{version}"
    git(clone.folder, "commit", "--quiet", "--no-verify", "-m", f"{outcome}: model {version} of a night [skip ci]")
    clone.bring(home, f"HEAD:refs/heads/{branch}")
    return branch


def remote(home: Path) -> str | None:
    """Return the remote that nights push to, origin or the only one there is; None: there is none."""
    remotes = git(home, "remote").split()
    return "origin" if "origin" in remotes else remotes[0] if len(remotes) == 1 else None


def push(home: Path) -> str | None:
    """Create at the remote the branches of nights that were not pushed yet, which earlier ones may have failed to do.

    Each that is there has the remote as its upstream from then on, so that one which a person removes there stays away.

    Returns:
        What was done; None: nothing was to do, or there is no remote.

    Raises:
        StageError: that failed.
    """
    there = git(home, "for-each-ref", "--format=%(refname:lstrip=2)", f"refs/heads/{PREFIX}").splitlines()
    configured = set(git(home, "config", "--null", "--name-only", "--list").split("\0"))
    new = [branch for branch in there if NAME.fullmatch(branch) and f"branch.{branch}.remote" not in configured]
    name = remote(home)
    if not new or name is None:
        return None
    quietly = ("--quiet", "--no-verify", "--no-follow-tags", "--set-upstream")
    git(home, "push", *quietly, name, *(f"refs/heads/{branch}:refs/heads/{branch}" for branch in new))
    return f"{'1 branch' if len(new) == 1 else f'{len(new)} branches'} pushed to {name}"


def prune(home: Path, keep_days: int) -> list[str]:
    """Remove the branches of nights that were refused so many days ago, and return their names."""
    form = "--format=%(refname:lstrip=2) %(committerdate:unix) %(subject)"
    before = (datetime.now(UTC) - timedelta(days=keep_days)).timestamp()
    removed = []
    for line in git(home, "for-each-ref", form, f"refs/heads/{PREFIX}").splitlines():
        branch, seconds, subject = line.split(" ", 2)
        if subject.startswith(f"{REFUSED}:") and int(seconds) < before:
            try:
                git(home, "branch", "--quiet", "-D", "--", branch)
            except StageError:  # somebody has it checked out
                continue
            removed.append(branch)
    return removed
