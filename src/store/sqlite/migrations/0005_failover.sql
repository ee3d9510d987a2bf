-- Where a request was meant to go and how long it took to be answered elsewhere. NULL: does not apply, or the row is
-- older than these columns. From here on an attempt is
-- [deployment, tier, reason, microseconds, started, model, region]: started is microseconds after the request was
-- received; where the deployment is the row's, it and the tier are null, and model and region are left out.
--
-- An empty model: what served it, or was tried last, was meant.
ALTER TABLE receipts ADD COLUMN meant_model TEXT;
ALTER TABLE receipts ADD COLUMN meant_tier TEXT;
ALTER TABLE receipts ADD COLUMN failover_us INTEGER;
-- [[deployment, tier, model, why, until], …]: until is microseconds after the request was received, or null.
ALTER TABLE receipts ADD COLUMN passed_over TEXT;
