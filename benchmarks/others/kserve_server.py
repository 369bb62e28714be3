"""KServe's own server, which speaks the Open Inference Protocol with binary tensors, too.

Run:    python kserve_server.py MODEL PORT
"""

import sys

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

model, port = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Classifier(Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("classifier")
        self.ready = True

    async def predict(self, payload: InferRequest, *_: object, **__: object) -> InferResponse:
        found = session.run(None, {"images": payload.inputs[0].as_numpy()})
        outputs = []
        for name, values in zip(("logits", "probabilities"), found, strict=True):
            output = InferOutput(name=name, shape=list(values.shape), datatype="FP32")
            output.set_data_from_numpy(values, binary_data=True)
            outputs.append(output)
        return InferResponse(response_id=payload.id, model_name=self.name, infer_outputs=outputs)


ModelServer(http_port=int(port), workers=1, enable_grpc=False).start([Classifier()])
