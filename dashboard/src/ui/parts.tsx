/** Small parts that every page uses. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { lamp, stateWord, type Lamp } from "../map-layout";

/** A state by shape, word and colour: none of them alone. */
export function Shape({ kind }: { kind: Lamp }) {
  return (
    <svg class={`shape ${kind}`} viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">
      {kind === "good" && <circle cx="6" cy="6" r="4.5" />}
      {kind === "warn" && (
        <>
          <circle cx="6" cy="6" r="4.2" class="ring" />
          <path d="M6 1.8 A4.2 4.2 0 0 1 6 10.2 Z" />
        </>
      )}
      {kind === "bad" && <path d="M6 1 L11.2 10.6 L0.8 10.6 Z" />}
      {kind === "rest" && <rect x="2" y="2" width="8" height="8" />}
    </svg>
  );
}

export function StateBadge({ state }: { state: string }) {
  const kind = lamp(state);
  return (
    <span class={`badge ${kind}`}>
      <Shape kind={kind} />
      {stateWord(state)}
    </span>
  );
}

export function Outcome({ outcome, reason }: { outcome: string; reason: string }) {
  const kind: Lamp = outcome === "served" ? "good" : outcome === "refused" || outcome === "abandoned" ? "rest" : "bad";
  return (
    <span class={`badge ${kind}`} title={reason.replaceAll("_", " ")}>
      <Shape kind={kind} />
      {outcome}
    </span>
  );
}

export function Problem({ error, again }: { error: unknown; again?: () => void }) {
  const text = error instanceof Error ? error.message : String(error);
  return (
    <div class="problem" role="alert">
      <Shape kind="bad" />
      <span>{text}</span>
      {again && (
        <button type="button" class="plain" onClick={again}>
          Try again
        </button>
      )}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children}
    </div>
  );
}

export function Copy({ text, label = "Copy" }: { text: string; label?: string }) {
  const [said, say] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied");
    } catch {
      say("Select it and copy by hand");
    }
    window.setTimeout(() => say(""), 2000);
  };
  return (
    <button type="button" class="copy" onClick={() => void copy()}>
      <span aria-live="polite">{said === "" ? label : said}</span>
    </button>
  );
}

export function Code({ text, label }: { text: string; label: string }) {
  return (
    <div class="code">
      <pre tabIndex={0} role="region" aria-label={label}>
        <code>{text}</code>
      </pre>
      <Copy text={text} />
    </div>
  );
}

/** A dialog of the browser: focus stays inside, Escape closes it, focus comes back. */
export function Dialog(props: { title: string; onClose: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  // Taken away by the page, it closes too; that is not the viewer's wish.
  const gone = useRef(false);
  useEffect(() => {
    const shown = dialog.current;
    shown?.showModal();
    return () => {
      gone.current = true;
      shown?.close();
    };
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby="dialog-title" onClose={() => gone.current || props.onClose()}>
      <div class="dialog-head">
        <h2 id="dialog-title">{props.title}</h2>
        <button type="button" class="plain" aria-label="Close" onClick={() => dialog.current?.close()}>
          <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
            <path d="M3 3l10 10M13 3L3 13" />
          </svg>
        </button>
      </div>
      {props.children}
    </dialog>
  );
}

/** A dialog with a form: it shows what went wrong, and stays open then. */
export function FormDialog(props: {
  title: string;
  onClose: () => void;
  submit: (text: (name: string) => string) => Promise<void>;
  children: ComponentChildren;
}) {
  const { busy, error, run } = useAction();
  return (
    <Dialog title={props.title} onClose={props.onClose}>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          const given = new FormData(event.currentTarget);
          run(() => props.submit((name) => String(given.get(name) ?? "").trim()));
        }}
      >
        {error !== null && <Problem error={error} />}
        {props.children}
        <div class="actions">
          <button type="submit" class="primary" disabled={busy}>
            Create
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** What a form reads while it is sent, and what went wrong. */
export function useAction(): { busy: boolean; error: unknown; run: (action: () => Promise<void>) => void } {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const run = (action: () => Promise<void>) => {
    setBusy(true);
    setError(null);
    action()
      .catch(setError)
      .finally(() => setBusy(false));
  };
  return { busy, error, run };
}

/** Reads at once and again after each `everyMs`, while the page is looked at; what was read by other inputs is not shown. */
export function usePolled<T>(
  read: () => Promise<T>,
  everyMs: number,
  by: unknown[],
): { value: T | null; error: unknown; again: () => void } {
  const inputs = JSON.stringify(by);
  const [state, setState] = useState<{ value: T | null; error: unknown; inputs: string }>({ value: null, error: null, inputs });
  const [round, setRound] = useState(0);
  useEffect(() => {
    let ended = false;
    let pending = false;
    const look = () => {
      // A report over a large ledger may take longer than the pause: never two of them at once.
      if (document.hidden || pending) return;
      pending = true;
      read()
        .then(
          (value) => ended || setState({ value, error: null, inputs }),
          (error: unknown) => ended || setState((before) => ({ value: before.inputs === inputs ? before.value : null, error, inputs })),
        )
        .finally(() => (pending = false));
    };
    look();
    const timer = window.setInterval(look, everyMs);
    document.addEventListener("visibilitychange", look);
    return () => {
      ended = true;
      window.clearInterval(timer);
      document.removeEventListener("visibilitychange", look);
    };
  }, [inputs, round]);
  const shown = state.inputs === inputs ? state : { value: null, error: null };
  return { value: shown.value, error: shown.error, again: () => setRound((count) => count + 1) };
}
