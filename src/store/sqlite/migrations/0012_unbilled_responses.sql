-- Responses that a provider makes in the background, and which are not on the ledger yet: their tokens are counted when they
-- are asked for. The id is that of `state_accounts`. A row is deleted when its response is billed, or a day after it was made.
CREATE TABLE unbilled_responses (
    id           BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    deployment   TEXT    NOT NULL,
    made_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
