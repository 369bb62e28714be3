"""params.yaml for tests: as shipped, and with the CHEAPEST profile."""

import re
import subprocess
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

from tasks.harness.section import PARAMS
from tasks.params import whole
from tasks.params.whole import Params

ROOT = Path(__file__).parents[2]

# The fewest epochs, images and batches that still go through every line.
CHEAPEST = {
    "download": {"path": "data/inbox"},  # where the tests put images of their own
    "transform": {"validation_fraction": 0.25, "test_fraction": 0.25, "seed": 0},
    "train": {
        "network": "mlp",
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.01,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "constant",
        "label_smoothing": 0.0,
        "augment": {"flip": False, "shift": 0, "cutout": 0, "color": 0.0, "mixup": 0.0, "cutmix": 0.0},
        "precision": "float32",
        "normalize": "none",
        "seed": 0,
        "threads": 1,
    },
    "evaluate": {"batch_size": 5, "pictures": 4},
    "export": {"provider": "auto", "tolerance": 1e-4, "batch_sizes": [1, 3], "calibrate": False},
    "quantize": {"calibration_images": 4},
}


@cache
def shipped_params() -> str:
    """Return params.yaml as committed, whatever a run has written to it since; with other keys it was edited."""
    here = (ROOT / "params.yaml").read_text()
    answer = subprocess.run(
        ("git", "show", "HEAD:./params.yaml"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    keys = [re.findall(r"^ *\w+:", text, re.MULTILINE) for text in (here, answer.stdout)]
    return answer.stdout if keys[0] == keys[1] else here


def write_params(**sections: dict[str, object]) -> Params:
    """Write params.yaml of the CHEAPEST profile, with changes by section, to the working directory."""
    document = YAML(typ="safe").load(shipped_params())
    for changes in (CHEAPEST, sections):
        for section, values in changes.items():
            document[section].update(values)
    with PARAMS.open("w") as file:
        YAML(typ="safe").dump(document, file)
    return whole.load()
