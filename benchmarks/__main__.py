"""Run all benchmarks on real Fashion-MNIST, one process after another, and keep the table in benchmarks/README.md.

Each measurement is taken in turn with what it is compared with, on a clone of the project, of what is committed, in a
temporary folder.

Reads:  DATA_MIRROR (a folder with the archives)
Writes: benchmarks/README.md, between the markers
Run:    python -m benchmarks [ROW]...   (a row: any part of its name; then the table is printed only)
"""

import ast
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import folder as bare_folder
from benchmarks.image_files import make
from flows import overrides, recipes
from flows.runtime import server
from tasks.__main__ import STAGES
from tasks.harness.code import PACKAGES, ROOT
from tasks.model.cores import physical_cores
from tasks.training import precision

SHORT, LONG = 7, 3  # pairs
MANY, FEW = 50_000, 5_000  # image files
README = Path(__file__).with_name("README.md")
TABLE = re.compile(r"(?<=<!-- table -->\n).*(?=<!-- end -->)", re.DOTALL)
PYTHON = sys.executable
TRAIN = (PYTHON, "-m", "tasks", "train")
TRANSFORM = (PYTHON, "-m", "tasks", "transform")
RAW_IMAGES = "data/raw/FashionMNIST/raw/train-images-idx3-ubyte"
RAW_LABELS = "data/raw/FashionMNIST/raw/train-labels-idx1-ubyte"

Pairs = list[tuple[float, float]]  # ours, and what it is compared with


@dataclass(frozen=True)
class Row:
    """One line of the table: a comparison with its bar, which has to be met, and its aim."""

    what: str
    unit: str
    measure: Callable[[Path], Pairs]
    bar: float
    aim: float
    higher_is_better: bool = False
    difference: bool = False  # is compared, in seconds, instead of the ratio

    def values(self, pairs: Pairs) -> list[float]:
        return [ours - other if self.difference else ours / other for ours, other in pairs]

    def meets(self, value: float, limit: float) -> bool:
        return value >= limit if self.higher_is_better else value <= limit


def main() -> None:
    wanted = sys.argv[1:]
    rows = [row for row in ROWS if not wanted or any(word in row.what for word in wanted)]
    mirror = Path(os.environ.get("DATA_MIRROR", "")).resolve()
    if not os.environ.get("DATA_MIRROR") or not (mirror / "fashion_mnist").is_dir():
        sys.exit("bench: DATA_MIRROR has to name a folder that holds fashion_mnist/*.gz: the data is the real one")
    os.environ["DATA_MIRROR"] = str(mirror)
    os.environ["PATH"] = os.pathsep.join((str(Path(PYTHON).parent), os.environ["PATH"]))
    os.environ.pop("PREFECT_API_URL", None)
    lines = []
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFECT_HOME"] = str(Path(folder) / "prefect")
        (Path(folder) / "prefect").mkdir()
        project = clone(Path(folder) / "project")
        run(project, PYTHON, "-m", "flows", "training")  # it fills data/, models/ and Prefect's database
        for row in rows:
            pairs = row.measure(project)
            values = row.values(pairs)
            lines.append(line(row, pairs, values))
            print(lines[-1], flush=True)
            if not row.meets(median(values), row.bar):
                missed.append(f"{row.what}: {median(values):.2f}, the bar is {row.bar:g}")
    table = render(lines)
    if not wanted:
        README.write_text(TABLE.sub(lambda _: table, README.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"\n{table}")
    if missed:
        sys.exit("\n".join(("bench: a bar is missed", *missed)))


def line(row: Row, pairs: Pairs, values: list[float]) -> str:
    """Write a row of the table: medians, and of the comparison the spread from the least to the most, too."""
    ours, others = (median(side) for side in zip(*pairs, strict=True))
    kind = "≥" if row.higher_is_better else "≤"
    unit = " s" if row.difference else ""
    spread = f"**{median(values):.2f}{unit}** ({min(values):.2f} to {max(values):.2f})"
    limits = f"{kind} {row.bar:g}{unit} | {kind} {row.aim:g}{unit}"
    return (
        f"| {row.what} | {amount(ours, row.unit)} | {amount(others, row.unit)} | {spread} | {len(pairs)} | {limits} |"
    )


def amount(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.2f} {unit}" if value else "-"


def render(lines: list[str]) -> str:
    head = "| what | ours | compared with | ratio or difference | n | bar | aim |\n|---|---:|---:|---:|---:|---:|---:|"
    return "\n".join((head, *lines, "", f"Measured on {machine()}.", ""))


def machine() -> str:
    cpu_info = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", cpu_info.read_text()) if cpu_info.exists() else None
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "onnxruntime", "prefect", "dvc"))
    cpu = name[1] if name else platform.machine()
    bits = str(precision.resolve("auto", torch.device("cpu"))).removeprefix("torch.")  # what `auto` comes to
    return f"{os.cpu_count()} cores of {cpu} ({bits}), with Python {platform.python_version()}, {versions}"


