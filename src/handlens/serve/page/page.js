// The page: pictures and questions in, answers out, and what the model saw. Talks to the API that everyone uses.
"use strict";

import { readFields, schemaOf } from "./fields.js";
import { addFiles, at, complain, pictures, removeAll, showSight } from "./picture.js";
import { addTurn, send, stream } from "./talk.js";

const state = { model: "", messages: [], running: null };

// ---- questions and answers

async function ask() {
  const question = at("question").value.trim();
  if (state.running) return;
  if (!question) return at("question").focus();
  const fresh = pictures.filter((picture) => !picture.sent);
  const content = [
    ...fresh.map((picture) => ({ type: "image_url", image_url: { url: picture.url } })),
    { type: "text", text: question },
  ];
  const message = { role: "user", content };
  addTurn("you", "You", question);
  at("question").value = "";
  await run(async (running, turn) => {
    const body = { model: await model(), messages: [...state.messages, message], ...(at("check").checked ? { check: true } : {}) };
    for await (const piece of stream(body, running.stop.signal)) take(piece, running, turn, fresh);
    remember(message, running, fresh);
  }, {
    stopped: (running, turn) => {
      turn.note("Stopped. The question counts as asked.");
      remember(message, running, fresh);
    },
    failed: () => { at("question").value = question; },
  });
}

// One piece of work at a time, which can be stopped; what goes wrong is said.
async function run(work, { stopped, failed }) {
  const turn = addTurn("model", state.model || "Answer", "");
  complain("");
  setBusy(true);
  const running = { stop: new AbortController(), text: "", tokens: 0, begin: performance.now(), first: 0 };
  state.running = running;
  try {
    await work(running, turn);
  } catch (error) {
    if (error.name === "AbortError") stopped(running, turn);
    else {
      turn.element.remove();
      complain(error.message);
      failed();
    }
  } finally {
    state.running = null;
    setBusy(false);
    at("question").focus();
  }
}

function remember(message, running, fresh) {
  state.messages.push(message, { role: "assistant", content: running.text });
  fresh.forEach((picture) => {
    picture.sent = true;
    picture.remove.hidden = true;
  });
}

function take(piece, running, turn, fresh) {
  const choice = piece.choices?.[0];
  const text = choice?.delta?.content;
  if (text) {
    running.first ||= performance.now() - running.begin;
    running.text += text;
    running.tokens += 1;
    turn.say(running.text);
    showFigures({ tokens: running.tokens, first: running.first / 1000 });
  }
  const facts = piece.handlens;
  const shown = pictures.filter((picture) => picture.sent || fresh.includes(picture));
  if (facts?.images) {
    facts.images.forEach((seen, place) => shown[place] && showSight(shown[place], seen));
    showFigures({ visual: facts.images.reduce((sum, seen) => sum + seen.visual_tokens, 0), memory: facts.memory_bytes });
  }
  if (facts?.ended) {
    const why = { length: "Cut: the answer is as long as it may be.", loop: "Ended: the answer repeated itself.", time: "Cut: the time was over." };
    if (why[facts.ended]) turn.note(why[facts.ended]);
    showFigures({ tokens: facts.usage?.completion_tokens, first: facts.seconds.first_word, speed: facts.tokens_per_second, memory: facts.memory_bytes });
    if (facts.claims) turn.claim(facts.claims, facts.check, shown);
  }
}

function showFigures(facts) {
  at("figures").hidden = false;
  const forms = {
    visual: (value) => `${value}`,
    tokens: (value) => `${value}`,
    first: (value) => `${value.toFixed(2)} s`,
    speed: (value) => `${value.toFixed(1)} tok/s`,
    memory: (value) => `${Math.round(value / 2 ** 20)} MiB`,
  };
  for (const [name, value] of Object.entries(facts)) if (value !== undefined) at(name).textContent = forms[name](value);
}

// ---- fields

async function read() {
  if (state.running) return;
  const picture = pictures.at(-1);
  if (!picture) return complain("Fields are read from a picture; choose one first.");
  let schema;
  try {
    schema = schemaOf(at("schema").value);
  } catch (error) {
    return complain(error.message);
  }
  addTurn("you", "You", `Fields of ${picture.name}`);
  await run(async (running, turn) => {
    turn.say("Reading; a field is asked for, then looked for in every slice.");
    const found = await readFields(await model(), picture, schema, turn, running.stop.signal);
    showFigures({ visual: found.image.visual_tokens, memory: found.memory_bytes });
  }, { stopped: (running, turn) => turn.say("Stopped."), failed: () => {} });
}

// ---- the page

function setBusy(busy) {
  for (const id of ["ask", "anew", "read"]) at(id).disabled = busy;
  at("stop").hidden = !busy;
  at("talk").setAttribute("aria-busy", String(busy));
}

function startAnew() {
  state.messages = [];
  removeAll();
  at("talk").replaceChildren();
  at("figures").hidden = true;
  complain("");
}

// The door in front of several servers tells its model only in the list of models.
async function model() {
  if (!state.model) state.model = (await (await send("v1/models")).json()).data[0].id;
  return state.model;
}

at("choose").addEventListener("click", () => at("file").click());
at("shoot").addEventListener("click", () => at("camera").click());
for (const id of ["file", "camera"]) {
  at(id).addEventListener("change", () => {
    addFiles(at(id).files);
    at(id).value = "";
  });
}
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) {
    event.preventDefault();
    addFiles(files);
  }
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  addFiles(event.dataTransfer.files);
});
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    ask();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.running) state.running.stop.abort();
});
at("read").addEventListener("click", read);
at("stop").addEventListener("click", () => state.running?.stop.abort());
at("anew").addEventListener("click", startAnew);

fetch("health")
  .then((answer) => answer.json())
  .then((facts) => {
    state.model = facts.model || "";
    const name = facts.model ? `${facts.model}. ${facts.notice || ""} ` : "";
    at("model").textContent = `${name}Everything stays on the machine that serves this page.`;
    at("offline-row").hidden = !facts.offline;
    if (!isSecureContext) at("offline-more").textContent = "it works while it is open; only https or localhost let a browser keep it";
  })
  .catch(() => complain("The server does not answer."));
