// Runs the model beside the page, so that the page never stands still. Messages in, messages out.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { Lens } from "./engine.js";
import { dropAlpha } from "./pixels.js";

let lens;
let seen = null;
let current = 0;

// Lets a waiting message be heard.
const channel = new MessageChannel();
const breathe = () =>
  new Promise((resolve) => {
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(0);
  });

class Stopped extends Error {}

async function restOf(task) {
  await breathe();
  if (task !== current) throw new Stopped();
}

const tasks = {
  async load() {
    lens = await Lens.open(ort, new URL("./", self.location.href), (name, bytes) => postMessage({ kind: "arrived", name, bytes }));
    postMessage({ kind: "ready", name: lens.rules.name, notice: lens.rules.notice, threads: ort.env.wasm.numThreads });
  },

  async see({ task, width, height, rgba }) {
    seen = null;
    const plan = lens.plan(width, height);
    postMessage({ kind: "planned", task, plan, visual_tokens: plan.num_slices * lens.rules.num_queries });
    const begin = performance.now();
    seen = await lens.see(dropAlpha(width, height, rgba), async (done, total) => {
      postMessage({ kind: "encoded", task, done, total });
      await restOf(task);
    });
    postMessage({ kind: "seen", task, seconds: (performance.now() - begin) / 1000 });
  },

  async ask({ task, question, max_tokens }) {
    const begin = performance.now();
    let first = 0;
    let count = 0;
    const answer = lens.answer(question, seen, { max_tokens, rest: () => restOf(task) });
    for (;;) {
      const { value, done } = await answer.next();
      const now = performance.now();
      if (done) {
        const speed = count > 1 ? ((count - 1) * 1000) / (now - begin - first) : 0;
        return postMessage({ kind: "ended", task, why: value, tokens: count, first: first / 1000, speed });
      }
      first ||= now - begin;
      count += 1;
      postMessage({ kind: "said", task, text: value.text, id: value.id });
    }
  },
};

let last = Promise.resolve();

// One task after the other; a newer one ends the one that runs.
self.addEventListener("message", ({ data }) => {
  current = data.task;
  if (data.kind === "stop") return;
  last = last.then(async () => {
    if (data.task !== current && data.kind !== "load") return;
    try {
      await tasks[data.kind](data);
    } catch (error) {
      if (error instanceof Stopped) return;
      if (lens) lens.forget();
      postMessage({ kind: "trouble", task: data.task, words: error.message });
    }
  });
});
