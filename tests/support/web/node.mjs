// node node.mjs MODEL IMAGES BATCH SIZE...: runs a model in Node on raw pixels, images of SIZE... in batches, and
// prints logits and probabilities, float32 [N, classes] each, raw, the first all before the second.

import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

const [model, images, batch, ...shape] = process.argv.slice(2);
const pixels = readFileSync(images), sizes = shape.map(Number);
const step = sizes.reduce((a, b) => a * b) * Number(batch);
const session = await ort.InferenceSession.create(readFileSync(model), { executionProviders: ["wasm"] });
const answers = { logits: [], probabilities: [] };
for (let start = 0; start < pixels.length; start += step) {
  const some = Uint8Array.from(pixels.subarray(start, start + step));
  const found = await session.run({ images: new ort.Tensor("uint8", some, [some.length * batch / step, ...sizes]) });
  for (const name in answers) answers[name].push(Buffer.from(found[name].data.buffer, found[name].data.byteOffset, found[name].data.byteLength));
}
process.stdout.write(Buffer.concat([...answers.logits, ...answers.probabilities]));
