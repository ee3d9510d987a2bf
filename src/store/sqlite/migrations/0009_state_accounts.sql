-- Which account of a provider made what for which key, so that a later request that refers to it goes there and nowhere
-- else. The id is a hash of the key's name and of what the provider calls it: no id of a client is kept. Rows are deleted
-- 30 days after they were made.
CREATE TABLE state_accounts (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    provider   TEXT    NOT NULL,
    credential BLOB    NOT NULL CHECK (length(credential) = 8),
    made_unix_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX state_accounts_made ON state_accounts (made_unix_s);
