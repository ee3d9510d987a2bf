-- One row for each window of an account: what is spent of it, and what the process that holds this file
-- has leased and not yet settled or given back. Their sum never passes the limit by leasing. Instants are
-- Unix milliseconds; the latest start is the window that is running.
CREATE TABLE budgets (
    scope          TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    window         TEXT    NOT NULL,
    start_ms       INTEGER NOT NULL,
    end_ms         INTEGER NOT NULL,
    spent_nanousd  INTEGER NOT NULL,
    leased_nanousd INTEGER NOT NULL,
    PRIMARY KEY (scope, name, window, start_ms)
) STRICT, WITHOUT ROWID;

-- One row for each lease that a process left open when it ended: nobody knows what was spent of it, so
-- that all of it counts as spent.
CREATE TABLE unaccounted (
    booked_unix_ms INTEGER NOT NULL,
    scope          TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    window         TEXT    NOT NULL,
    start_ms       INTEGER NOT NULL,
    amount_nanousd INTEGER NOT NULL
) STRICT;
