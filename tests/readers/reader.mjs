// A provider in JavaScript, as far as it reads: bodies come on standard input, each behind its length in four bytes, and
// a line for each says what was read: of the parsed body, of a copy of it, and by a reader that ignores case.

const typed = (value, type) => {
  if (value !== undefined && value !== null && typeof value !== type) throw new TypeError("refused");
  return value ?? null;
};

// Beyond 2^53 readers differ by rounding, and no model is that long.
const whole = (value) => (typed(value, "number") === null ? null : Math.min(value, 2 ** 53));

const object = (value) => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new TypeError("refused");
  return value;
};

const as = [
  (read) => read,
  (read) => Object.assign({}, read),
  (read) => Object.fromEntries(Object.entries(read).map(([name, value]) => [name.toLowerCase(), value])),
];

const reading = (parsed, copy) => {
  const members = (value) => copy(object(value));
  const read = members(parsed);
  let images = false;
  for (const message of typed(read.messages, "object") ?? []) {
    const { content } = members(message);
    if (!Array.isArray(content)) continue;
    images ||= content.some((part) => ["image_url", "input_image"].includes(members(part).type));
  }
  const options = members(read.stream_options ?? {});
  return [
    typed(read.model, "string"),
    typed(read.stream, "boolean") ?? false,
    typed(options.include_usage, "boolean") ?? false,
    whole(read.n),
    whole(read.max_tokens),
    whole(read.max_completion_tokens),
    images,
  ];
};

const readings = (text) =>
  as.map((copy) => {
    try {
      return reading(JSON.parse(text), copy);
    } catch (error) {
      if (error instanceof TypeError || error instanceof SyntaxError) return null;
      throw error;
    }
  });

let left = Buffer.alloc(0);
for await (const chunk of process.stdin) {
  left = Buffer.concat([left, chunk]);
  let at = 0;
  const lines = [];
  while (left.length - at >= 4 && left.length - at - 4 >= left.readUInt32BE(at)) {
    const end = at + 4 + left.readUInt32BE(at);
    lines.push(JSON.stringify(readings(left.toString("utf8", at + 4, end))));
    at = end;
  }
  left = left.subarray(at);
  if (lines.length > 0 && !process.stdout.write(`${lines.join("\n")}\n`)) {
    await new Promise((resolve) => process.stdout.once("drain", resolve));
  }
}
