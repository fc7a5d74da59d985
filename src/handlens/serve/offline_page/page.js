// The page: a picture and questions in, answers out, and what the model saw. The model runs in worker.js.

const at = (id) => document.getElementById(id);
const make = (name, className, text) => {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};

// Phones keep a canvas of about this many pixels; a larger photo is halved until it fits.
const MOST_PIXELS = 16_000_000;
const state = { task: 0, worker: null, isReady: false, isSeeing: false, plan: null, turn: null, question: "", waiting: null };

// ---- loading

async function start() {
  const kept = await keepOffline();
  say("Loading the model");
  state.worker = new Worker("worker.js", { type: "module" });
  // What an older task still has to say is about another picture or a question that was stopped.
  state.worker.addEventListener("message", ({ data }) => {
    if (data.task === undefined || data.task === state.task) hear[data.kind]?.(data);
  });
  state.worker.addEventListener("error", () => complain("This browser is too old for the model: WebAssembly with SIMD and module workers are needed."));
  state.kept = kept;
  send("load");
}

// Fetches everything once and keeps it on the device. Returns what to tell about it.
async function keepOffline() {
  if (!("serviceWorker" in navigator)) {
    return "This address is not secure (no https, not localhost), so the browser keeps nothing: the page works only while it is open.";
  }
  say("Fetching the model, once");
  let bytes = 0;
  navigator.serviceWorker.addEventListener("message", ({ data }) => {
    if (data.kind !== "kept") return;
    bytes += data.bytes;
    say(`Fetching the model, once: ${(bytes / 1e6).toFixed(0)} MB`, bytes / 40e6);
  });
  try {
    await navigator.serviceWorker.register("sw.js", { updateViaCache: "none" });
    await isKept();
    navigator.storage?.persist?.();
    return "Kept on this device: the page works without a network.";
  } catch (error) {
    return `The browser cannot keep this page (${error.message}): it works only while it is open.`;
  }
}

// Resolves when a service worker stands behind this page; rejects when it cannot be installed.
async function isKept() {
  if (navigator.serviceWorker.controller) return;
  const registration = await navigator.serviceWorker.getRegistration();
  const installing = registration.installing ?? registration.waiting;
  await new Promise((resolve, reject) => {
    navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
    installing?.addEventListener("statechange", () => {
      if (installing.state === "redundant") reject(new Error("its files did not arrive whole"));
    });
    if (navigator.serviceWorker.controller) resolve();
  });
}

function say(words, share) {
  at("kept").textContent = words;
  if (share === undefined) at("progress").removeAttribute("value");
  else at("progress").value = share;
}

// ---- the picture

async function show(file) {
  if (!file) return;
  complain("");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    return complain(`${file.name || "This file"} is no picture that this browser can read. Give a PNG, JPEG or WebP file.`);
  }
  let { width, height } = bitmap;
  while (width * height > MOST_PIXELS) [width, height] = [width >> 1, height >> 1];
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const rgba = pen.getImageData(0, 0, width, height).data;
  if (at("image").src) URL.revokeObjectURL(at("image").src);
  at("image").src = URL.createObjectURL(file);
  at("image").alt = `The picture ${file.name || "you took"}`;
  at("figure").hidden = false;
  at("caption").textContent = `${width}x${height} px`;
  at("frame").querySelector("svg")?.remove();
  state.plan = null;
  state.picture = { width, height, rgba };
  if (state.isReady) see();
  at("question").focus({ preventScroll: true });
}

function see() {
  const { width, height, rgba } = state.picture;
  state.picture = null;
  state.isSeeing = true;
  send("see", { width, height, rgba }, [rgba.buffer]);
}

function describe(plan, visual, more) {
  const words = [
    `${plan.width}x${plan.height} px, ` + (plan.grid ? `${plan.grid.columns}x${plan.grid.rows} slices and an overview` : "seen whole, in one slice"),
    `${visual} visual tokens, resize factor ${plan.resize_factor.toFixed(2)}${more}`,
  ];
  at("caption").replaceChildren(...words.map((text) => make("div", "", text)));
}

