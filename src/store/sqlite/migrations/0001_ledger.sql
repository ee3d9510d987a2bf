-- One row for each request that ended. Money is whole nano-dollars, prices are whole pico-dollars a
-- token, times are microseconds except where the name says otherwise. NULL: does not apply, or is
-- not known.
--
-- Ids are UUIDs of version 7: the table lies in the order of time, so that neither an id nor a span
-- of time needs an index, and new rows go to its end.
CREATE TABLE receipts (
    id                     BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    received_unix_ms       INTEGER NOT NULL,
    endpoint               TEXT,
    key                    TEXT,
    team                   TEXT,
    policy                 TEXT,
    asked_model            TEXT,
    stream                 INTEGER NOT NULL,
    model                  TEXT,
    deployment             TEXT,
    tier                   TEXT,
    region                 TEXT,
    -- [[deployment, tier, reason, microseconds], …]; a deployment or tier that is the row's is null.
    attempts               TEXT    NOT NULL,
    outcome                TEXT    NOT NULL,
    reason                 TEXT    NOT NULL,
    limited_by             TEXT,
    status                 INTEGER NOT NULL,
    input_tokens           INTEGER,
    cached_input_tokens    INTEGER,
    output_tokens          INTEGER,
    reasoning_tokens       INTEGER,
    estimated              INTEGER NOT NULL,
    input_pico             INTEGER,
    cached_input_pico      INTEGER,
    output_pico            INTEGER,
    request_nanousd        INTEGER,
    cost_nanousd           INTEGER NOT NULL,
    first_token_us         INTEGER,
    duration_us            INTEGER NOT NULL,
    overhead_us            INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
