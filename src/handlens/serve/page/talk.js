// Turns of the conversation as they stand on the page, and the way to the server.
"use strict";

import { at, make, placeButton, sliceBox } from "./picture.js";

export function addTurn(kind, who, text) {
  const element = make("article", `turn ${kind}`);
  const said = make("div", "said", text);
  element.append(make("div", "who", who), said);
  at("talk").append(element);
  element.scrollIntoView({ block: "nearest" });
  return {
    element,
    say: (whole) => { said.textContent = whole; },
    note: (words) => element.append(make("div", "note", words)),
    claim: (claims, check, shown) => element.append(claimList(claims, check, shown)),
  };
}

// Every claim with its verdict and the slice that was looked at; the slice is a button where the picture is there.
function claimList(claims, check, shown) {
  const list = make("ul", "claims");
  list.setAttribute("aria-label", "Claims of this answer");
  for (const claim of claims) {
    const row = make("li", claim.verdict);
    const sure = typeof claim.probability === "number" ? ` ${Math.round(100 * claim.probability)} %` : "";
    row.append(make("span", "verdict", `${claim.verdict}${sure}: `), claim.text);
    if (claim.slice) row.append(" ", lookedAt(claim.slice, shown));
    if (claim.note) row.append(make("span", "quiet", ` (${claim.note})`));
    list.append(row);
  }
  if (!claims.length) list.append(make("li", "quiet", "Nothing in this answer can be checked."));
  if (check?.not_claims?.length) list.append(make("li", "quiet", `Not checked, no claims: ${check.not_claims.join(" | ")}`));
  return list;
}

function lookedAt(slice, shown) {
  const picture = shown[slice.picture];
  const words = (slice.slice ? `slice ${slice.slice}` : "overview") + (shown.length > 1 && picture ? ` of ${picture.name}` : "");
  if (!picture?.seen) return make("span", "quiet", `(${words})`);
  return placeButton(words, picture, sliceBox(picture.seen, slice));
}

// ---- the server

const keyHeader = () => (at("key").value ? { authorization: `Bearer ${at("key").value}` } : {});

export async function send(path, body, signal) {
  const headers = { ...(body ? { "content-type": "application/json" } : {}), ...keyHeader() };
  const answer = await fetch(path, body ? { method: "POST", signal, headers, body: JSON.stringify(body) } : { headers });
  if (!answer.ok) throw await trouble(answer);
  return answer;
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

export async function* stream(body, signal) {
  const answer = await send("v1/chat/completions", { ...body, stream: true }, signal);
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
