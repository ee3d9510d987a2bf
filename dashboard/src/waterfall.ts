/** The time line of one request: attempts, and the waits between them. */
import type { RequestRow } from "./api/types";

export interface Bar {
  kind: "attempt" | "wait" | "answer";
  label: string;
  /** Why it ended so: the reason of an attempt. */
  reason: string | null;
  startUs: number;
  endUs: number;
  good: boolean;
}

/** The bars in the order of their beginning, and the length of the whole in microseconds. */
export function waterfall(request: RequestRow): { bars: Bar[]; totalUs: number } {
  const bars: Bar[] = [];
  let seenUntil = 0;
  for (const attempt of request.attempts) {
    const startUs = attempt.started_us ?? seenUntil;
    const endUs = startUs + attempt.duration_us;
    // Below a twentieth of the whole, or a millisecond, a gap is not a wait that explains anything.
    if (startUs - seenUntil > Math.max(1000, request.duration_us / 20)) {
      bars.push({ kind: "wait", label: "wait", reason: null, startUs: seenUntil, endUs: startUs, good: true });
    }
    bars.push({
      kind: "attempt",
      label: attempt.deployment,
      reason: attempt.reason,
      startUs,
      endUs,
      good: attempt.reason === "served",
    });
    seenUntil = Math.max(seenUntil, endUs);
  }
  const first = request.first_token_us;
  if (first !== null && request.duration_us > first) {
    const good = request.outcome === "served";
    bars.push({ kind: "answer", label: "answer", reason: null, startUs: first, endUs: request.duration_us, good });
  }
  const totalUs = Math.max(1, request.duration_us, ...bars.map((bar) => bar.endUs));
  return { bars, totalUs };
}
