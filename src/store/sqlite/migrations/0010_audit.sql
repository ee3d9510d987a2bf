-- What operators changed: one row for each change, appended in the transaction of the change and chained to the row before
-- by SHA-256. Rows are never changed and never deleted. Numbers begin at 1 and have no gap.
CREATE TABLE audit (
    number     INTEGER NOT NULL PRIMARY KEY,
    unix_ms    INTEGER NOT NULL,
    who        TEXT    NOT NULL,
    origin     TEXT    NOT NULL,
    command    TEXT    NOT NULL,
    request_id TEXT,
    kind       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    -- [[field, before, after], …]
    changes    TEXT    NOT NULL,
    -- Of the row before; zeros where there is none.
    previous   BLOB    NOT NULL CHECK (length(previous) = 32),
    hash       BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- The newest row, recorded apart from the rows: if the last ones are missing, it is noticed.
CREATE TABLE audit_end (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL,
    hash   BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;