def clone(folder: Path, recipe: str = "quickstart") -> Path:
    output(ROOT, "git", "clone", "--quiet", str(ROOT), str(folder))
    with chdir(folder):
        overrides.write(recipes.changes(recipe))
    return folder


def run(project: Path, *words: str) -> float:
    """Run a command in the project and return the seconds that it took."""
    started = time.perf_counter()
    output(project, *words)
    return time.perf_counter() - started


def output(project: Path, *words: str) -> str:
    answer = subprocess.run(
        words, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if answer.returncode:
        sys.exit(f"bench: {' '.join(words)} exited with {answer.returncode}:\n{answer.stdout}")
    return answer.stdout.strip()


def training_loop(project: Path) -> Pairs:
    return _last_line(output(project, PYTHON, "-m", "benchmarks.training_loop", str(SHORT)))


def _last_line(printed: str) -> Pairs:
    return [(ours, other) for ours, other in json.loads(printed.splitlines()[-1])]


def from_archives(project: Path) -> Pairs:
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(LONG):
            fresh = clone(Path(folder) / str(index))
            (fresh / "dvc.lock").unlink()
            ours = run(fresh, PYTHON, "-m", "dvc", "repro")
            pairs.append((ours, run(fresh, PYTHON, "-m", "benchmarks.quickstart", str(project / "data/raw"), folder)))
    return pairs


@contextmanager
def shipped() -> Iterator[Path]:
    """Yield a project as shipped, with its prepared images."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = clone(Path(folder) / "project", "fashion_mnist")
        run(fresh, PYTHON, "-m", "dvc", "repro", "transform")
        yield fresh


def shipped_training(_: Path) -> Pairs:
    with shipped() as fresh, tempfile.TemporaryDirectory() as folder:
        quickstart = (PYTHON, "-m", "benchmarks.quickstart", "data/raw", folder)
        return [(run(fresh, *TRAIN), run(fresh, *quickstart)) for _ in range(LONG)]


def shipped_beside_other_work(_: Path) -> Pairs:
    with shipped() as fresh:
        return beside_other_work(fresh)


def determinism(_: Path) -> Pairs:
    """Time the stage train as shipped, and with algorithms that torch chooses without being held to the same bytes."""
    with shipped() as fresh:
        return without("torch.set_deterministic_debug_mode", fresh)


def placing(project: Path) -> Pairs:
    """Time the stage train with threads on cores of their own, and with threads that the system places."""
    return without("os.sched_setaffinity", project)


def without(function: str, project: Path) -> Pairs:
    """Time the stage train as it is, and where a function does nothing."""
    program = (
        f"from tasks.__main__ import main; import os, sys, torch; {function} = lambda *_: None; main(sys.argv[1:])"
    )
    return [(run(project, *TRAIN), run(project, PYTHON, "-c", program, "train")) for _ in range(SHORT)]


def beside_other_work(project: Path) -> Pairs:
    """Time the stage train beside a process that is always busy; compared with its fair share of the cores alone."""
    pairs = []
    cores = physical_cores()
    for _ in range(LONG):
        alone = run(project, *TRAIN)
        with subprocess.Popen((PYTHON, "-c", "while True: pass")) as busy:
            beside = run(project, *TRAIN)
            busy.kill()
        pairs.append((beside, alone * (cores + 1) / cores))
    return pairs


def nothing_to_do(project: Path) -> Pairs:
    return [(run(project, PYTHON, "-m", "dvc", "repro"), 0) for _ in range(SHORT)]


def flow(project: Path) -> Pairs:
    empty, ours = (PYTHON, "benchmarks/empty_flow.py"), (PYTHON, "-m", "flows", "training")
    return [(run(project, *ours), run(project, *empty)) for _ in range(SHORT)]


def flow_with_server(project: Path) -> Pairs:
    with chdir(project), server.for_schedule() as started:
        os.environ["PREFECT_API_URL"] = started.url
        pairs = flow(project)
        del os.environ["PREFECT_API_URL"]
    return pairs


def inference(batch_size: int) -> Callable[[Path], Pairs]:
    def measure(project: Path) -> Pairs:
        words = (PYTHON, "-m", "benchmarks.serving", str(batch_size), str(SHORT))
        return _last_line(output(project, *words))

    return measure


def transform_memory(project: Path) -> Pairs:
    """Measure the peak of the resident set, in MB, with ten times the training images and with each once."""
    raw = [project / RAW_IMAGES, project / RAW_LABELS]
    once = [file.read_bytes() for file in raw]
    ten_times = [_repeated(content, 10) for content in once]
    pairs = []
    for _ in range(LONG):
        peaks = []
        for contents in (ten_times, once):
            for file, content in zip(raw, contents, strict=True):
                file.unlink()  # it may be DVC's own, by a hard link
                file.write_bytes(content)
            peaks.append(_peak_mb(project, *TRANSFORM))
        pairs.append((peaks[0], peaks[1]))
    return pairs


def image_files(project: Path) -> Pairs:
    pairs = []
    _photographs(project, MANY)
    for _ in range(LONG):
        seconds = run(project, *TRANSFORM)
        pairs.append((MANY / seconds, float(output(project, PYTHON, "-m", "benchmarks.image_files"))))
    return pairs


def image_files_memory(project: Path) -> Pairs:
    pairs = []
    for _ in range(LONG):
        peaks = []
        for count in (MANY, FEW):
            _photographs(project, count)
            peaks.append(_peak_mb(project, *TRANSFORM))
        pairs.append((peaks[0], peaks[1]))
    return pairs


def folder(project: Path) -> Pairs:
    inbox, model = _inbox(project, MANY), _model(project)
    pairs = []
    for _ in range(LONG):
        bare = float(output(project, PYTHON, "-m", "benchmarks.folder", str(inbox), str(model)).splitlines()[-1])
        pairs.append((MANY / run(project, *_into_table(project, inbox)), bare))
    return pairs


def folder_memory(project: Path) -> Pairs:
    return [
        (
            _peak_mb(project, *_into_table(project, _inbox(project, MANY))),
            _peak_mb(project, *_into_table(project, _inbox(project, FEW))),
        )
        for _ in range(LONG)
    ]


def _into_table(project: Path, inbox: Path) -> tuple[str, ...]:
    """Return the command that classifies a folder."""
    table = project / "labels.parquet"
    table.unlink(missing_ok=True)
    return PYTHON, "-m", "serving.predict", f"--folder={inbox}", f"--out={table}", f"--model={_model(project)}"


def _model(project: Path) -> Path:
    """Return the model of both sides, which is made the first time."""
    path = project / "photographs.onnx"
    if not path.exists():
        with chdir(project):
            bare_folder.make(path)
    return path


def memory_map(project: Path) -> Pairs:
    return [(ours, other) for ours, other in _from_map(project, MANY, LONG)["pairs"]]


def memory_map_memory(project: Path) -> Pairs:
    return [(_from_map(project, MANY, 0)["own_mb"], _from_map(project, FEW, 0)["own_mb"]) for _ in range(LONG)]


def _from_map(project: Path, count: int, epochs: int) -> dict[str, Any]:
    _photographs(project, count)
    output(project, *TRANSFORM)
    lines = output(project, PYTHON, "-m", "benchmarks.memory_map", str(epochs)).splitlines()
    printed: dict[str, Any] = json.loads(lines[-1])
    return printed


def _photographs(project: Path, count: int) -> None:
    """Take stock of `count` image files."""
    inbox = _inbox(project, count)
    path = project / "params.yaml"
    chosen = [*recipes.changes("folder"), f"download.path=data/{inbox.name}"]
    path.write_text(overrides.apply(path.read_text(), chosen)[0])
    output(project, PYTHON, "-m", "tasks", "download")


def _inbox(project: Path, count: int) -> Path:
    """Return a folder of `count` JPEG files of 256 x 256 pixels, which are made the first time."""
    inbox = project / f"data/inbox-{count}"
    if not inbox.exists():
        make(inbox, count)
    return inbox


def _repeated(idx: bytes, times: int) -> bytes:
    """Repeat what is in an IDX file; images with other grey levels each time, because transform looks for copies."""
    images = idx[3] == 3
    header = 16 if images else 8
    count = int.from_bytes(idx[4:8], "big") * times
    values = np.frombuffer(idx[header:], np.uint8)
    body = b"".join((values + np.uint8(number if images else 0)).tobytes() for number in range(times))
    return idx[:4] + count.to_bytes(4, "big") + idx[8:header] + body


def _peak_mb(project: Path, *words: str) -> float:
    # By a small process in between: a child's peak is at least what its parent had when it was started.
    code = "import resource as r, subprocess as s, sys; s.run(sys.argv[1:], check=True, stdout=s.DEVNULL)"
    code += "; print(r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss)"
    printed = output(project, PYTHON, "-c", code, *words)
    return int(printed.splitlines()[-1]) / (1e6 if sys.platform == "darwin" else 1e3)


def first_line(stage: str) -> Callable[[Path], Pairs]:
    def measure(project: Path) -> Pairs:
        ours, imported = ("-m", "tasks", stage), ("-c", f"{third_party(project, stage)}\nprint()")
        return [(_first_line(project, *ours), _first_line(project, *imported)) for _ in range(SHORT)]

    return measure


def third_party(project: Path, stage: str) -> str:
    """Write the import statements of all modules that a stage loads, those of the project's own left out."""
    code = f"import tasks.{stage}, tasks.params.whole\nfrom tasks.harness import code\nprint(*code.loaded(), sep='\\n')"
    statements = set()
    for module in output(project, PYTHON, "-c", code).splitlines():
        for node in ast.parse(Path(module).read_text(encoding="utf-8")).body:
            ours = isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES
            if isinstance(node, ast.Import | ast.ImportFrom) and not ours:
                statements.add(ast.unparse(node))
    return "\n".join(sorted(statements))


def _first_line(project: Path, *words: str) -> float:
    started = time.perf_counter()
    with subprocess.Popen((PYTHON, *words), cwd=project, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            sys.exit(f"bench: {' '.join(words)} printed nothing")
        seconds = time.perf_counter() - started
        process.kill()
    return seconds


ROWS = [
    Row("training loop, against the bare loop", "images/s", training_loop, 0.9, 0.97, higher_is_better=True),
    Row("`dvc repro` from the archives, against the quickstart as a script", "s", from_archives, 1.0, 0.8),
    Row("the stage train as shipped, against the quickstart as a script", "s", shipped_training, 1.0, 0.8),
    Row("the stage train as shipped, against algorithms that may give other bytes", "s", determinism, 1.1, 1.0),
    Row("the stage train, against threads that the system places", "s", placing, 1.05, 1.0),
    Row("the stage train beside a busy process, against its fair share", "s", beside_other_work, 2.0, 1.2),
    Row(
        "the stage train as shipped beside a busy process, against its fair share",
        "s",
        shipped_beside_other_work,
        2.0,
        1.2,
    ),
    Row("`dvc repro` with nothing to do", "s", nothing_to_do, 1.0, 0.5, difference=True),
    Row("flow with nothing to do, over an empty flow: no server", "s", flow, 3, 1.5, difference=True),
    Row("flow with nothing to do, over an empty flow: a server", "s", flow_with_server, 3, 1, difference=True),
    *(
        Row(f"ONNX Runtime, against eager PyTorch: batch {size}", "images/s", inference(size), 1.8, 2.5, True)
        for size in (1, 64, 1024)
    ),
    *(
        Row(f"first line of the stage {stage}, against its imports", "s", first_line(stage), 1.2, 1.05)
        for stage in STAGES
    ),
    Row("peak memory of transform, 10 times the images against 1", "MB", transform_memory, 1.2, 1.05),
    Row(f"{MANY:,} image files through transform, against Pillow alone", "images/s", image_files, 0.8, 0.95, True),
    Row(f"peak memory of transform, {MANY:,} image files against {FEW:,}", "MB", image_files_memory, 1.2, 1.05),
    Row(f"{MANY:,} image files into a table, against bare decode and run", "images/s", folder, 0.8, 0.95, True),
    Row(f"peak memory of that, {MANY:,} image files against {FEW:,}", "MB", folder_memory, 1.2, 1.05),
    Row("training from the memory map, against the same in memory", "images/s", memory_map, 0.8, 0.95, True),
    Row(f"memory of its own, {MANY:,} images against {FEW:,}", "MB", memory_map_memory, 1.2, 1.05),
]

if __name__ == "__main__":
    main()
