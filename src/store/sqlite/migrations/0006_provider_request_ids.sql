-- How the provider names the request, for its support: that of the attempt that answered, or of the last one. NULL: it
-- gave none, or the row is older than this column. From here on an attempt whose provider gave one is
-- [deployment, tier, reason, microseconds, started, model, region, provider's name]; where the deployment is the row's,
-- its names are null.
ALTER TABLE receipts ADD COLUMN provider_request_id TEXT;
