"""The flow on a schedule: what its form allows."""

from flows import retraining
from tasks.data.datasets import DATASETS


def test_the_form_offers_every_dataset_and_the_bounds_of_params() -> None:
    form = retraining.retraining.parameters.properties
    assert form["dataset"]["anyOf"][0] == {"type": "string", "enum": list(DATASETS)}
    assert form["epochs"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 10_000}
