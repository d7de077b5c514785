/* Pictures of what the worker answers: tokens, bars, attention, the logit lens. It knows elements
   and colours, but neither the model nor what the page does next. Text enters the page only as
   text: no token can become markup. */
"use strict";

/** Make an element: properties, then children (elements or texts). */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const digits = (p) => (p >= 0.0995 ? (100 * p).toFixed(0) : (100 * p).toPrecision(2));
const ends = (p) => (p < 0.001 ? "< 0.1 %" : "> 99.9 %");
const small = (p) => (p < 0.001 || (p > 0.999 && p < 1) ? ends(p) : `${digits(p)} %`);

/** The pieces of a token as [text, whether it is a mark]: spaces, line breaks and lone bytes are
    shown as marks. */
function piecesOf(tokenizer, id) {
  const text = tokenizer.decode([id]);
  if (text.includes("\ufffd") && tokenizer.bytesOf) {
    const bytes = [...tokenizer.bytesOf([id])].map((b) => b.toString(16).padStart(2, "0"));
    return [[`‹${bytes.join(" ")}›`, true]];
  }
  const marks = { " ": "·", "\n": "↵", "\r": "␍", "\t": "⇥" };
  return Array.from(text, (c) => (c in marks ? [marks[c], true] : [c, false]));
}

/** A token as one line of plain text, for labels. */
const labelOf = (tokenizer, id) => piecesOf(tokenizer, id).map(([text]) => text).join("");

/** A token as an element. */
function tokenSpan(tokenizer, id) {
  const span = make("span", { className: "token" });
  for (const [text, mark] of piecesOf(tokenizer, id)) {
    span.append(mark ? make("span", { className: "mark" }, text) : text);
  }
  return span;
}

/** A probability as a bar with its number; nothing where it is 0. */
function bar(p) {
  if (p === 0) return make("span", { className: "bar cut" }, "–");
  const element = make("span", { className: "bar" }, small(p));
  element.style.setProperty("--share", p);
  return element;
}

/** A colour of the style sheet as [red, green, blue]. */
function colour(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim().slice(1);
  return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

/** What attention p looks like: from the page's colour to the accent; small ones show, too. */
function shades() {
  const from = colour("--page"), to = colour("--accent");
  return (p) => from.map((x, i) => Math.round(x + (to[i] - x) * p ** 0.6));
}

/** Draw attention (n,n) into a canvas, one pixel a pair of tokens. */
function drawThumbnail(canvas, attention, n, shade) {
  canvas.width = canvas.height = Math.max(1, n);
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.width);
  for (let i = 0; i < n * n; i++) {
    const ahead = i % n > Math.floor(i / n); // a token that comes later, which is never seen
    image.data.set(ahead ? [0, 0, 0, 0] : [...shade(attention[i]), 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

/** Draw as many of n tokens as have room, the newest or up to the chosen row, with their names.
    Gives the geometry, so that a click finds its row. */
function drawPicture(canvas, attention, n, labels, chosen, shade) {
  const text = getComputedStyle(document.body).color;
  const width = canvas.clientWidth || 320, dots = window.devicePixelRatio || 1;
  const context = canvas.getContext("2d");
  const font = (size) => `${size}px ${getComputedStyle(canvas).getPropertyValue("--mono")}`;
  context.font = font(13);
  const longest = Math.max(...labels.map((name) => context.measureText(name).width));
  const margin = Math.min(110, width * 0.25, longest + 12);
  const m = Math.max(1, Math.min(n, Math.floor((width - margin) / 15)));
  const newest = chosen < 0 || chosen >= n - m;
  const begin = newest ? n - m : Math.max(0, chosen + 1 - m);
  const cell = Math.min(34, (width - margin) / m), height = margin + cell * m;
  canvas.width = width * dots;
  canvas.height = height * dots;
  canvas.style.height = `${height}px`;
  context.scale(dots, dots);
  context.font = font(Math.min(13, cell - 2));
  context.textBaseline = "middle";
  for (let row = 0; row < m; row++) {
    const name = labels[begin + row];
    const bold = begin + row === chosen;
    context.fillStyle = bold ? `rgb(${colour("--accent")})` : text;
    context.textAlign = "right";
    context.fillText(name, margin - 6, margin + (row + 0.5) * cell, margin - 8);
    context.save();
    context.translate(margin + (row + 0.5) * cell, margin - 6);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(name, 0, 0, margin - 8);
    context.restore();
    for (let column = 0; column <= row; column++) {
      const p = attention[(begin + row) * n + begin + column];
      context.fillStyle = `rgb(${shade(p)})`;
      context.fillRect(margin + column * cell, margin + row * cell, cell - 1, cell - 1);
    }
  }
  if (chosen >= begin) {
    const row = chosen - begin;
    context.strokeStyle = `rgb(${colour("--accent")})`;
    context.strokeRect(margin - 0.5, margin + row * cell - 0.5, (row + 1) * cell, cell);
  }
  return { margin, cell, m, begin };
}

/** Rows of the table of next tokens; `choose(id)` is called by their buttons. */
function nextRows(tokenizer, rows, choose) {
  return rows.map(([id, before, after]) => {
    const button = make("button", { title: "Write this token" }, tokenSpan(tokenizer, id));
    button.addEventListener("click", () => choose(id));
    const cells = [button, bar(before), bar(after)].map((content) => make("td", {}, content));
    return make("tr", {}, ...cells);
  });
}

/** The logit lens as rows of a table: `columns` of {id, next, chosen, depths}, of each depth the
    likeliest tokens as [id, p]. */
function lensRows(tokenizer, columns) {
  const names = columns.map(({ id, chosen }) =>
    make("th", { scope: "col", className: chosen ? "chosen" : "" }, tokenSpan(tokenizer, id)));
  const rows = [make("tr", {}, make("th", { scope: "row" }, "token"), ...names)];
  for (let depth = 0; depth < (columns[0]?.depths.length || 0); depth++) {
    const name = depth === 0 ? "embedding" : `block ${depth}`;
    const cells = columns.map(({ next, chosen, depths }) => {
      const [[id, p]] = depths[depth];
      const likely = depths[depth].map(([i, q]) => `${labelOf(tokenizer, i)} ${small(q)}`);
      const cell = make("td", { title: likely.join("\n") }, tokenSpan(tokenizer, id));
      cell.className = `${id === next ? "true" : ""} ${chosen ? "chosen" : ""}`;
      cell.style.setProperty("--share", p);
      return cell;
    });
    rows.push(make("tr", {}, make("th", { scope: "row" }, name), ...cells));
  }
  return rows;
}
