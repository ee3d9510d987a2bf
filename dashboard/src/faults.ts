/** Faults that are injected on purpose, as this page asks for them. */
import { api } from "./api/client";
import type { Fault } from "./api/types";
import { faults, readFaults } from "./store";

/** How long something stays broken unless it is mended before. */
export const LASTS = "2m";

export function faultText(fault: Fault): string {
  const what = fault.deployment === null ? `region ${fault.region ?? ""}` : `deployment ${fault.deployment}`;
  const share = fault.share === 100 ? "" : ` for ${fault.share} of 100 attempts`;
  switch (fault.kind) {
    case "delay":
      return `${what} answers ${fault.delay_ms ?? 0} ms later${share}`;
    case "status":
      return `${what} answers ${fault.status ?? 0}${share}`;
    case "cut":
      return `${what} breaks off after ${fault.frames ?? 0} frames${share}`;
    default:
      return `${what} refuses every connection${share}`;
  }
}

/** The fault that this page injected into a region or a deployment. */
export function faultAt(all: Fault[], at: { region: string } | { deployment: string }): Fault | undefined {
  return all.find((fault) => ("region" in at ? fault.region === at.region : fault.deployment === at.deployment));
}

export async function breakIt(at: { region: string } | { deployment: string }): Promise<void> {
  await api.post("/faults", { kind: "refuse", ...at, expires_in: LASTS });
  await readFaults();
}

export async function mend(fault: Fault): Promise<void> {
  await api.remove(`/faults/${fault.id}`);
  await readFaults();
}

export function endFault(fault: Fault): void {
  mend(fault).catch(() => {
    // It may have ended meanwhile.
    faults.set(faults.get().filter((one) => one.id !== fault.id));
  });
}
