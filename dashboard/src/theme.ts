/** Light or dark: as the system is, or as this browser was told. */
import { Store } from "./store";

export type Theme = "auto" | "light" | "dark";
const STORED = "tierway-theme";
const THEMES: Theme[] = ["auto", "light", "dark"];

export const theme = new Store<Theme>("auto");

function apply(chosen: Theme): void {
  if (chosen === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  theme.set(chosen);
}

export function readTheme(): void {
  const stored = localStorage.getItem(STORED);
  apply(THEMES.find((one) => one === stored) ?? "auto");
}

export function nextTheme(): void {
  const next = THEMES[(THEMES.indexOf(theme.get()) + 1) % THEMES.length] ?? "auto";
  localStorage.setItem(STORED, next);
  apply(next);
}

/** A colour of the style sheet, as it is now: red, green and blue. What is drawn on a canvas knows no variables. */
export function colour(name: string, opacity = 1): string {
  const probe = document.createElement("span");
  probe.hidden = true;
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const parts = /[\d.]+, [\d.]+, [\d.]+/.exec(getComputedStyle(probe).color)?.[0] ?? "0, 0, 0";
  probe.remove();
  return `rgba(${parts}, ${opacity})`;
}
