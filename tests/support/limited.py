"""`python -m serving` with other limits than its own, and a model that takes its time, as JSON on the command line.

Run:  python -m tests.support.limited '{"header_s": 0.2}' --port 0
      {"model_s": 0.1}: for each batch; {"look_s": 0.1}: between two looks at the champion
"""

import json
import sys
import time
from functools import partial
from unittest.mock import patch

from serving import __main__ as serving
from serving.model import Predictor
from serving.server import service
from serving.server.limits import Limits

outputs = Predictor.outputs


def main() -> None:
    limits = json.loads(sys.argv.pop(1))
    model_s, look_s = limits.pop("model_s", 0), limits.pop("look_s", service.LOOK_S)

    def slow(predictor: Predictor, images: object) -> object:
        time.sleep(model_s)
        return outputs(predictor, images)  # type: ignore[arg-type]

    with (
        patch.object(serving, "Limits", partial(Limits, **limits)),
        patch.object(Predictor, "outputs", slow),
        patch.object(service, "LOOK_S", look_s),
    ):
        serving.main()


if __name__ == "__main__":
    main()
