// The page: pictures and questions in, answers out, and what the model saw. Talks to the API that everyone uses.
"use strict";

const at = (id) => document.getElementById(id);
const make = (name, className, text) => {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};

const state = { model: "", pictures: [], messages: [], running: null };

// ---- pictures

function addFiles(files) {
  const kept = [...files].filter((file) => file.type.startsWith("image/") || /\.(heic|heif)$/i.test(file.name));
  if (!kept.length && files.length) return complain("That is no picture. Give a PNG, JPEG, WebP, GIF, BMP, TIFF or HEIC file.");
  complain("");
  for (const file of kept) readPicture(file);
}

function readPicture(file) {
  const reader = new FileReader();
  reader.onload = () => {
    const name = file.name || "picture";
    const picture = { name, url: reader.result, sent: false, ...figureFor(name, reader.result) };
    state.pictures.push(picture);
    picture.remove.addEventListener("click", () => {
      state.pictures.splice(state.pictures.indexOf(picture), 1);
      picture.figure.remove();
    });
    at("hint").textContent = "Add another picture, or";
    at("question").focus();
  };
  reader.onerror = () => complain(`${file.name} cannot be read.`);
  reader.readAsDataURL(file);
}

function figureFor(name, url) {
  const figure = make("figure");
  const frame = make("div", "frame");
  const image = make("img");
  image.alt = `The picture ${name}`;
  image.src = url;
  const caption = make("figcaption", "", `${name}: not asked about yet`);
  const remove = make("button", "", `Remove ${name}`);
  remove.type = "button";
  frame.append(image);
  figure.append(frame, caption, remove);
  at("pictures").append(figure);
  return { figure, frame, image, caption, remove };
}

function drawGrid(picture, seen) {
  picture.seen = seen;
  picture.frame.querySelector("svg")?.remove();
  const words = [
    `${picture.name}: ${seen.width}x${seen.height} px, ` +
      (seen.grid ? `${seen.grid[0]}x${seen.grid[1]} slices and an overview` : "seen whole, in one slice"),
    `${seen.visual_tokens} visual tokens, resize factor ${seen.resize_factor.toFixed(2)}, ` +
      `smallest readable letters about ${seen.smallest_letter_px} px high`,
  ];
  picture.caption.replaceChildren(...words.map((text) => make("div", "", text)));
  if (seen.warning) {
    picture.caption.append(make("div", "warning", `Warning: ${seen.warning}.`), make("div", "", `What helps: ${seen.advice}.`));
  }
  if (!seen.grid) return;
  const box = shownBox(picture.image);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("width", box.width);
  svg.setAttribute("height", box.height);
  const [columns, rows] = seen.grid;
  for (let place = 0; place < columns * rows; place += 1) {
    const left = ((place % columns) * box.width) / columns;
    const top = (Math.floor(place / columns) * box.height) / rows;
    const cell = document.createElementNS(svg.namespaceURI, "rect");
    const sizes = { x: left, y: top, width: box.width / columns, height: box.height / rows };
    for (const [key, value] of Object.entries(sizes)) cell.setAttribute(key, value);
    const label = document.createElementNS(svg.namespaceURI, "text");
    label.setAttribute("x", left + 6);
    label.setAttribute("y", top + 17);
    label.textContent = place + 1;
    svg.append(cell, label);
  }
  picture.frame.append(svg);
}

// Where the pixels of the picture are inside its element: it keeps its shape and stands left and top.
function shownBox(image) {
  const scale = Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight) || 1;
  return { width: image.naturalWidth * scale, height: image.naturalHeight * scale };
}

new ResizeObserver(() => state.pictures.filter((one) => one.seen).forEach((one) => drawGrid(one, one.seen))).observe(at("pictures"));

// ---- questions and answers

