-- Statements about months of policies with an SLA: the closing, and restatements where receipts came later. Rows are never
-- changed: each statement is made once, whoever makes it.
CREATE TABLE sla_closings (
    policy            TEXT    NOT NULL,
    -- 2026-11
    month             TEXT    NOT NULL,
    statement         INTEGER NOT NULL,
    closed_unix_ms    INTEGER NOT NULL,
    requests          INTEGER NOT NULL,
    eligible          INTEGER NOT NULL,
    failed            INTEGER NOT NULL,
    -- NULL: nothing was asked.
    uptime_millionths INTEGER,
    -- The step that applied, in hundredths of a percent. NULL: no credit is due.
    below_bp          INTEGER,
    credit_bp         INTEGER,
    PRIMARY KEY (policy, month, statement)
) STRICT, WITHOUT ROWID;

-- What is due to whom by a statement, and the part of it that the statement granted: that is in grants too.
CREATE TABLE sla_credits (
    policy          TEXT    NOT NULL,
    month           TEXT    NOT NULL,
    statement       INTEGER NOT NULL,
    scope           TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    spend_nanousd   INTEGER NOT NULL,
    due_nanousd     INTEGER NOT NULL,
    granted_nanousd INTEGER NOT NULL,
    PRIMARY KEY (policy, month, statement, scope, name)
) STRICT, WITHOUT ROWID;

-- The months in which a gateway ran with an SLA of the policy: those are closed.
CREATE TABLE sla_promised (
    policy TEXT NOT NULL,
    month  TEXT NOT NULL,
    PRIMARY KEY (policy, month)
) STRICT, WITHOUT ROWID;

-- The intervals of five minutes since 1970 in which a gateway of this store was alive.
CREATE TABLE alive_intervals (number INTEGER NOT NULL PRIMARY KEY) STRICT;
