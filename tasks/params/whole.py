"""params.yaml as a whole: every section, and every reason to refuse it at once.

The door and the flow check it before a stage runs, and a stage then reads the sections that it needs. No stage depends
on this module, so that a change to one section makes the stages of the others no staler: it can refuse to run a stage,
but never change a byte of what the stage makes.
"""

from tasks.harness import section
from tasks.harness.section import PARAMS, Section
from tasks.params.download import Download
from tasks.params.evaluate import Evaluate
from tasks.params.export import Export
from tasks.params.flow import Flow
from tasks.params.quantize import Quantize
from tasks.params.retraining import Retraining
from tasks.params.search import Search
from tasks.params.train import Train
from tasks.params.transform import Transform


class Params(Section):
    download: Download
    transform: Transform
    train: Train
    evaluate: Evaluate
    export: Export
    quantize: Quantize
    flow: Flow
    retraining: Retraining
    search: Search


def load() -> Params:
    """Read and check params.yaml in the working directory.

    Raises:
        ParamsError: the file is missing, no YAML, or holds a value that is refused.
    """
    return section.parse(Params, section.read(), str(PARAMS))
