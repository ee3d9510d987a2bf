/** What the pages share: who looks, what the gateway is, and what comes in while they look. */
import { useEffect, useState } from "preact/hooks";
import { api, currentSession } from "./api/client";
import { watch, type Connection } from "./api/live";
import type { Deployment, Fault, Gateway, GatewayEvent, List, RequestRow, Second, Session } from "./api/types";

/** A value that tells who uses it when it changes. */
export class Store<T> {
  private readonly listeners = new Set<() => void>();

  constructor(private value: T) {}

  get(): T {
    return this.value;
  }

  set(value: T): void {
    if (Object.is(value, this.value)) return;
    this.value = value;
    for (const listener of [...this.listeners]) listener();
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

export function useStore<T>(store: Store<T>): T {
  const [, changed] = useState(0);
  useEffect(() => store.subscribe(() => changed((count) => count + 1)), [store]);
  return store.get();
}

/** undefined: it is not known yet. */
export const session = new Store<Session | null | undefined>(undefined);
export const gateway = new Store<Gateway | null>(null);
export const connection = new Store<Connection>("connecting");
export const second = new Store<Second | null>(null);
/** The last seconds, for rates that do not jump. */
export const lastSeconds = new Store<Second[]>([]);
export const deployments = new Store<Deployment[]>([]);
export const events = new Store<GatewayEvent[]>([]);
export const faults = new Store<Fault[]>([]);
export const tail = new Store<RequestRow[]>([]);

const SMOOTHED_SECONDS = 5;
const MOST_IN_TAIL = 200;
const MOST_EVENTS = 200;

export function mayChange(): boolean {
  return session.get()?.role === "operator";
}

export async function readSession(): Promise<void> {
  session.set(await currentSession());
}

export async function readFaults(): Promise<void> {
  if (gateway.get()?.fault_api !== true) return faults.set([]);
  faults.set((await api.get<List<Fault>>("/faults")).data);
}

function put(changed: Deployment): void {
  const known = deployments.get();
  const at = known.findIndex((one) => one.deployment === changed.deployment);
  deployments.set(at < 0 ? [...known, changed] : known.map((one, n) => (n === at ? changed : one)));
}

/** Reads what is shared and watches; the result ends that. */
export function start(): () => void {
  const read = async () => {
    gateway.set(await api.get<Gateway>("/gateway"));
    deployments.set((await api.get<{ deployments: Deployment[] }>("/status")).deployments);
    await readFaults();
  };
  const ignore = () => {};
  read().catch(ignore);
  let faultsSeen = 0;
  let connected = false;
  return watch({
    connection(state) {
      // After a break the gateway may be another one; and while nobody looked, its configuration may have changed.
      if (state === "live" && connected) read().catch(ignore);
      connected ||= state === "live";
      connection.set(state);
    },
    second(value) {
      if (second.get()?.time === value.time) return;
      second.set(value);
      lastSeconds.set([...lastSeconds.get(), value].slice(-SMOOTHED_SECONDS));
      if (value.faults_active !== faultsSeen || value.faults_active !== faults.get().length) {
        faultsSeen = value.faults_active;
        readFaults().catch(ignore);
      }
    },
    deployment: put,
    event(value) {
      events.set([...events.get(), value].slice(-MOST_EVENTS));
      if (value.kind === "reload") read().catch(ignore);
    },
    request(value) {
      tail.set([value, ...tail.get()].slice(0, MOST_IN_TAIL));
    },
  });
}
