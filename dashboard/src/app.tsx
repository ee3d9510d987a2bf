/** The frame of every page: where one is, whether what is shown is live, what is broken on purpose. */
import { useEffect, useState } from "preact/hooks";
import { onSignedOut, signIn, signOut } from "./api/client";
import type { Connection } from "./api/live";
import { endFault, faultText } from "./faults";
import { clock } from "./format";
import { Configuration } from "./pages/configuration";
import { Cost } from "./pages/cost";
import { Keys } from "./pages/keys";
import { MapPage } from "./pages/map";
import { Overview } from "./pages/overview";
import { Posture } from "./pages/posture";
import { Requests } from "./pages/requests";
import { SignIn } from "./pages/sign-in";
import { SlaPage } from "./pages/sla";
import { build, linkToken, parse, type PageName, type Route } from "./route";
import { sampling, stopSampling } from "./sample";
import { connection, faults, gateway, mayChange, readSession, session, start, useStore } from "./store";
import { nextTheme, theme } from "./theme";
import { Shape, useAction } from "./ui/parts";

const TITLES: Record<PageName, string> = {
  overview: "Overview",
  map: "Map",
  requests: "Requests",
  keys: "Keys & teams",
  cost: "Cost",
  sla: "SLA",
  posture: "Posture",
  configuration: "Configuration",
};
const PAGES = {
  overview: Overview,
  map: MapPage,
  requests: Requests,
  keys: Keys,
  cost: Cost,
  sla: SlaPage,
  posture: Posture,
  configuration: Configuration,
};
/** `g` and one of these leads to a page. */
const LETTERS: Record<string, PageName> = {
  o: "overview",
  m: "map",
  r: "requests",
  k: "keys",
  c: "cost",
  s: "sla",
  p: "posture",
  f: "configuration",
};
const CONNECTION_WORDS: Record<Connection, string> = {
  connecting: "connecting",
  live: "live",
  lost: "reconnecting",
  paused: "paused",
};

function useRoute(): Route {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = () => setRoute(parse(location.hash));
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return route;
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.closest("input, textarea, select, dialog") !== null;
}

function useShortcuts(): void {
  useEffect(() => {
    let went = 0;
    const pressed = (event: KeyboardEvent) => {
      if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
      const page = LETTERS[event.key];
      if (event.key === "g") {
        went = event.timeStamp;
      } else if (event.key === "/") {
        const search = document.querySelector<HTMLInputElement>("input[type=search]");
        if (search !== null) {
          event.preventDefault();
          search.focus();
        }
      } else if (page !== undefined && event.timeStamp - went < 1000) {
        location.hash = build(page);
      }
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
}

/** Signs in by a link, or finds the session that there is. */
async function begin(): Promise<string | null> {
  const token = linkToken(location.hash);
  if (token !== null) {
    // Out of the address bar and the history before anything else.
    history.replaceState(null, "", build("overview"));
    window.dispatchEvent(new HashChangeEvent("hashchange"));
    try {
      session.set(await signIn(token));
      return null;
    } catch {
      await readSession();
      return session.get() ? null : "This link was used already, or the gateway was started again. Start it once more, or sign in with the admin token.";
    }
  }
  await readSession();
  return null;
}

export function App() {
  const who = useStore(session);
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    onSignedOut(() => session.set(null));
    begin().then(setProblem, (error: unknown) => {
      session.set(null);
      setProblem(error instanceof Error ? error.message : String(error));
    });
  }, []);
  if (who === undefined) return <p class="unseen">Loading</p>;
  return who === null ? <SignIn problem={problem} /> : <Shell />;
}

function Shell() {
  const route = useRoute();
  useEffect(() => start(), []);
  useShortcuts();
  useEffect(() => {
    document.title = `${TITLES[route.page]} – Tierway`;
  }, [route.page]);
  const Page = PAGES[route.page];
  return (
    <div class="shell">
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        document.getElementById("main")?.focus();
      }}>
        Skip to the page
      </a>
      <header class="top">
        <a class="brand" href={build("overview")}>
          <svg viewBox="0 0 32 32" width="24" height="24" aria-hidden="true">
            <rect width="32" height="32" rx="7" class="brand-box" />
            <path d="M7 9h18M7 16h12M7 23h6" class="brand-lines" />
          </svg>
          Tierway
        </a>
        <nav aria-label="Pages">
          {(Object.keys(TITLES) as PageName[]).map((page) => (
            <a key={page} href={build(page)} aria-current={route.page === page ? "page" : undefined}>
              {TITLES[page]}
            </a>
          ))}
        </nav>
        <TopRight />
      </header>
      <Notices />
      <main id="main" tabIndex={-1}>
        <Page route={route} />
      </main>
      <Foot />
    </div>
  );
}

function TopRight() {
  const state = useStore(connection);
  const chosen = useStore(theme);
  const who = useStore(session);
  const { error, run } = useAction();
  const kind = state === "live" ? "good" : state === "lost" ? "bad" : "rest";
  return (
    <div class="top-right">
      <span class={`badge ${kind}`} role="status">
        <Shape kind={kind} />
        {CONNECTION_WORDS[state]}
      </span>
      {who?.role === "viewer" && <span class="badge rest">may look only</span>}
      <button type="button" class="plain" onClick={nextTheme} title="Light, dark, or as the system is">
        <span class="theme-word">Theme: </span>
        {chosen}
      </button>
      <button
        type="button"
        class="plain"
        onClick={() => {
          stopSampling();
          run(async () => {
            await signOut();
            session.set(null);
          });
        }}
      >
        Sign out
      </button>
      {error !== null && <span class="bad-text" role="alert">Still signed in: {error instanceof Error ? error.message : String(error)}</span>}
    </div>
  );
}

function Notices() {
  const injected = useStore(faults);
  const sample = useStore(sampling);
  return (
    <div class="notices">
      {injected.map((fault) => (
        <div key={fault.id} class="notice bad" role="status">
          <Shape kind="bad" />
          <span>
            Broken on purpose: <strong>{faultText(fault)}</strong>. It ends by itself at {clock(Date.parse(fault.expires))}.
          </span>
          {mayChange() && (
            <button type="button" onClick={() => endFault(fault)}>
              Mend
            </button>
          )}
        </div>
      ))}
      {sample === "on" && (
        <div class="notice" role="status">
          <span>Sample traffic runs from this page to the simulated providers, with the key “sample-traffic”.</span>
          <button type="button" onClick={stopSampling}>
            Stop
          </button>
        </div>
      )}
    </div>
  );
}

function Foot() {
  const here = useStore(gateway);
  return (
    <footer>
      <span>Tierway {here?.version ?? ""}</span>
      <span>
        <kbd>g</kbd> <kbd>o</kbd> overview, <kbd>g</kbd> <kbd>m</kbd> map, <kbd>g</kbd> <kbd>r</kbd> requests,{" "}
        <kbd>g</kbd> <kbd>k</kbd> keys, <kbd>g</kbd> <kbd>c</kbd> cost, <kbd>g</kbd> <kbd>s</kbd> SLA, <kbd>g</kbd> <kbd>p</kbd> posture,{" "}
        <kbd>g</kbd> <kbd>f</kbd> configuration, <kbd>/</kbd> search
      </span>
    </footer>
  );
}
