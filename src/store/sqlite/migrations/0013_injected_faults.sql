-- Which attempts met an injected fault, and which deployments were passed over while one may have been the reason: their numbers
-- from 1 on, the latter with a p before them: 1,2,p1. NULL: none.
ALTER TABLE receipts ADD COLUMN injected TEXT;
