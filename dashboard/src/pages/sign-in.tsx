/** A token once; a session from then on. */
import { useState } from "preact/hooks";
import { signIn } from "../api/client";
import { session } from "../store";
import { Problem, useAction } from "../ui/parts";

export function SignIn({ problem }: { problem: string | null }) {
  const [token, setToken] = useState("");
  const { busy, error, run } = useAction();
  return (
    <main class="sign-in">
      <form
        class="card"
        onSubmit={(event) => {
          event.preventDefault();
          run(async () => session.set(await signIn(token.trim())));
        }}
      >
        <svg viewBox="0 0 32 32" width="40" height="40" aria-hidden="true">
          <rect width="32" height="32" rx="7" class="brand-box" />
          <path d="M7 9h18M7 16h12M7 23h6" class="brand-lines" />
        </svg>
        <h1>Sign in to Tierway</h1>
        {problem !== null && error === null && <Problem error={problem} />}
        {error !== null && <Problem error={error} />}
        <label>
          Admin or viewer token
          <input
            name="token"
            type="password"
            autoComplete="current-password"
            value={token}
            required
            autoFocus
            onInput={(event) => setToken(event.currentTarget.value)}
          />
        </label>
        <button type="submit" class="primary" disabled={busy}>
          Sign in
        </button>
        <p class="hint">
          <code>tierway serve</code> prints the admin token at its start, unless <code>[server] admin_token</code> names
          one. It is sent once; this browser then has a session of 12 hours.
        </p>
      </form>
    </main>
  );
}