function drawGrid() {
  at("frame").querySelector("svg")?.remove();
  const image = at("image");
  if (!state.plan?.grid || !image.naturalWidth) return;
  const scale = Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight) || 1;
  const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const set = (element, values) => Object.entries(values).forEach(([key, value]) => element.setAttribute(key, value));
  set(svg, { "aria-hidden": "true", width, height });
  const { columns, rows } = state.plan.grid;
  for (let place = 0; place < columns * rows; place += 1) {
    const x = ((place % columns) * width) / columns;
    const y = (Math.floor(place / columns) * height) / rows;
    const cell = document.createElementNS(svg.namespaceURI, "rect");
    set(cell, { x, y, width: width / columns, height: height / rows });
    const label = document.createElementNS(svg.namespaceURI, "text");
    set(label, { x: x + 6, y: y + 17 });
    label.textContent = place + 1;
    svg.append(cell, label);
  }
  at("frame").append(svg);
}

// ---- questions and answers

function ask() {
  const question = at("question").value.trim();
  if (!question) return at("question").focus();
  if (state.turn || at("ask").disabled) return;
  addTurn("you", "You").textContent = question;
  state.turn = { said: addTurn("model", state.name), question };
  at("question").value = "";
  complain("");
  setBusy(true);
  if (state.isSeeing || !state.isReady) state.waiting = question;
  else send("ask", { question, max_tokens: 256 });
}

function addTurn(kind, who) {
  const element = make("article", `turn ${kind}`);
  const said = make("div", "said");
  element.append(make("div", "who", who), said);
  at("talk").append(element);
  element.scrollIntoView({ block: "nearest" });
  return said;
}

function endTurn(note) {
  if (note && state.turn) state.turn.said.parentElement.append(make("div", "note", note));
  state.turn = state.waiting = null;
  setBusy(false);
}

function stop() {
  if (!state.turn) return;
  if (state.waiting === null) send("stop");
  endTurn("Stopped.");
}

function setBusy(busy) {
  at("ask").disabled = busy || !state.isReady;
  at("stop").hidden = !busy;
  at("talk").setAttribute("aria-busy", String(busy));
}

function complain(words) {
  at("trouble").hidden = !words;
  at("trouble").textContent = words;
}

function figures(facts) {
  at("figures").hidden = false;
  for (const [name, words] of Object.entries(facts)) at(name).textContent = words;
}

// ---- the worker

function send(kind, more = {}, moved = []) {
  state.task += 1;
  state.worker.postMessage({ kind, task: state.task, ...more }, moved);
}

const hear = {
  ready({ name, notice, threads }) {
    Object.assign(state, { isReady: true, name });
    at("model").textContent = `${name}. ${notice ? `${notice}. ` : ""}It runs in this browser; pictures and questions never leave the device.`;
    at("kept").textContent = `${state.kept} ${threads > 1 ? `${threads} threads.` : "One thread."}`;
    at("progress").hidden = true;
    document.body.dataset.ready = "yes";
    setBusy(Boolean(state.turn));
    if (state.picture) see();
    else if (state.waiting !== null) hear.seen({});
  },
  planned({ plan, visual_tokens }) {
    Object.assign(state, { plan, visual: visual_tokens });
    describe(plan, visual_tokens, "");
    drawGrid();
    figures({ visual: `${visual_tokens}` });
  },
  encoded({ done, total }) {
    describe(state.plan, state.visual, `; looking at slice ${done} of ${total}`);
  },
  seen({ seconds }) {
    state.isSeeing = false;
    if (seconds !== undefined) {
      describe(state.plan, state.visual, "");
      figures({ seeing: `${seconds.toFixed(2)} s` });
    }
    const question = state.waiting;
    state.waiting = null;
    if (question !== null) send("ask", { question, max_tokens: 256 });
  },
  said({ text }) {
    if (state.turn) state.turn.said.append(text);
  },
  ended({ why, tokens, first, speed }) {
    const notes = { length: "Cut: the answer is as long as it may be.", loop: "Ended: the answer repeated itself." };
    figures({ first: `${first.toFixed(2)} s`, tokens: `${tokens}`, speed: speed ? `${speed.toFixed(1)} tok/s` : "too short" });
    endTurn(notes[why]);
  },
  trouble({ words }) {
    const question = state.turn?.question;
    state.isSeeing = false;
    endTurn();
    complain(words);
    if (question && !at("question").value) at("question").value = question;
  },
};

// ---- hands

at("choose").addEventListener("click", () => at("file").click());
at("shoot").addEventListener("click", () => at("camera").click());
for (const id of ["file", "camera"]) {
  at(id).addEventListener("change", () => {
    show(at(id).files[0]);
    at(id).value = "";
  });
}
document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  show(event.clipboardData.files[0]);
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  show(event.dataTransfer.files[0]);
});
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
at("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
at("stop").addEventListener("click", stop);
at("image").addEventListener("load", drawGrid);
new ResizeObserver(drawGrid).observe(at("frame"));
start();
