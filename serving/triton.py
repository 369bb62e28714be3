"""Write a model repository for Triton Inference Server: the model in service, and what Triton has to know of it.

Reads:  the champion of the registry; where there is none yet, models/model.onnx; or the file in MODEL
Writes: OUT/classifier/config.pbtxt, labels.txt and 1/model.onnx; OUT is models/triton unless the environment names it
Run:    python -m serving.triton, as make triton does
"""

import argparse
import os
import shutil
import sys
from hashlib import sha256
from pathlib import Path

from serving import champion
from serving.files import printable
from serving.labels import labels
from serving.model import Predictor
from serving.session import CPU, SessionError

NAME = "classifier"
CONFIG, LABELS, MODEL = "config.pbtxt", "labels.txt", "1/model.onnx"
DEFAULT, OUT = "models/model.onnx", Path("models/triton")
KINDS = {CPU: "KIND_CPU", "CUDAExecutionProvider": "KIND_GPU"}
MAX_BATCH = 64  # images that Triton runs together: beyond it no image is cheaper, see docs/deployment.md
MARK = "# make triton wrote this folder, SHA-256 {}\n"


def main() -> None:
    options = _parse()
    try:
        predictor, content = _open(options.model)
        folder = write(options.out, predictor, content, options.provider)
    except SessionError as error:
        sys.exit(printable(f"triton: {error}"))
    except OSError as error:
        sys.exit(printable(f"triton: {error.filename}: {error.strerror}; OUT={options.out} cannot be written"))
    print(printable(f"triton: {folder} serves {predictor.model} by {options.provider}"))
    print(printable(f"tritonserver --model-repository={options.out.absolute()}"))


def write(out: Path, predictor: Predictor, content: bytes, provider: str) -> Path:
    """Write the folder of the model into the repository `out`, in place of one that this function wrote.

    Args:
        content: of the ONNX file that `predictor` has opened.

    Raises:
        SessionError: there is a folder of that name that holds something else, or one of its files was edited.
        OSError: it cannot be written.
    """
    folder, partial = out / NAME, out / f".partial-{NAME}"  # in `out`, which may be a file system of its own
    if os.path.lexists(folder) and not _written_by_us(folder):
        raise SessionError(
            f"{folder} is not what make triton wrote, or was edited since; nothing was changed: move it away, or name "
            "another folder with OUT="
        )
    files = {CONFIG: config(predictor, provider).encode(), LABELS: labels(predictor.class_names), MODEL: content}
    files[CONFIG] = MARK.format(_digest(files)).encode() + files[CONFIG]
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    try:
        for name, written in files.items():
            (partial / NAME / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / NAME / name).write_bytes(written)
        if folder.exists():
            folder.rename(partial / "before")
        (partial / NAME).rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def config(predictor: Predictor, provider: str) -> str:
    """Return config.pbtxt: a batch is what waits, no request waits for others, and the first one finds the model warm.

    https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
    """
    image, classes = list(predictor.image_shape), len(predictor.class_names)
    warm_up = "\n".join(
        f"""\
model_warmup {{
  name: "{size} black"
  batch_size: {size}
  inputs {{ key: "images" value {{ data_type: TYPE_UINT8 dims: {image} zero_data: true }} }}
}}"""
        for size in (1, MAX_BATCH)
    )
    return f"""\
name: "{NAME}"
backend: "onnxruntime"
max_batch_size: {MAX_BATCH}
input {{ name: "images" data_type: TYPE_UINT8 dims: {image} }}
output {{ name: "logits" data_type: TYPE_FP32 dims: [{classes}] }}
output {{ name: "probabilities" data_type: TYPE_FP32 dims: [{classes}] label_filename: "{LABELS}" }}
dynamic_batching {{ }}
instance_group {{ kind: {KINDS[provider]} count: 1 }}
{warm_up}
"""


def _open(model: str | None) -> tuple[Predictor, bytes]:
    """Open what is to be served: MODEL, else the champion, else what the last run left."""
    if not model and not champion.read(root := champion.registry()):
        print(printable(f"triton: there is no champion in {root} yet, make promote makes one; {DEFAULT} instead"))
        model = DEFAULT
    path, content = champion.chosen(model or champion.CHAMPION)
    return Predictor(path, CPU, content=content), content


def _digest(files: dict[str, bytes]) -> str:
    return sha256(b"".join(sha256(files[name]).digest() for name in (CONFIG, LABELS, MODEL))).hexdigest()


def _written_by_us(folder: Path) -> bool:
    """Tell whether a folder holds the three files as they were written, and nothing else."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    if folder.is_symlink() or names != {CONFIG, LABELS, MODEL} or any((folder / name).is_symlink() for name in names):
        return False
    files = {name: (folder / name).read_bytes() for name in names}
    mark, line_break, files[CONFIG] = files[CONFIG].partition(b"\n")
    return (mark + line_break).decode(errors="replace") == MARK.format(_digest(files))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.triton", description="Write a model repository for Triton."
    )
    named = {name: os.environ.get(name) or None for name in ("MODEL", "OUT", "PROVIDER")}
    parser.add_argument("--model", default=named["MODEL"], help="an ONNX file instead of the champion")
    parser.add_argument("--out", type=Path, default=named["OUT"] or OUT, help=f"the repository (default: {OUT})")
    parser.add_argument("--provider", default=named["PROVIDER"] or CPU, help=f"{' or '.join(KINDS)}")
    options = parser.parse_args()
    if options.provider not in KINDS:
        parser.error(printable(f"PROVIDER={options.provider}: should be {' or '.join(KINDS)}"))
    return options


if __name__ == "__main__":
    main()
