-- The secret that idempotency keys are bound to, so that no client can make another one's. One row, written by the first
-- gateway that opens the store.
CREATE TABLE idempotency (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    secret BLOB    NOT NULL CHECK (length(secret) = 32)
) STRICT;
