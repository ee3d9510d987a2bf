/** Every view is a URL: the part behind `#`, which is never sent to a server. */

export const PAGES = ["overview", "map", "requests", "keys", "cost", "sla", "posture", "configuration"] as const;
export type PageName = (typeof PAGES)[number];

export interface Route {
  page: PageName;
  /** What the page shows in detail: a request's id, a key's name. */
  detail: string | null;
  query: Record<string, string>;
}

/** What signs a browser in once, where the URL is such a link. */
export function linkToken(hash: string): string | null {
  return /^#(twl_[0-9A-Za-z]+)$/.exec(hash)?.[1] ?? null;
}

export function parse(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [name = "", ...rest] = path.split("/");
  const page = PAGES.find((one) => one === name) ?? "overview";
  const detail = decoded(rest.join("/"));
  return { page, detail: detail === "" ? null : detail, query: Object.fromEntries(new URLSearchParams(search)) };
}

export function build(page: PageName, detail: string | null = null, query: Record<string, string> = {}): string {
  const kept = Object.entries(query).filter(([, value]) => value !== "");
  const search = kept.length === 0 ? "" : `?${new URLSearchParams(kept)}`;
  return `#/${page}${detail === null ? "" : `/${encodeURIComponent(detail)}`}${search}`;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
