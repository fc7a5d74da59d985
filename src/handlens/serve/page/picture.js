// Pictures on the page: what was chosen, the slice grid over each, and the place that an answer was read from.
"use strict";

export const at = (id) => document.getElementById(id);
export const make = (name, className, text) => {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};

export let pictures = [];

export function complain(words) {
  at("trouble").hidden = !words;
  at("trouble").textContent = words;
}

export function addFiles(files) {
  const kept = [...files].filter((file) => file.type.startsWith("image/") || /\.(heic|heif)$/i.test(file.name));
  if ([...files].some((file) => file.type === "application/pdf")) {
    complain("This page takes no PDF. On the command line `handlens ask FILE.pdf#1` and `handlens batch` read its pages; here give a picture of one.");
    if (!kept.length) return;
  } else if (!kept.length && files.length) return complain("That is no picture. Give a PNG, JPEG, WebP, GIF, BMP, TIFF or HEIC file.");
  else complain("");
  for (const file of kept) readPicture(file);
}

function readPicture(file) {
  const reader = new FileReader();
  reader.onload = () => {
    const name = file.name || "picture";
    const picture = { name, url: reader.result, sent: false, ...figureFor(name, reader.result) };
    pictures.push(picture);
    picture.image.addEventListener("load", () => paint(picture));
    picture.remove.addEventListener("click", () => {
      pictures.splice(pictures.indexOf(picture), 1);
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

export function removeAll() {
  pictures = [];
  at("pictures").replaceChildren();
  at("hint").textContent = "Drop a picture here, paste one, or";
}

// ---- what the model saw

export function showSight(picture, seen) {
  picture.seen = seen;
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
  paint(picture);
}

// Left, top, right and bottom of a slice, in px of the picture; the overview is all of it.
export function sliceBox(seen, slice) {
  if (!seen.grid || !slice || slice.row === null || slice.column === null) return [0, 0, seen.width, seen.height];
  const [width, height] = [seen.width / seen.grid[0], seen.height / seen.grid[1]];
  return [slice.column * width, slice.row * height, (slice.column + 1) * width, (slice.row + 1) * height];
}

// A button that shows a place on its picture; pressing it again hides the place.
export function placeButton(words, picture, box) {
  const button = make("button", "place", words);
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    const shows = picture.mark?.button !== button;
    pictures.forEach(unmark);
    if (!shows) return;
    picture.mark = { button, box };
    button.setAttribute("aria-pressed", "true");
    paint(picture);
    picture.frame.scrollIntoView({ block: "nearest" });
  });
  return button;
}

function unmark(picture) {
  picture.mark?.button.setAttribute("aria-pressed", "false");
  picture.mark = null;
  paint(picture);
}

function paint(picture) {
  picture.frame.querySelector("svg")?.remove();
  const { seen, mark } = picture;
  if (!seen || (!seen.grid && !mark) || !picture.image.naturalWidth) return;
  const box = shownBox(picture.image);
  const svg = drawn("svg", { "aria-hidden": "true", width: box.width, height: box.height });
  const [columns, rows] = seen.grid || [0, 0];
  for (let place = 0; place < columns * rows; place += 1) {
    const left = ((place % columns) * box.width) / columns;
    const top = (Math.floor(place / columns) * box.height) / rows;
    const label = drawn("text", { x: left + 6, y: top + 17 });
    label.textContent = place + 1;
    svg.append(drawn("rect", { x: left, y: top, width: box.width / columns, height: box.height / rows }), label);
  }
  if (mark) {
    const [across, down] = [box.width / seen.width, box.height / seen.height];
    const [left, top, right, bottom] = mark.box;
    const sizes = { x: left * across, y: top * down, width: (right - left) * across, height: (bottom - top) * down };
    svg.append(drawn("rect", { class: "mark", ...sizes }));
  }
  picture.frame.append(svg);
}

function drawn(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// Where the pixels of the picture are inside its element: it keeps its shape and stands left and top.
function shownBox(image) {
  const scale = Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight) || 1;
  return { width: image.naturalWidth * scale, height: image.naturalHeight * scale };
}

new ResizeObserver(() => pictures.forEach(paint)).observe(at("pictures"));
