/* What is done: the worker is asked, the text grows, keys and clicks are answered. */
"use strict";

const PACE = 60; // milliseconds at least between two tokens that are written, to be watched

/* Asking the worker. */

const source = $("worker").textContent;
const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
const waiting = new Map();
let asked = 0;

/** Ask the worker; a promise of its answer. */
function ask(name, more = {}) {
  const id = ++asked;
  worker.postMessage({ ...more, id, ask: name });
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

worker.onmessage = ({ data: { id, value, error, progress } }) => {
  if (progress !== undefined) {
    if (progress < 1) say(`Reading … ${Math.round(100 * progress)} %`);
    return;
  }
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(value);
  else reject(new Error(error));
};
worker.onerror = (event) => fail(`the model could not be started (${event.message})`);

/* The text. */

let run = 0; // a writing that is under way stops when there is a newer run

/** Stop writing. */
function stop() {
  run++;
  $("write").textContent = "Write";
}

/** Start anew from what stands in the text box. */
async function typed() {
  stop();
  const text = $("text").value;
  let found;
  try {
    found = tokenizer.encode(text);
  } catch (error) {
    return fail(error.message);
  }
  fail("");
  state.base = text;
  const start = header.end === null ? [] : [header.end];
  state.prompt = found.length ? [...start, ...found] : header.start;
  state.written = [];
  state.selected = null;
  $("undo").disabled = true;
  if (await refresh()) say("");
}

/** The text box shows the text and what was added to it. */
function showText() {
  const hidden = state.base ? (header.end === null ? 0 : 1) : state.prompt.length;
  $("text").value = tokenizer.decodeStream(ids().slice(hidden));
  $("text").scrollTop = $("text").scrollHeight;
  $("undo").disabled = !state.written.length;
}

/** Append a token to the text. False if the text was changed meanwhile. */
async function append(id) {
  state.written.push(id);
  showText();
  return refresh(true);
}

/** Let the model write up to n tokens. */
async function write(n) {
  const mine = ++run;
  if (state.read !== state.version && (!(await reading) || run !== mine)) return;
  state.selected = null;
  if (n > 1) $("write").textContent = "Stop";
  let done = 0, ended = false;
  while (done < n && !ended) {
    const started = performance.now();
    const k = state.written.length; // each token of a text has a random number of its own
    const seed = number("seed", 0, 2 ** 32 - 1);
    const id = await ask("step", { sampling: sampling(), seed, k });
    if (run !== mine) return;
    ended = id === header.end;
    if (!ended && !(await append(id))) return;
    done += !ended;
    const rest = n > 1 ? PACE - (performance.now() - started) : 0;
    await new Promise((wake) => setTimeout(wake, Math.max(0, rest)));
    if (run !== mine) return;
  }
  stop();
  const end = ended ? "; here the model ends its text" : "";
  say(`${done} token${done === 1 ? "" : "s"} written${end}`);
}

/** Write this token next: after the whole text, or in place of what follows the selected one. */
async function choose(id) {
  stop();
  if (id === header.end) return say("Here the model would end its text.");
  const before = ids().slice(0, chosen() + 1);
  if (before.length < state.prompt.length) {
    state.prompt = before;
    state.base = tokenizer.decode(before.slice(header.end === null ? 0 : 1));
  }
  state.written = before.slice(state.prompt.length);
  state.selected = null;
  await append(id);
}

/** Take the last token back. */
async function undo() {
  stop();
  state.written.pop();
  state.selected = null;
  showText();
  await refresh();
}

/* The pictures. */

/** Choose the token at a place of the text. */
async function select(place, focus = false) {
  const last = ids().length - 1;
  const at = Math.min(last, Math.max(state.first, place));
  state.selected = at === last ? null : at;
  showTokens();
  if (focus) $("tokens").children[at - state.first]?.focus();
  await showSelected();
}

/** Enlarge a head. */
function enlarge(layer, head, focus = false) {
  const { n_layer: L, n_head: H } = header.config;
  state.head = [Math.min(L - 1, Math.max(0, layer)), Math.min(H - 1, Math.max(0, head))];
  showHead();
  if (focus) document.querySelector('.head button[aria-pressed="true"]').focus();
}

/** Switch a head on or off. */
async function switchHead(name, on) {
  stop();
  if (on) state.off.delete(name);
  else state.off.add(name);
  await refresh(true);
}

/** One head: its picture, and its switch. */
function headBox(layer, head) {
  const name = `block ${layer + 1}, head ${head + 1}`;
  const button = make("button", { ariaLabel: `enlarge ${name}` }, make("canvas", {}));
  button.addEventListener("click", () => enlarge(layer, head));
  const box = make("input", { type: "checkbox", checked: true, ariaLabel: `${name} is on` });
  box.addEventListener("change", () => switchHead(`${layer},${head}`, box.checked));
  const element = make("div", { className: "head" }, button);
  element.append(make("label", { title: `switch ${name} on or off` }, box, `${head + 1}`));
  Object.assign(element.dataset, { layer, head });
  return element;
}

/** The grid of heads, a block a row. */
function makeHeads() {
  const { n_layer: L, n_head: H } = header.config;
  $("heads").style.setProperty("--columns", H);
  for (let layer = 0; layer < L; layer++) {
    $("heads").append(make("span", { className: "block" }, `block ${layer + 1}`));
    for (let head = 0; head < H; head++) $("heads").append(headBox(layer, head));
  }
}

/* The beginning. */

const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** Answer clicks and keys. */
function listen() {
  $("text").addEventListener("input", typed);
  $("write").addEventListener("click", () => {
    if ($("write").textContent === "Stop") stop();
    else write(number("count", 1, 5000));
  });
  $("step").addEventListener("click", () => write(1));
  $("undo").addEventListener("click", undo);
  for (const id of ["temperature", "top_p", "top_k"]) $(id).addEventListener("input", settings);
  $("tokens").addEventListener("click", ({ target }) => {
    const chip = target.closest(".chip");
    if (chip) select(state.first + [...$("tokens").children].indexOf(chip));
  });
  $("tokens").addEventListener("keydown", (event) => {
    const ends = { Home: -Infinity, End: Infinity };
    const move = ends[event.key] ?? ARROWS[event.key]?.reduce((down, right) => down + right);
    if (move === undefined) return;
    event.preventDefault();
    select(chosen() + move, true);
  });
  $("heads").addEventListener("keydown", (event) => {
    if (!ARROWS[event.key] || event.target.tagName !== "BUTTON") return;
    event.preventDefault();
    enlarge(state.head[0] + ARROWS[event.key][0], state.head[1] + ARROWS[event.key][1], true);
  });
  $("all-on").addEventListener("click", () => {
    state.off.clear();
    for (const box of document.querySelectorAll(".head input")) box.checked = true;
    switchHead("", true);
  });
  $("picture").addEventListener("click", ({ offsetY }) => {
    const { margin, cell, m, begin } = shown.geometry;
    const row = Math.floor((offsetY - margin) / cell);
    if (row >= 0 && row < m) select(state.first + shown.from + begin + row);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
    const go = event.key === "Enter" && (event.ctrlKey || event.metaKey);
    if (go && $("error").hidden) write(number("count", 1, 5000));
  });
  new ResizeObserver(showHead).observe($("heads"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showSelected);
}

/** Show the settings, and what they do to the next token. */
function settings() {
  $("temperature-value").textContent = Number($("temperature").value).toFixed(2);
  $("top_p-value").textContent = Number($("top_p").value).toFixed(2);
  showNext();
}

/** Open the model, compare it with PyTorch's numbers, read the first text. */
async function begin() {
  const { config, facts, sampling: usual } = header;
  const count = (n) => n.toLocaleString("en");
  const words = { bpe: "tokens (BPE)", char: "characters" };
  $("facts").textContent = [
    `${count(facts.params)} parameters (${facts.type === "f16" ? "float16" : facts.type})`,
    `${config.n_layer} blocks of ${config.n_head} heads, width ${count(config.d_model)}`,
    `reads ${count(config.block_size)} at once`,
    `knows ${count(header.known)} ${words[header.tokenizer.kind]}`,
    ...(facts.text ? [`learnt from ${facts.text}`] : []),
    ...(facts.val_loss ? [`validation loss ${facts.val_loss.toFixed(3)}`] : []),
  ].join(" · ");
  $("text").value = header.text;
  $("temperature").value = usual.temperature;
  $("top_k").value = usual.top_k ?? 0;
  $("top_p").value = usual.top_p ?? 1;
  makeHeads();
  listen();
  settings();
  const gap = await ask("open", { header, weights: $("weights").textContent });
  $("weights").remove(); // the worker has them now
  const equal = `Checked on opening: its logits are PyTorch's to ${gap.toExponential(0)}.`;
  $("checked").textContent = gap < 1e-3 ? equal : `Its logits differ from PyTorch's by ${gap}!`;
  await typed();
}

begin().catch((error) => fail(error.message));
