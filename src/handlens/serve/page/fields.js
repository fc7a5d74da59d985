// Fields with evidence: names in, and for each its value, how sure it is, and where it was read.
"use strict";

import { make, placeButton, showSight } from "./picture.js";
import { send } from "./talk.js";

const KINDS = { text: "string", string: "string", date: "string", number: "number", integer: "integer", boolean: "boolean" };

// One field a line, such as `total: number`, or a whole JSON schema.
export function schemaOf(text) {
  if (text.trim().startsWith("{")) {
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Error(`The schema is not JSON: ${error.message}.`);
    }
  }
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!lines.length) throw new Error("Name at least one field, for example total: number.");
  const properties = {};
  for (const line of lines) {
    const [name, kind = "text"] = line.split(":").map((part) => part.trim());
    if (!name) throw new Error(`The line '${line}' has no name before its colon.`);
    if (!Object.hasOwn(KINDS, kind)) throw new Error(`'${kind}' is no kind of field; known: ${Object.keys(KINDS).join(", ")}.`);
    properties[name] = { type: KINDS[kind] };
  }
  return { properties };
}

export async function readFields(model, picture, schema, turn, signal) {
  const answer = await send("v1/fields", { model, image_url: { url: picture.url }, schema }, signal);
  const found = await answer.json();
  showSight(picture, found.image);
  turn.say("");
  turn.element.append(table(found.fields, picture));
  if (!found.calibrated) turn.note("How sure is the model's own word; nothing was measured for these weights.");
  return found;
}

function table(fields, picture) {
  const whole = make("table", "fields");
  const head = make("tr");
  head.append(...["Field", "Value", "Sure", "Read from"].map((words) => headed(words, "col")));
  whole.append(head);
  for (const [name, one] of Object.entries(fields)) {
    const row = make("tr", one.present ? "" : "absent");
    const place = make("td");
    if (one.box) place.append(placeButton(one.slice?.slice ? `slice ${one.slice.slice}` : "picture", picture, one.box));
    row.append(headed(name, "row"), make("td", "", one.answer), make("td", "", `${Math.round(100 * one.confidence)} %`), place);
    whole.append(row);
  }
  return whole;
}

function headed(words, scope) {
  const element = make("th", "", words);
  element.scope = scope;
  return element;
}
