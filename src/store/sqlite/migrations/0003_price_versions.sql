-- The name of the price that a request was charged at: as configured, or what it costs. NULL: nothing
-- answered, no price was known, or the row is older than this column.
ALTER TABLE receipts ADD COLUMN price_version TEXT;
