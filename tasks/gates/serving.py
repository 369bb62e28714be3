"""The serving gate: does the model answer where it will be served, without PyTorch, quickly and in little memory?

A fresh process loads it. That process sees the packages that requirements-serving.txt names, in the versions that are
installed here, the package `serving`, and nothing else; its folder holds the model and the golden requests alone.
"""

import base64
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
from packaging.requirements import Requirement
from pydantic import TypeAdapter

from serving.probe import GOLDEN, MODEL, Probe
from tasks.gates.quality import Answers
from tasks.gates.verdict import Figure, Verdict
from tasks.harness.code import ROOT
from tasks.harness.records import write_json
from tasks.params.retraining import Retraining
from tasks.prepared import Images

LOCK = ROOT / "requirements-serving.txt"
LIMIT_S = 120
MOST = 20  # golden requests
CLOSE = 0.01  # two probabilities, to be told apart on any processor
MOST_BYTES = 16 * 2**20  # of their pixels
ISOLATED = ("-I", "-S")  # nothing of the environment, no site-packages: what there is is Python's, or in the folder
START = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('serving.probe', run_name='__main__')"


def golden(images: Images, answers: Answers, class_names: list[str]) -> dict[str, Any]:
    """Choose test images that any copy of the model has to know: the first of each class that it answers rightly.

    None is chosen whose answer is so close that another processor may give another one; of a model that knows none of
    the images, its answer to the first one is what is expected.

    Args:
        images: `uint8 [N, H, W, C]`, with the answers of the model to them.
    """
    most = max(1, min(MOST, MOST_BYTES // images[0].nbytes))
    second, first = np.sort(answers.probabilities, axis=1)[:, -2:].T if len(class_names) > 1 else (0, 1)
    right = np.flatnonzero(answers.right & (first - second > CLOSE))
    answered = answers.probabilities.argmax(1)
    of_class = [right[answers.labels[right] == label] for label in range(len(class_names))]
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


def gate(model: bytes, requests: dict[str, Any], provider: str, limits: Retraining | None) -> Verdict:
    """Try the model.

    Args:
        limits: of time and memory; None: any, so that a busy machine does not keep a model from being put back.
    """
    with tempfile.TemporaryDirectory() as scratch:
        packages, folder = Path(scratch, "packages"), Path(scratch, "model")
        packages.mkdir()
        folder.mkdir()
        (folder / MODEL).write_bytes(model)
        write_json(folder / GOLDEN, requests)
        if missing := _link_packages(packages):
            return Verdict("serving", "not run", [f"{LOCK.name}: {'; '.join(missing)}"])
        words = (sys.executable, *ISOLATED, "-c", START, str(packages), str(folder), provider)
        try:
            answer = subprocess.run(
                words, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return Verdict("serving", "failed", [f"no answer within {LIMIT_S} s"])
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or [f"ended with {answer.returncode}"])[-1]
        return Verdict("serving", "failed", [f"it does not run where it will be served: {last}"])
    expected = [one["label"] for one in requests["requests"]]
    return judge(TypeAdapter(Probe).validate_json(answer.stdout), expected, limits)


def judge(found: Probe, expected: list[int], limits: Retraining | None) -> Verdict:
    """Judge what came of it.

    Args:
        expected: the labels of the golden requests.
        limits: see `gate`.
    """
    reasons = [f"{name} can be imported where it is served, so that this proves nothing" for name in found.found]
    for how, labels in (("alone", found.labels), ("together", found.together)):
        if wrong := sum(a != b for a, b in zip(labels, expected, strict=True)):
            reasons.append(f"{wrong} of {len(expected)} golden requests, sent {how}, get another answer")
    if limits and found.latency_ms > limits.max_latency_ms:
        reasons.append(
            f"an answer takes {found.latency_ms:.3g} ms, retraining.max_latency_ms is {limits.max_latency_ms:g}"
        )
    if limits and found.memory_mb > limits.max_memory_mb:
        reasons.append(f"it takes {found.memory_mb:.0f} MB, retraining.max_memory_mb is {limits.max_memory_mb:g}")
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
            # ONNX Runtime for an accelerator is another distribution of the same package, with a version of its own.
            others = packages_distributions().get(requirement.name, [])
            if not others:
                missing.append(f"{requirement.name} is not installed")
                continue
            requirement, installed = Requirement(requirement.name), distribution(others[0])
        if not requirement.specifier.contains(installed.version, prereleases=True):
            missing.append(f"{requirement.name} {installed.version} is installed, not {requirement.specifier}")
        for name in _top_level(installed):
            if not (folder / name).exists():  # it may be of several distributions, as arro3 is of its core and io
                (folder / name).symlink_to(Path(str(installed.locate_file(name))))
    (folder / "serving").symlink_to(ROOT / "serving")
    return missing


def _environment() -> dict[str, str]:
    """Return what the process needs to find an accelerator's libraries, and nothing else."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES") if name in os.environ}


def _locked() -> Iterator[Requirement]:
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"[A-Za-z0-9][^#\\]*==[^#\\]*", line):
            requirement = Requirement(found[0].strip())
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def _top_level(installed: Distribution) -> set[str]:
    names = {file.parts[0] for file in installed.files or ()}
    return {name for name in names if name not in ("..", "__pycache__")}
