"""The serving gate: does the model answer where it will be served, without PyTorch, quickly and in little memory?

A fresh process loads it. That process sees the packages that requirements-serving.txt names, in the versions that are
installed here, the package `serving`, and nothing else; its folder holds the model and the golden requests alone.
"""

import base64
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from packaging.requirements import Requirement
from pydantic import TypeAdapter

from serving.probe import GOLDEN, MODEL, Probe
from tasks.gates.verdict import Figure, Verdict
from tasks.harness.code import ROOT
from tasks.harness.records import write_json
from tasks.params.retraining import Retraining
from tasks.prepared import Images, Labels

LOCK = ROOT / "requirements-serving.txt"
LIMIT_S = 120
MOST = 20  # golden requests
MOST_BYTES = 16 * 2**20  # of their pixels
# Isolated (-I) and without site-packages (-S): what is imported is in Python itself, or in the folder that is named.
START = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('serving.probe', run_name='__main__')"


def golden(images: Images, labels: Labels, answered: Labels, class_names: list[str]) -> dict[str, Any]:
    """Choose test images that any copy of the model has to know: the first of each class that it answers rightly.

    Args:
        images: `uint8 [N, H, W, C]`; `labels` and `answered`, by the model, are `int64 [N]`.
    """
    most = max(1, min(MOST, MOST_BYTES // images[0].nbytes))
    right = np.flatnonzero(labels == answered)
    of_class = [right[labels[right] == label] for label in range(len(class_names))]
    in_turn = [members[rank] for rank in range(most) for members in of_class if rank < len(members)]
    chosen = [int(index) for index in in_turn[:most]] or [0]
    return {
        "image_shape": list(images.shape[1:]),
        "requests": [
            {
                "test_image": index,
                "label": int(answered[index]),
                "class": class_names[answered[index]],
                "pixels": base64.b64encode(images[index].tobytes()).decode(),
            }
            for index in chosen
        ],
    }


def gate(model: bytes, requests: dict[str, Any], provider: str, params: Retraining) -> Verdict:
    """Try the model."""
    with tempfile.TemporaryDirectory() as scratch:
        packages, folder = Path(scratch, "packages"), Path(scratch, "model")
        packages.mkdir()
        folder.mkdir()
        (folder / MODEL).write_bytes(model)
        write_json(folder / GOLDEN, requests)
        if missing := _link_packages(packages):
            return Verdict("serving", "not run", [f"{LOCK.name}: {'; '.join(missing)}"])
        words = (sys.executable, "-I", "-S", "-c", START, str(packages), str(folder), provider)
        try:
            answer = subprocess.run(
                words, cwd=folder, env={}, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return Verdict("serving", "failed", [f"no answer within {LIMIT_S} s"])
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or [f"ended with {answer.returncode}"])[-1]
        return Verdict("serving", "failed", [f"it does not run where it will be served: {last}"])
    return judge(
        TypeAdapter(Probe).validate_json(answer.stdout), [one["label"] for one in requests["requests"]], params
    )


def judge(found: Probe, expected: list[int], params: Retraining) -> Verdict:
    """Judge what came of it.

    Args:
        expected: the labels of the golden requests.
    """
    reasons = [f"{name} can be imported where it is served, so that this proves nothing" for name in found.found]
    for how, labels in (("alone", found.labels), ("together", found.together)):
        if wrong := sum(a != b for a, b in zip(labels, expected, strict=True)):
            reasons.append(f"{wrong} of {len(expected)} golden requests, sent {how}, get another answer")
    if found.latency_ms > params.max_latency_ms:
        reasons.append(
            f"an answer takes {found.latency_ms:.3g} ms, retraining.max_latency_ms is {params.max_latency_ms:g}"
        )
    if found.memory_mb > params.max_memory_mb:
        reasons.append(f"it takes {found.memory_mb:.0f} MB, retraining.max_memory_mb is {params.max_memory_mb:g}")
    figures: dict[str, Figure] = {
        "golden requests": len(expected),
        "ms an answer": found.latency_ms,
        "MB": found.memory_mb,
        "slowest answer, ms": found.slowest_ms,
    }
    return Verdict("serving", "failed" if reasons else "passed", reasons, figures)


def _link_packages(folder: Path) -> list[str]:
    """Link what the lock names into a folder; return why that cannot be done."""
    missing = []
    for requirement in _locked():
        try:
            installed = distribution(requirement.name)
        except PackageNotFoundError:
            missing.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(installed.version, prereleases=True):
            missing.append(f"{requirement.name} {installed.version} is installed, not {requirement.specifier}")
        for name in _top_level(installed):
            (folder / name).symlink_to(Path(str(installed.locate_file(name))))
    (folder / "serving").symlink_to(ROOT / "serving")
    return missing


def _locked() -> Iterator[Requirement]:
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"[A-Za-z0-9][^#\\]*==[^#\\]*", line):
            requirement = Requirement(found[0].strip())
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def _top_level(installed: Distribution) -> set[str]:
    names = {file.parts[0] for file in installed.files or ()}
    return {name for name in names if name not in ("..", "__pycache__")}
