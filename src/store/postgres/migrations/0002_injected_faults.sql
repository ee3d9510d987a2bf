-- As in the SQLite store. A gateway of the version before leaves it out, and marks nothing.
ALTER TABLE tierway.receipts ADD COLUMN injected text;
