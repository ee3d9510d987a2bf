/** Which settings are shown, and what an origin is. */
import type { Setting } from "./api/types";

/** The settings with `text` in their name, value or origin; those that nobody wrote only if `all`. */
export function chosen(settings: Setting[], text: string, all: boolean): Setting[] {
  const wanted = text.trim().toLowerCase();
  return settings.filter(
    (one) =>
      (all || one.origin !== "default") &&
      [one.setting, one.value, one.origin].some((part) => part.toLowerCase().includes(wanted)),
  );
}

/** How many settings are from the file, from the environment, and from nowhere. */
export function origins(settings: Setting[]): { file: number; environment: number; unwritten: number } {
  const from = (beginning: string) => settings.filter((one) => one.origin.startsWith(beginning)).length;
  return { file: from("file"), environment: from("env "), unwritten: from("default") };
}
