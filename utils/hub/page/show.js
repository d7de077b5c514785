/* What is on the screen follows from `state`; here it is shown. */
"use strict";

const $ = (id) => document.getElementById(id);
const header = JSON.parse($("header").textContent);
const tokenizer = makeTokenizer(header.tokenizer);
const SEEN = 48; // tokens in the pictures of attention
const COLUMNS = 16; // tokens in the logit lens
const WARM = 8; // bits of surprise at which a token is warmest

const state = {
  base: "", // the text up to where the model goes on
  prompt: [], // its ids
  written: [], // ids that the model, or a click, added
  first: 0, // how many ids are beyond the context
  surprises: [], // in bits, of the ids in the context but the first
  selected: null, // an id's place in the text; null is the last one
  head: [0, 0], // the block and head that are enlarged
  off: new Set(), // heads that are switched off, as "layer,head"
  clean: {}, // the last text that was read with all heads on, and its mean surprise
  version: 0, // of the text: an answer to an older one is dropped
  read: -1, // the version that the model has read
};
let shown = null; // the attention that is on the screen

const say = (text) => ($("status").textContent = text);

/** Show an error, until which is mended nothing else can be done; or none (""). */
function fail(text) {
  $("error").hidden = !text;
  $("error").textContent = text;
  for (const id of ["buttons", "reading", "attending", "looking"]) $(id).inert = text !== "";
}

const ids = () => [...state.prompt, ...state.written];
const chosen = () => state.selected ?? ids().length - 1;
const number = (id, least, most) =>
  Math.min(most, Math.max(least, Math.floor(Number($(id).value) || 0)));
const sampling = () => ({
  temperature: Number($("temperature").value),
  top_p: Number($("top_p").value),
  top_k: number("top_k", 0, Infinity),
});
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

/* What is shown. */

let reading = Promise.resolve(false); // the last `refresh`

/** Read the text and show what follows from it. `goesOn`: it only grew. False for an old text. */
const refresh = (goesOn = false) => (reading = readAndShow(goesOn));

async function readAndShow(goesOn) {
  const version = ++state.version;
  const answer = await ask("read", { ids: ids(), off: [...state.off].sort(), goesOn });
  if (!answer || version !== state.version) return false;
  Object.assign(state, answer, { read: version });
  if ($("status").textContent.startsWith("Reading")) say("");
  if (state.selected !== null && state.selected < state.first) state.selected = null;
  showTokens();
  await showSelected();
  return version === state.version;
}

/** Show what depends on the token that is selected; nothing while a text is being read. */
async function showSelected() {
  const version = state.version;
  if (state.read !== version) return;
  const t = chosen() - state.first;
  const n = ids().length - state.first;
  const from = Math.max(0, n - SEEN);
  const last = Math.max(t + 1, Math.min(n, COLUMNS));
  const positions = Array.from({ length: n }, (_, i) => i).slice(Math.max(0, last - COLUMNS), last);
  const [attention, lens] = await Promise.all([
    ask("attention", { from }),
    ask("lens", { positions, n: 3 }),
    showNext(),
  ]);
  if (version !== state.version) return;
  showAttention(attention, from);
  showLens(positions, lens);
}

/** The tokens as chips; those that are there already stay, and keep the focus. */
function showTokens() {
  const box = $("tokens"), all = ids(), chips = [...box.children];
  const keys = all.slice(state.first).map((id, i) => `${state.first + i}:${id}`);
  let same = 0;
  while (same < chips.length && chips[same].dataset.key === keys[same]) same++;
  const focused = chips.indexOf(document.activeElement);
  chips.slice(same).forEach((chip) => chip.remove());
  for (let i = same; i < keys.length; i++) {
    const chip = make("button", { className: "chip" }, tokenSpan(tokenizer, all[state.first + i]));
    chip.dataset.key = keys[i];
    box.append(chip);
  }
  [...box.children].forEach((chip, i) => {
    const place = state.first + i, bits = i ? state.surprises[i - 1] : 0;
    chip.style.setProperty("--heat", Math.min(1, bits / WARM));
    chip.ariaPressed = String(place === chosen());
    chip.tabIndex = place === chosen() ? 0 : -1;
    const how = i ? `surprise ${bits.toFixed(1)} bits` : "the first that is read";
    chip.title = `token ${place}, id ${all[place]}: ${how}`;
  });
  if (focused >= same) box.children[chosen() - state.first].focus();
  if (state.selected === null) box.scrollTop = box.scrollHeight;
  showSurprise();
}

