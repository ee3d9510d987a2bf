/** Numbers, money and times as people read them. */

const INTEGER = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(value: number): string {
  if (value < 100_000) return INTEGER.format(value);
  const units = ["", "k", "M", "G"];
  const step = Math.min(Math.floor(Math.log10(value) / 3), units.length - 1);
  return `${(value / 1000 ** step).toPrecision(3)} ${units[step]}`;
}

/** Requests a second: two digits below ten. */
export function rate(value: number): string {
  if (value === 0) return "0";
  if (value < 0.1) return "<0.1";
  return value < 10 ? value.toFixed(1) : INTEGER.format(value);
}

/** Microseconds. */
export function duration(us: number | null | undefined): string {
  if (us == null) return "–";
  const ms = us / 1000;
  if (ms < 1) return `${Math.round(us)} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** A decimal string of USD. Small amounts keep two digits that say something. */
export function money(usd: string | number | null | undefined): string {
  if (usd == null) return "–";
  const value = Number(usd);
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "$0";
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  if (size >= 1000) return `${sign}$${INTEGER.format(size)}`;
  if (size >= 0.01) return `${sign}$${size.toFixed(2)}`;
  const digits = Math.min(9, 1 - Math.floor(Math.log10(size)));
  return `${sign}$${size.toFixed(digits)}`;
}

export function percent(part: number, whole: number): string {
  if (whole === 0) return "–";
  const value = (100 * part) / whole;
  if (value === 0) return "0 %";
  if (value < 0.01) return "<0.01 %";
  return `${value < 10 ? value.toFixed(2) : value.toFixed(1)} %`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}

/** The time of day in the viewer's zone. */
export function clock(unixMs: number): string {
  const at = new Date(unixMs);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Day and time in the viewer's zone, with its offset. */
export function moment(iso: string): string {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return "–";
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${clock(at.getTime())} ${offset(at.getTimezoneOffset())}`;
}

/** How a zone that is so many minutes behind UTC is written. */
export function offset(minutesBehind: number): string {
  if (minutesBehind === 0) return "UTC";
  const ahead = Math.abs(minutesBehind);
  const rest = ahead % 60 === 0 ? "" : `:${two(ahead % 60)}`;
  return `UTC${minutesBehind < 0 ? "+" : "−"}${Math.floor(ahead / 60)}${rest}`;
}

/** How long from one instant to a later one, coarsely: the largest two units. */
export function span(fromMs: number, toMs: number): string {
  let seconds = Math.max(0, Math.round((toMs - fromMs) / 1000));
  const parts: string[] = [];
  for (const [unit, size] of [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]] as const) {
    const whole = Math.floor(seconds / size);
    if (whole > 0 && parts.length < 2) parts.push(`${whole} ${unit}`);
    seconds -= whole * size;
  }
  return parts.join(" ") || "0 s";
}

/** `first_token_timeout` as words. */
export function words(label: string): string {
  return label.replaceAll("_", " ");
}

/** The first instant of the viewer's day or month, with the offset of the zone then. */
export function beginning(of: "day" | "month", now: Date): string {
  const at = new Date(now.getFullYear(), now.getMonth(), of === "day" ? now.getDate() : 1);
  const behind = at.getTimezoneOffset();
  const ahead = Math.abs(behind);
  const zone = behind === 0 ? "Z" : `${behind < 0 ? "+" : "-"}${two(Math.floor(ahead / 60))}:${two(ahead % 60)}`;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}T00:00:00${zone}`;
}
