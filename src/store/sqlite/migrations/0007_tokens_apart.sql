-- Tokens that a model prices apart, and their prices, as CLASS=NUMBER with commas between: `cache_write=12`. They are
-- parts of input_tokens and output_tokens. NULL: none.
ALTER TABLE receipts ADD COLUMN apart_tokens TEXT;
-- In pico-dollars per token. A class without a price is priced as other input or output.
ALTER TABLE receipts ADD COLUMN apart_pico TEXT;