/** How surprised the model is by all of the text, and by how much more with heads switched off. */
function showSurprise() {
  const bits = state.surprises.length ? mean(state.surprises) : null;
  const { first } = state;
  const unseen = first ? `; the first ${first} are beyond its context, and not seen` : "";
  const level = bits === null ? "" : `, a surprise of ${bits.toFixed(2)} bits each`;
  $("surprise").textContent = `${ids().length} tokens${level}${unseen}`;
  const text = ids().join();
  if (!state.off.size) state.clean = { text, bits };
  const whole = state.clean.text === text ? `, with all heads ${state.clean.bits?.toFixed(2)}` : "";
  $("effect").textContent = state.off.size && bits !== null
    ? `${state.off.size} switched off: ${bits.toFixed(2)} bits a token on this text${whole}`
    : "";
  $("all-on").disabled = !state.off.size;
}

/** The likeliest next tokens. */
async function showNext() {
  const version = state.version;
  if (state.read !== version) return;
  const t = chosen() - state.first;
  const { rows, kept } = await ask("next", { t, sampling: sampling(), n: 10 });
  if (version !== state.version) return;
  const last = chosen() === ids().length - 1;
  $("next-where").textContent = last ? "" : `, after “${labelOf(tokenizer, ids()[chosen()])}”`;
  $("next").tBodies[0].replaceChildren(...nextRows(tokenizer, rows, choose));
  const [some, all] = [kept, header.known].map((n) => n.toLocaleString("en"));
  $("kept").textContent = `${some} of ${all} tokens can be drawn`;
}

/** Attention of all heads among the newest tokens, and of one enlarged. */
function showAttention(attention, from) {
  const n = ids().length - state.first - from;
  const labels = ids().slice(state.first + from).map((id) => labelOf(tokenizer, id));
  const shade = shades();
  shown = { attention, n, from, labels, shade };
  for (const box of document.querySelectorAll(".head")) {
    const { layer, head } = box.dataset;
    drawThumbnail(box.querySelector("canvas"), attention[layer][head], n, shade);
  }
  showHead();
}

/** The enlarged head, and in words what the selected token gathers from. */
function showHead() {
  if (!shown) return;
  const [layer, head] = state.head, { n, from, labels, shade } = shown;
  const p = shown.attention[layer][head];
  const row = chosen() - state.first - from;
  for (const box of document.querySelectorAll(".head")) {
    const mine = box.dataset.layer == layer && box.dataset.head == head;
    const button = box.querySelector("button");
    button.ariaPressed = String(mine);
    button.tabIndex = mine ? 0 : -1;
    box.classList.toggle("off", state.off.has(`${box.dataset.layer},${box.dataset.head}`));
  }
  shown.geometry = drawPicture($("picture"), p, n, labels, row, shade);
  const name = `Block ${layer + 1}, head ${head + 1}`;
  if (row < 0) {
    $("caption").textContent = `${name}. The chosen token is not among the newest ${n}.`;
    return;
  }
  const best = Array.from({ length: row + 1 }, (_, s) => s)
    .sort((a, b) => p[row * n + b] - p[row * n + a])
    .slice(0, 4)
    .map((s) => `“${labels[s]}” ${small(p[row * n + s])}`);
  $("caption").textContent = `${name}: “${labels[row]}” gathers from ${best.join(", ")}.`;
  $("picture").ariaLabel = $("caption").textContent;
}

/** The logit lens of the tokens up to the selected one. */
function showLens(positions, lens) {
  const all = ids();
  const columns = positions.map((t, i) => {
    const place = state.first + t;
    return { id: all[place], next: all[place + 1], chosen: place === chosen(), depths: lens[i] };
  });
  $("lens").replaceChildren(...lensRows(tokenizer, columns));
  const box = $("lens").parentElement;
  box.scrollLeft = box.scrollWidth;
}