async function ask() {
  const question = at("question").value.trim();
  if (state.running) return;
  if (!question) return at("question").focus();
  const fresh = state.pictures.filter((picture) => !picture.sent);
  const content = [
    ...fresh.map((picture) => ({ type: "image_url", image_url: { url: picture.url } })),
    { type: "text", text: question },
  ];
  const message = { role: "user", content };
  addTurn("you", "You", question);
  const turn = addTurn("model", state.model || "Answer", "");
  at("question").value = "";
  complain("");
  setBusy(true);
  const running = { stop: new AbortController(), text: "", tokens: 0, begin: performance.now(), first: 0 };
  state.running = running;
  try {
    for await (const piece of stream([...state.messages, message], running.stop.signal)) take(piece, running, turn, fresh);
    remember(message, running, fresh);
  } catch (error) {
    if (error.name === "AbortError") {
      turn.note("Stopped. The question counts as asked.");
      remember(message, running, fresh);
    } else {
      turn.element.remove();
      complain(error.message);
      at("question").value = question;
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
  if (facts?.images) {
    const shown = state.pictures.filter((picture) => picture.sent || fresh.includes(picture));
    facts.images.forEach((seen, place) => shown[place] && drawGrid(shown[place], seen));
    showFigures({ visual: facts.images.reduce((sum, seen) => sum + seen.visual_tokens, 0), memory: facts.memory_bytes });
  }
  if (facts?.ended) {
    const why = { length: "Cut: the answer is as long as it may be.", loop: "Ended: the answer repeated itself.", time: "Cut: the time was over." };
    if (why[facts.ended]) turn.note(why[facts.ended]);
    showFigures({ tokens: facts.usage?.completion_tokens, first: facts.seconds.first_word, speed: facts.tokens_per_second, memory: facts.memory_bytes });
    if (facts.claims) turn.claim(facts.claims, facts.check);
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

function addTurn(kind, who, text) {
  const element = make("article", `turn ${kind}`);
  const said = make("div", "said", text);
  element.append(make("div", "who", who), said);
  at("talk").append(element);
  element.scrollIntoView({ block: "nearest" });
  return {
    element,
    say: (whole) => { said.textContent = whole; },
    note: (words) => element.append(make("div", "note", words)),
    claim: (claims, check) => {
      const list = make("ul", "claims");
      list.setAttribute("aria-label", "Claims of this answer");
      for (const claim of claims) {
        const row = make("li", claim.verdict);
        const sure = typeof claim.probability === "number" ? ` ${Math.round(100 * claim.probability)} %` : "";
        row.append(make("span", "verdict", `${claim.verdict}${sure}: `), claim.text);
        if (claim.slice) row.append(make("span", "quiet", ` (${claim.slice.slice ? `slice ${claim.slice.slice}` : "overview"})`));
        if (claim.note) row.append(make("span", "quiet", ` (${claim.note})`));
        list.append(row);
      }
      if (!claims.length) list.append(make("li", "quiet", "Nothing in this answer can be checked."));
      if (check?.not_claims?.length) list.append(make("li", "quiet", `Not checked, no claims: ${check.not_claims.join(" | ")}`));
      element.append(list);
    },
  };
}

async function* stream(messages, signal) {
  const answer = await fetch("v1/chat/completions", {
    method: "POST",
    signal,
    headers: { "content-type": "application/json", ...keyHeader() },
    body: JSON.stringify({ model: state.model, messages, stream: true, ...(at("check").checked ? { check: true } : {}) }),
  });
  if (!answer.ok) throw await trouble(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const piece = JSON.parse(data);
      if (piece.error) throw new Error(piece.error.message);
      yield piece;
    }
  }
}

async function trouble(answer) {
  if (answer.status === 401) {
    at("key-row").hidden = false;
    at("key").focus();
    return new Error("This server asks for a key. Write it below and ask again.");
  }
  const wait = answer.headers.get("retry-after");
  const body = await answer.json().catch(() => ({}));
  return new Error((body.error?.message || `The server answered with status ${answer.status}.`) + (wait ? ` Try again in ${wait} s.` : ""));
}

const keyHeader = () => (at("key").value ? { authorization: `Bearer ${at("key").value}` } : {});

function setBusy(busy) {
  at("ask").disabled = busy;
  at("anew").disabled = busy;
  at("stop").hidden = !busy;
  at("talk").setAttribute("aria-busy", String(busy));
}

function complain(words) {
  at("trouble").hidden = !words;
  at("trouble").textContent = words;
}

function startAnew() {
  state.messages = [];
  state.pictures = [];
  at("talk").replaceChildren();
  at("pictures").replaceChildren();
  at("figures").hidden = true;
  at("hint").textContent = "Drop a picture here, paste one, or";
  complain("");
}

// ---- hands

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
at("stop").addEventListener("click", () => state.running?.stop.abort());
at("anew").addEventListener("click", startAnew);

fetch("health")
  .then((answer) => answer.json())
  .then((facts) => {
    state.model = facts.model;
    at("model").textContent = `${facts.model}. ${facts.notice || ""} Everything stays on the machine that serves this page.`;
  })
  .catch(() => complain("The server does not answer."));
