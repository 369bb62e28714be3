"""BentoML, with its adaptive batching; it takes JSON.

Run:    MODEL=path bentoml serve bentoml_server:Classifier --port PORT
"""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1)
class Classifier:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)  # type: ignore[untyped-decorator]
    def infer(self, images: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = self.session.run(["probabilities"], {"images": images.astype(np.uint8)})[0]
        return probabilities
