/* Tokens as text, labels and colours. A token is {id, bytes, logprob, top}: its bytes may be a part
   of a character. Text enters the page only as text: no token can become markup. */

const WARM = 8; // bits of surprise at which a token is warmest
const MARKS = { " ": "·", "\n": "↵", "\r": "␍", "\t": "⇥" };

/** Make an element: properties, then children (elements or texts). */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A decoder of bytes that come in parts; what is no UTF-8 becomes U+FFFD. */
export const decoder = () => new TextDecoder("utf-8", { ignoreBOM: true });

/** Bytes as hexadecimal: [32, 255] -> "20 ff". */
export const hex = (bytes) => bytes.map((b) => b.toString(16).padStart(2, "0")).join(" ");

/** A token alone as [text, whether it is a mark]: spaces, line breaks and lone bytes are marks. */
export function pieces(bytes) {
  if (!bytes.length) return [["‹nothing›", true]];
  let text;
  try {
    text = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true }).decode(Uint8Array.from(bytes));
  } catch {
    return [[`‹${hex(bytes)}›`, true]];
  }
  return Array.from(text, (c) => (c in MARKS ? [MARKS[c], true] : [c, false]));
}

/** A token alone as an element. */
export function tokenSpan(bytes) {
  const span = make("span", { className: "token" });
  for (const [text, mark] of pieces(bytes)) {
    span.append(mark ? make("span", { className: "mark" }, text) : text);
  }
  return span;
}

/** A token as a line of plain text. */
export const label = (bytes) => pieces(bytes).map(([text]) => text).join("");

/** How surprising a token was: 0 to 1. */
export const heat = (logprob) => Math.min(1, Math.max(0, -logprob / Math.LN2 / WARM));

/** A probability in percent. */
export function percent(logprob) {
  const p = Math.exp(logprob);
  if (p < 0.001) return "< 0.1 %";
  if (p > 0.999) return "> 99.9 %";
  return `${(100 * p).toPrecision(p < 0.995 ? 2 : 3)} %`;
}
