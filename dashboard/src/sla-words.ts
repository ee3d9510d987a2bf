/** The figures of an SLA as people read them. */

/** Whether a share is what was promised, or better; null: nothing was asked. Both are written such as "99.9%". */
export function isKept(share: string | null, promised: string): boolean | null {
  return share === null ? null : Number.parseFloat(share) >= Number.parseFloat(promised);
}

/** Seconds of error budget; a promise that is not kept has less than none. */
export function budgetLeft(seconds: number): string {
  const size = Math.abs(seconds);
  const text = size < 120 ? `${size} s` : size < 7200 ? `${Math.round(size / 60)} min` : `${(size / 3600).toFixed(1)} h`;
  return seconds < 0 ? `−${text}` : text;
}

/** Thousandths of the pace that uses the budget up in just a month. */
export function burn(thousandths: number | null): string {
  if (thousandths === null) return "–";
  const times = thousandths / 1000;
  return `${times < 10 ? times.toFixed(1) : Math.round(times)} ×`;
}

/** The calendar month before one that is written such as 2026-01. */
export function monthBefore(month: string): string {
  const [year = 0, number = 1] = month.split("-").map(Number);
  return number > 1 ? `${year}-${String(number - 1).padStart(2, "0")}` : `${year - 1}-12`;
}
