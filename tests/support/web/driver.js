// Runs before the page of docs/deployment.md, in the test's copy: chooses the images that images.json names, one after the other, as a
// person would, and sends back what the page said of each, which pixels the model got, and how often the GPU was asked.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

const inputs = [];
let seconds = 0, dispatches = 0;

const { create } = ort.InferenceSession;
ort.InferenceSession.create = async (model, options) => {
  // What the GPU cannot do, the CPU would do without a word.
  const extra = { session: { disable_cpu_ep_fallback: options.executionProviders[0] === "webgpu" ? "1" : "0" } };
  const session = await create.call(ort.InferenceSession, model, { ...options, extra });
  const { run } = session;
  session.run = async (feeds) => {
    inputs.push(Array.from(feeds.images.data));
    const start = performance.now();
    const answer = await run.call(session, feeds);
    seconds += (performance.now() - start) / 1000;
    return answer;
  };
  return session;
};

const { dispatchWorkgroups } = GPUComputePassEncoder.prototype;
GPUComputePassEncoder.prototype.dispatchWorkgroups = function (...counts) {
  dispatches++;
  return dispatchWorkgroups.apply(this, counts);
};

// Resolves once the page has said something else than before.
function said(output) {
  return new Promise((resolve) => new MutationObserver(resolve).observe(output, { childList: true }));
}

async function choose(name, input, output) {
  const chosen = new DataTransfer();
  chosen.items.add(new File([await (await fetch(name)).blob()], name));
  input.files = chosen.files;
  output.value = ""; // the same answer twice would be no change
  const answer = said(output);
  input.dispatchEvent(new Event("change"));
  await answer;
  return output.value;
}

addEventListener("DOMContentLoaded", async () => {
  const [input, output] = document.querySelectorAll("input, output");
  const loaded = output.value.startsWith("Loading") ? said(output) : undefined;
  const adapter = (await navigator.gpu.requestAdapter()) !== null;
  await loaded;
  const begin = output.value, answers = [];
  for (const name of await (await fetch("images.json")).json()) answers.push(await choose(name, input, output));
  await fetch("/", { method: "POST", body: JSON.stringify({ adapter, begin, answers, inputs, seconds, dispatches }) });
});
