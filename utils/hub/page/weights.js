/* Bytes of a file -> tensors as Float32Arrays by name. utils/hub/html.py writes them. */
"use strict";

/** The 65,536 numbers of float16 (sign, 5 bits of exponent, 10 of fraction) as float32. */
function halfTable() {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = (bits & 1023) / 1024;
    // exponent 0 has no leading 1: these are the subnormal numbers
    table[bits] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
  }
  return table;
}

/** Base64 -> bytes. */
function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** The tensors of a file by name. `table` says [name, shape, "f32" | "f16" | "int8" | "int4", offset].
    int8 has a float32 for each row before its bytes, by which they are multiplied. int4 has 0..15,
    two a byte, after scales and zeros in float16, one for 32 weights each: s q + z. */
function unpackTensors(table, bytes) {
  const half = halfTable();
  const tensors = {};
  for (const [name, shape, type, offset] of table) {
    const size = shape.reduce((a, b) => a * b, 1);
    const part = (start, length) => bytes.slice(offset + start, offset + start + length).buffer;
    const halves = (start, n) =>
      Float32Array.from(new Uint16Array(part(start, 2 * n)), (bits) => half[bits]);
    if (type === "f32") {
      tensors[name] = new Float32Array(part(0, 4 * size));
    } else if (type === "f16") {
      tensors[name] = halves(0, size);
    } else if (type === "int4") {
      const groups = size / 32;
      const scale = halves(0, groups), zero = halves(2 * groups, groups);
      const q = new Uint8Array(part(4 * groups, size / 2));
      const code = (i) => (q[i >> 1] >> (4 * (i & 1))) & 15;
      tensors[name] = Float32Array.from({ length: size }, (_, i) =>
        scale[i >> 5] * code(i) + zero[i >> 5]);
    } else {
      const rows = shape[0], cols = size / rows;
      const scale = new Float32Array(part(0, 4 * rows));
      const q = new Int8Array(part(4 * rows, size));
      const w = new Float32Array(size);
      for (let i = 0; i < size; i++) w[i] = q[i] * scale[Math.floor(i / cols)];
      tensors[name] = w;
    }
  }
  return tensors;
}
