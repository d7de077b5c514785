/* The page: its modes, its columns, its keys, what it keeps from visit to visit. */

import * as card from "./card.js";
import { begin, trouble } from "./connection.js";
import * as history from "./history.js";
import { keep, read } from "./kept.js";
import { Pane } from "./pane.js";
import { showPrompt } from "./prompt.js";
import { make } from "./tokens.js";

const STATE = "llm-tiny.page";
const $ = (id) => document.getElementById(id);

const current = { write: null, chat: null }; // ids of the history: what is on the screen

const app = {
  models: [],

  /** What is under way has changed. */
  busy() {
    const writing = active().some((pane) => pane.control);
    const able = mode() === "write" ? app.models.length : active().some((pane) => pane.model?.chat);
    for (const button of document.querySelectorAll(".go")) button.disabled = writing || !able;
    for (const button of document.querySelectorAll(".stop")) button.disabled = !writing;
  },

  /** A model or a setting was changed. */
  changed() {
    app.busy();
    keepState();
    tokens();
  },

  /** Keep what is on the screen; `fresh`: as an entry of its own. */
  keep(fresh) {
    const first = panes[0].turns.find(({ role }) => role === "user")?.text;
    const title = mode() === "write" ? panes[0].prompt : first;
    if (title === undefined) return;
    if (fresh || !current[mode()]) current[mode()] = `${Date.now()} ${Math.random()}`;
    const more = panes[0].newest?.text.slice(0, 200) ?? "";
    const contents = active().map((pane) => pane.content);
    const what = { mode: mode(), title, more, system: $("system").value, panes: contents };
    history.add({ id: current[mode()], at: Date.now(), ...what });
    keepState();
    showHistory();
  },

  trouble,

  announce(text) {
    $("said").append(make("span", {}, text));
  },
};

const panes = [new Pane(app), new Pane(app)];
const mode = () => document.querySelector("[name=mode]:checked").value;
const active = () => ($("compare").checked ? panes : panes.slice(0, 1));
const tokens = () => showPrompt($("prompt").value, panes[0].model);

/* What is kept from visit to visit. */

function keepState() {
  const setups = panes.map((pane) => pane.setup);
  keep(STATE, {
    mode: mode(), compare: $("compare").checked, colours: $("colours").checked, current,
    prompt: $("prompt").value, system: $("system").value, setups,
  });
}

function restoreState() {
  const state = read(STATE, {});
  for (const was of state.mode === "chat" ? ["write", "chat"] : ["chat", "write"]) {
    const last = history.entries().find(({ id }) => id === state.current?.[was]);
    if (last) open(last);
  }
  document.querySelector(`[value=${state.mode === "chat" ? "chat" : "write"}]`).checked = true;
  $("compare").checked = Boolean(state.compare);
  $("colours").checked = state.colours ?? true;
  $("prompt").value = state.prompt ?? $("prompt").value;
  $("system").value = state.system ?? "";
  state.setups?.forEach((setup, i) => (panes[i].setup = setup));
}

/** Have an entry of the history back. */
function open({ id, mode: was, title, system, panes: contents }) {
  stop();
  document.querySelector(`[name=mode][value=${was === "chat" ? "chat" : "write"}]`).checked = true;
  current[mode()] = id;
  $("compare").checked = contents.length > 1;
  if (was === "write") $("prompt").value = title;
  else $("system").value = system ?? "";
  contents.slice(0, 2).forEach((content, i) => (panes[i].content = content));
  arrange();
  tokens();
}

const when = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function showHistory() {
  const rows = history.entries().map((one, i) => {
    const names = one.panes.map(({ model }) => model).join(" | ");
    const button = make("button", { className: "entry" },
      make("span", { className: "entry-title" }, one.title.slice(0, 200),
        make("span", { className: "soft" }, one.mode === "chat" ? ` → ${one.more}` : one.more)),
      make("span", { className: "soft" }, `${names} · ${one.mode} · ${when.format(one.at)}`));
    if (one.id === current[mode()]) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => {
      open(one);
      $("entries").querySelector("[aria-current]").focus({ preventScroll: true });
      window.scrollTo({ top: 0 });
    });
    const forget = make("button", { className: "forget" }, "×");
    forget.ariaLabel = `Forget “${one.title.slice(0, 40)}”`;
    forget.addEventListener("click", () => {
      history.remove(one.id);
      showHistory();
      $("entries").querySelectorAll(".forget")[Math.max(0, i - 1)]?.focus();
    });
    return make("li", {}, button, forget);
  });
  $("entries").replaceChildren(...rows);
  $("clear").disabled = !rows.length;
  $("clear").textContent = "Clear history";
}

