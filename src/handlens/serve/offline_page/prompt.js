// The prompt: chat template, spatial schema, and the places where visual tokens stand. The same ids as core/prompt.py.

// The overview first, then rows of slices joined by newlines.
export function pictureMarkup(plan, index, { schema, uses_image_id, placeholder, num_queries }) {
  const visual = placeholder.repeat(num_queries);
  const overview = (uses_image_id ? `<image_id>${index}</image_id>` : "") + `<image>${visual}</image>`;
  if (!plan.grid) return overview;
  const isWrapped = schema === "grid_wrapped";
  const cell = isWrapped ? `<image>${visual}</image>` : `<slice>${visual}</slice>`;
  const rows = Array(plan.grid.rows).fill(cell.repeat(plan.grid.columns)).join("\n");
  return overview + (isWrapped ? `<slice>${rows}</slice>` : rows);
}

// One question about pictures shown before it. Returns the text and where in it [from, to] each picture stands.
export function renderQuestion(question, plans, rules) {
  const { template } = rules;
  const pictures = plans.map((plan, index) => pictureMarkup(plan, index, rules));
  let content = [...pictures, question].join("\n");
  let before = template.begin;
  if (template.default_system !== null) before += template.system.replace("{text}", () => template.default_system);
  before += template.user.slice(0, template.user.indexOf("{text}"));
  const after = template.user.slice(template.user.indexOf("{text}") + "{text}".length);
  if (template.trims) content = content.trim();
  const places = [];
  let begin = before.length;
  for (const markup of pictures) {
    places.push([begin, begin + markup.length]);
    begin += markup.length + 1;
  }
  return { text: before + content + after + template.opening + template.thought, places };
}

// Ids, and which of them a visual token replaces. Marks typed by a user are text: only the places of pictures count.
export function buildPrompt(question, plans, rules, tokenizer) {
  const { text, places } = renderQuestion(question, plans, rules);
  const { ids, starts } = tokenizer.encode(text);
  const blank = tokenizer.idOf(rules.placeholder);
  const isVisual = ids.map(
    (id, place) => id === blank && places.some(([begin, end]) => starts[place] >= begin && starts[place] < end),
  );
  return { ids, isVisual };
}
