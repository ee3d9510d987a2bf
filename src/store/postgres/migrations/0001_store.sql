-- Everything lies in the schema tierway, so that the database may hold other programs' tables. Money is whole nano-dollars,
-- prices are whole pico-dollars a token, times are microseconds except where the name says otherwise. NULL: does not apply,
-- or is not known. Names are compared byte by byte.

-- One row for each request that ended. Ids are UUIDs of version 7: their order is that of time.
CREATE TABLE tierway.receipts (
    id                  uuid    NOT NULL PRIMARY KEY,
    received_unix_ms    bigint  NOT NULL,
    endpoint            text,
    key                 text COLLATE "C",
    team                text COLLATE "C",
    policy              text COLLATE "C",
    asked_model         text,
    stream              boolean NOT NULL,
    model               text COLLATE "C",
    deployment          text COLLATE "C",
    tier                text COLLATE "C",
    region              text COLLATE "C",
    -- As in the SQLite store, like passed_over, apart_tokens and apart_pico.
    attempts            text    NOT NULL,
    outcome             text    NOT NULL,
    reason              text    NOT NULL,
    limited_by          text,
    status              integer NOT NULL,
    input_tokens        bigint,
    cached_input_tokens bigint,
    output_tokens       bigint,
    reasoning_tokens    bigint,
    estimated           boolean NOT NULL,
    input_pico          bigint,
    cached_input_pico   bigint,
    output_pico         bigint,
    request_nanousd     bigint,
    cost_nanousd        bigint  NOT NULL,
    first_token_us      bigint,
    duration_us         bigint  NOT NULL,
    overhead_us         bigint  NOT NULL,
    price_version       text COLLATE "C",
    meant_model         text,
    meant_tier          text,
    failover_us         bigint,
    passed_over         text,
    provider_request_id text,
    apart_tokens        text,
    apart_pico          text
);

-- One row for each window of an account: what is spent of it, and what all gateways have leased and not yet settled or given
-- back. Their sum never passes the limit by leasing. Instants are Unix milliseconds; the latest start is the window that is
-- running.
CREATE TABLE tierway.budgets (
    scope          text   NOT NULL,
    name           text   COLLATE "C" NOT NULL,
    period         text   NOT NULL,
    start_ms       bigint NOT NULL,
    end_ms         bigint NOT NULL,
    spent_nanousd  bigint NOT NULL,
    leased_nanousd bigint NOT NULL,
    PRIMARY KEY (scope, name, period, start_ms)
) WITH (fillfactor = 50);

-- One row for each term of a gateway, by the time of this database: last seen, and since when it has been seen without a gap.
-- batch is the number of its last commit, so that one whose outcome is unknown can be looked up.
CREATE TABLE tierway.replicas (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version text        NOT NULL,
    started timestamptz NOT NULL,
    seen    timestamptz NOT NULL,
    steady  timestamptz NOT NULL,
    batch   bigint      NOT NULL
) WITH (fillfactor = 50);

-- What each term has leased of each window and neither settled nor given back: parts of leased_nanousd in budgets.
CREATE TABLE tierway.leases (
    replica        bigint NOT NULL,
    scope          text   NOT NULL,
    name           text   COLLATE "C" NOT NULL,
    period         text   NOT NULL,
    start_ms       bigint NOT NULL,
    amount_nanousd bigint NOT NULL,
    PRIMARY KEY (replica, scope, name, period, start_ms)
) WITH (fillfactor = 50);

-- What a term still had leased when it ended: nobody knows what was spent of it, so that all of it counts as spent. A receipt
-- that arrives later takes its cost from it.
CREATE TABLE tierway.unaccounted (
    booked_unix_ms bigint NOT NULL,
    replica        bigint NOT NULL,
    scope          text   NOT NULL,
    name           text   COLLATE "C" NOT NULL,
    period         text   NOT NULL,
    start_ms       bigint NOT NULL,
    amount_nanousd bigint NOT NULL,
    PRIMARY KEY (replica, scope, name, period, start_ms)
);

-- Keys, teams and credit. Each change first locks the one row of register and takes the next version, so that versions become
-- visible in order.
CREATE TABLE tierway.register (
    id      integer NOT NULL PRIMARY KEY CHECK (id = 1),
    version bigint  NOT NULL
);
INSERT INTO tierway.register VALUES (1, 0);

CREATE TABLE tierway.keys (
    name                text    COLLATE "C" NOT NULL PRIMARY KEY,
    policy              text    NOT NULL,
    team                text,
    requests_per_minute bigint,
    tokens_per_minute   bigint,
    max_concurrent      bigint,
    budget_nanousd      bigint,
    budget_window       text,
    expires_unix        bigint,
    disabled            boolean NOT NULL,
    created_unix_ms     bigint  NOT NULL,
    version             bigint  NOT NULL
);
CREATE INDEX keys_by_version ON tierway.keys (version);

