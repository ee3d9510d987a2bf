/** Requests to the admin API, by the session of this browser. */
import type { Session } from "./types";

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly param: string | null,
  ) {
    super(message);
  }
}

let csrf: string | null = null;
let whenSignedOut: () => void = () => {};

/** What is done when the gateway does not know the session any more. */
export function onSignedOut(then: () => void): void {
  whenSignedOut = then;
}

/** Whether the gateway still knows the session; where it does not, that is told. true: it does not answer at all. */
export async function isSignedIn(): Promise<boolean> {
  const known = await currentSession().then(
    (session) => session !== null,
    () => true,
  );
  if (!known) whenSignedOut();
  return known;
}

async function send(method: string, path: string, body: unknown, headers: Record<string, string>): Promise<Response> {
  const init: RequestInit = { method, headers, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    headers["content-type"] = "application/json";
  }
  try {
    return await fetch(path, init);
  } catch {
    throw new ApiError(0, "unreachable", "The gateway does not answer. Is it running?", null);
  }
}

async function read<T>(response: Response): Promise<T> {
  const json: unknown = await response.json().catch(() => null);
  if (response.ok) return json as T;
  const error = (json as { error?: { code?: string; message?: string; param?: string | null } } | null)?.error;
  const message = error?.message ?? `The gateway answered ${response.status}.`;
  throw new ApiError(response.status, error?.code ?? "unknown", message, error?.param ?? null);
}

async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const ask = () => {
    const headers: Record<string, string> = {};
    if (method !== "GET" && csrf !== null) headers["x-tierway-csrf"] = csrf;
    return send(method, `/admin/v1${path}`, body, headers);
  };
  let response = await ask();
  const before = csrf;
  // Another tab may have signed in since, with a session of its own for the whole browser.
  if (response.status === 403 && method !== "GET" && (await currentSession()) !== null && csrf !== before) response = await ask();
  if (response.status === 401) whenSignedOut();
  return read<T>(response);
}

export const api = {
  get: <T>(path: string) => call<T>("GET", path),
  post: <T>(path: string, body?: unknown) => call<T>("POST", path, body),
  patch: <T>(path: string, body: unknown) => call<T>("PATCH", path, body),
  remove: <T>(path: string) => call<T>("DELETE", path),
};

/** A path segment of a name: its slashes are part of the name. */
export function segment(name: string): string {
  return encodeURIComponent(name);
}

/** The query of these parameters; those without a value are left out. */
export function query(parameters: Record<string, string | number | null | undefined>): string {
  const given = Object.entries(parameters).filter(([, value]) => value != null && value !== "");
  if (given.length === 0) return "";
  return `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`;
}

/** Presents a token once; the cookie that comes back stands for it. */
export async function signIn(token: string): Promise<Session> {
  const response = await send("POST", "/admin/v1/session", undefined, { authorization: `Bearer ${token}` });
  return keep(await read<Session>(response));
}

/** The session that this browser has; null: it has none. */
export async function currentSession(): Promise<Session | null> {
  const response = await send("GET", "/admin/v1/session", undefined, {});
  if (response.status === 401) return null;
  return keep(await read<Session>(response));
}

/** Ends the session; one that has ended already is no error. */
export async function signOut(): Promise<void> {
  try {
    await call("DELETE", "/session");
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 401)) throw error;
  }
  csrf = null;
}

function keep(session: Session): Session {
  csrf = session.csrf;
  return session;
}
