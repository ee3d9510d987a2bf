/** The event stream: connects again by itself, says so, and rests while nobody looks at the page. */
import { isSignedIn } from "./client";
import type { Deployment, GatewayEvent, RequestRow, Second } from "./types";

export type Connection = "connecting" | "live" | "lost" | "paused";

export interface LiveHandlers {
  connection(state: Connection): void;
  second(second: Second): void;
  deployment(deployment: Deployment): void;
  event(event: GatewayEvent): void;
  request(request: RequestRow): void;
}

/** The pause before attempt number `attempt`, from 1, to connect again. */
export function pauseMs(attempt: number): number {
  return Math.min(500 * 2 ** Math.max(0, attempt - 1), 8000);
}

/** Watches until the result is called. */
export function watch(handlers: LiveHandlers): () => void {
  let source: EventSource | null = null;
  let timer: number | undefined;
  let attempts = 0;
  let ended = false;

  const close = () => {
    source?.close();
    source = null;
    window.clearTimeout(timer);
  };
  const open = () => {
    close();
    if (ended) return;
    handlers.connection(attempts === 0 ? "connecting" : "lost");
    const opened = new EventSource("/admin/v1/live");
    source = opened;
    const on = <T>(name: string, then: (value: T) => void) =>
      opened.addEventListener(name, (event) => then(JSON.parse((event as MessageEvent<string>).data) as T));
    opened.onopen = () => {
      attempts = 0;
      handlers.connection("live");
    };
    opened.onerror = () => {
      close();
      attempts += 1;
      handlers.connection("lost");
      // An event source does not say that its session is gone, as it is after a restart.
      void isSignedIn().then((known) => {
        if (known && !ended && source === null && !document.hidden) timer = window.setTimeout(open, pauseMs(attempts));
      });
    };
    on<Second>("second", handlers.second);
    on<Deployment>("deployment", handlers.deployment);
    on<GatewayEvent>("event", handlers.event);
    on<RequestRow>("request", handlers.request);
  };
  const look = () => {
    if (document.hidden) {
      close();
      handlers.connection("paused");
    } else {
      attempts = 0;
      open();
    }
  };
  document.addEventListener("visibilitychange", look);
  look();
  return () => {
    ended = true;
    document.removeEventListener("visibilitychange", look);
    close();
  };
}