-- What is kept of a secret is its SHA-256.
CREATE TABLE tierway.secrets (
    hash              bytea  NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    key               text   COLLATE "C" NOT NULL REFERENCES tierway.keys (name),
    created_unix_ms   bigint NOT NULL,
    ends_unix_ms      bigint,
    last_used_unix_ms bigint
);
CREATE INDEX secrets_by_key ON tierway.secrets (key, created_unix_ms, hash);

CREATE TABLE tierway.teams (
    name            text   COLLATE "C" NOT NULL PRIMARY KEY,
    budget_nanousd  bigint,
    budget_window   text,
    created_unix_ms bigint NOT NULL,
    version         bigint NOT NULL
);

-- Prepaid money, never changed: a further row corrects it. What is spent of it stands in budgets, in the window called credit.
CREATE TABLE tierway.grants (
    id              bigint NOT NULL PRIMARY KEY,
    scope           text   NOT NULL,
    name            text   COLLATE "C" NOT NULL,
    amount_nanousd  bigint NOT NULL,
    reason          text   NOT NULL,
    granted_by      text   NOT NULL,
    granted_unix_ms bigint NOT NULL
);
CREATE INDEX grants_by_holder ON tierway.grants (scope, name);

-- What operators changed: one row for each change, appended in the transaction of the change and chained to the row before
-- by SHA-256. Rows are never changed and never deleted. Numbers begin at 1 and have no gap.
CREATE TABLE tierway.audit (
    number     bigint NOT NULL PRIMARY KEY,
    unix_ms    bigint NOT NULL,
    who        text   NOT NULL,
    origin     text   NOT NULL,
    command    text   NOT NULL,
    request_id text,
    kind       text   NOT NULL,
    name       text   NOT NULL,
    -- [[field, before, after], …]
    changes    text   NOT NULL,
    -- Of the row before; zeros where there is none.
    previous   bytea  NOT NULL CHECK (length(previous) = 32),
    hash       bytea  NOT NULL CHECK (length(hash) = 32)
);

-- The newest row, recorded apart from the rows: if the last ones are missing, it is noticed.
CREATE TABLE tierway.audit_end (
    id     integer NOT NULL PRIMARY KEY CHECK (id = 1),
    number bigint  NOT NULL,
    hash   bytea   NOT NULL CHECK (length(hash) = 32)
);

-- The secret that idempotency keys are bound to, the same for every gateway.
CREATE TABLE tierway.idempotency (
    id     integer NOT NULL PRIMARY KEY CHECK (id = 1),
    secret bytea   NOT NULL CHECK (length(secret) = 32)
);

-- Which account of a provider made what for which key. The id is a hash: no id of a client is kept. Rows are deleted 30 days
-- after they were made.
CREATE TABLE tierway.state_accounts (
    id          bytea  NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    provider    text   NOT NULL,
    credential  bytea  NOT NULL CHECK (length(credential) = 8),
    made_unix_s bigint NOT NULL
);
CREATE INDEX state_accounts_made ON tierway.state_accounts (made_unix_s);

-- Statements about months of policies with an SLA, as in the SQLite store. Rows are never changed: each statement is made
-- once, whoever makes it.
CREATE TABLE tierway.sla_closings (
    policy            text   COLLATE "C" NOT NULL,
    month             text   NOT NULL,
    statement         bigint NOT NULL,
    closed_unix_ms    bigint NOT NULL,
    requests          bigint NOT NULL,
    eligible          bigint NOT NULL,
    failed            bigint NOT NULL,
    uptime_millionths bigint,
    below_bp          bigint,
    credit_bp         bigint,
    PRIMARY KEY (policy, month, statement)
);

-- What is due to whom by a statement, and the part of it that the statement granted: that is in grants too.
CREATE TABLE tierway.sla_credits (
    policy          text   COLLATE "C" NOT NULL,
    month           text   NOT NULL,
    statement       bigint NOT NULL,
    scope           text   NOT NULL,
    name            text   COLLATE "C" NOT NULL,
    spend_nanousd   bigint NOT NULL,
    due_nanousd     bigint NOT NULL,
    granted_nanousd bigint NOT NULL,
    PRIMARY KEY (policy, month, statement, scope, name)
);

-- The months in which a gateway ran with an SLA of the policy: those are closed.
CREATE TABLE tierway.sla_promised (
    policy text COLLATE "C" NOT NULL,
    month  text NOT NULL,
    PRIMARY KEY (policy, month)
);

-- The intervals of five minutes since 1970 in which a gateway of this store was alive.
CREATE TABLE tierway.alive_intervals (number bigint NOT NULL PRIMARY KEY);

-- Responses that a provider makes in the background, and which are not on the ledger yet. The term is that of the gateway
-- that counts their tokens; where it has ended, the next gateway that starts takes them.
CREATE TABLE tierway.unbilled_responses (
    id           bytea  NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    deployment   text   NOT NULL,
    made_unix_ms bigint NOT NULL,
    replica      bigint NOT NULL
);
