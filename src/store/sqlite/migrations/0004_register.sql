-- Keys, teams and credit that are changed while the gateway runs. Every change takes the next version, so
-- that each process sees what is new to it. Instants are Unix milliseconds unless the name says otherwise.
CREATE TABLE register (version INTEGER NOT NULL) STRICT;
INSERT INTO register VALUES (0);

CREATE TABLE keys (
    name                TEXT    NOT NULL PRIMARY KEY,
    policy              TEXT    NOT NULL,
    team                TEXT,
    requests_per_minute INTEGER,
    tokens_per_minute   INTEGER,
    max_concurrent      INTEGER,
    budget_nanousd      INTEGER,
    budget_window       TEXT,
    expires_unix        INTEGER,
    disabled            INTEGER NOT NULL,
    created_unix_ms     INTEGER NOT NULL,
    version             INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_version ON keys (version);

-- What is kept of a secret is its SHA-256. They lie in the order of the keys, so that a start reads both as they lie.
CREATE TABLE secrets (
    hash              BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    key               TEXT    NOT NULL REFERENCES keys (name),
    created_unix_ms   INTEGER NOT NULL,
    ends_unix_ms      INTEGER,
    last_used_unix_ms INTEGER,
    PRIMARY KEY (key, created_unix_ms, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE teams (
    name            TEXT    NOT NULL PRIMARY KEY,
    budget_nanousd  INTEGER,
    budget_window   TEXT,
    created_unix_ms INTEGER NOT NULL,
    version         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Prepaid money, never changed: a further row corrects it. What is spent of it stands in budgets, in the
-- window called credit.
CREATE TABLE grants (
    id              INTEGER NOT NULL PRIMARY KEY,
    scope           TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    amount_nanousd  INTEGER NOT NULL,
    reason          TEXT    NOT NULL,
    granted_by      TEXT    NOT NULL,
    granted_unix_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX grants_by_holder ON grants (scope, name);