function clearHistory() {
  if ($("clear").textContent === "Clear history") {
    $("clear").textContent = "Clear all of it?";
    return;
  }
  history.clear();
  showHistory();
}

/* The server. */

/** These models are served, from the beginning or again. */
function served(models) {
  app.models = models;
  for (const pane of panes) pane.offer(models);
  app.busy();
  tokens();
}

/* What is done. */

function stop() {
  for (const pane of panes) pane.stop();
}

async function go() {
  if (document.querySelector(".go").disabled) return;
  $("said").replaceChildren();
  const chat = mode() === "chat", system = $("system").value.trim();
  const text = chat ? $("message").value.trim() : $("prompt").value;
  if (chat && !text) return;
  if (chat) $("message").value = "";
  const fresh = !chat || !panes[0].turns.length;
  const used = active(), before = used.map((pane) => pane.newest);
  await Promise.all(used.map((pane) => (chat ? pane.send(text, system) : pane.write(text))));
  const answered = used.some(({ newest }, i) => newest !== before[i] && newest?.tokens.length);
  if (answered) app.keep(fresh);
  if (chat && !answered) $("message").value ||= text;
}

function newChat() {
  stop();
  current.chat = null;
  for (const pane of panes) pane.content = { ...pane.setup, turns: [] };
  $("message").focus();
  keepState();
}

/** Show what belongs to the mode. */
function arrange() {
  const chat = mode() === "chat", side = $("compare").checked;
  $("write-composer").hidden = chat;
  $("chat-composer").hidden = $("system-box").hidden = !chat;
  document.body.classList.toggle("side", side);
  panes[1].element.hidden = !side;
  for (const pane of panes) {
    pane.mode = mode();
    pane.show();
  }
  app.busy();
  showHistory();
  keepState();
}

/** Settings are open where there is room beside the text. */
function unfold() {
  const room = !$("compare").checked && matchMedia("(min-width: 56rem)").matches;
  for (const pane of panes) pane.parts.box.open = room;
}

function colour() {
  document.body.classList.toggle("plain", !$("colours").checked);
  keepState();
}

/** Two columns: the second begins as the first, with the next model if there is one. */
function compare() {
  const [one, two] = panes;
  if ($("compare").checked && !two.written && !two.turns.length) {
    const next = app.models.findIndex(({ id }) => id === one.setup.model) + 1;
    two.setup = { ...one.setup, model: (app.models[next] ?? app.models[0])?.id };
  }
  if (!$("compare").checked) two.stop();
  unfold();
  arrange();
}

function listen() {
  for (const button of document.querySelectorAll(".go")) button.addEventListener("click", go);
  for (const button of document.querySelectorAll(".stop")) button.addEventListener("click", stop);
  for (const radio of document.querySelectorAll("[name=mode]")) {
    radio.addEventListener("change", () => {
      stop();
      arrange();
    });
  }
  $("compare").addEventListener("change", compare);
  $("colours").addEventListener("change", colour);
  $("clear").addEventListener("click", clearHistory);
  $("clear").addEventListener("blur", showHistory);
  $("new-chat").addEventListener("click", newChat);
  $("prompt").addEventListener("input", app.changed);
  $("system").addEventListener("input", keepState);
  $("message").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    go();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      card.leave();
      stop();
    }
    const enter = event.key === "Enter" && (event.ctrlKey || event.metaKey);
    if (enter && event.target.id !== "message") go();
  });
  window.addEventListener("storage", showHistory); // another tab
}

$("host").textContent = location.host;
$("panes").append(...panes.map(({ element }) => element));
try {
  restoreState();
} catch (error) { // kept by another version of this page
  console.warn(error);
}
listen();
colour();
unfold();
arrange();
await begin(served);
