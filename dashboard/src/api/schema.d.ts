// Written by `make dashboard-schema` from the gateway's own document.

export interface paths {
    "/admin/v1/audit": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Changes that operators made, the newest first: who, from where, by what, before and after. */
        get: operations["list_audit"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/configuration": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The active configuration, each setting with its origin, and what is wrong with a changed one that was refused. */
        get: operations["read_configuration"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/credits": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What is left of everybody's credit. */
        get: operations["list_credits"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/credits/grants": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Grants of credit, the oldest first. */
        get: operations["list_grants"];
        put?: never;
        /** Grants credit to a key or a team, or takes it back. */
        post: operations["grant_credit"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/deployments/{name}/resume": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Ends the pause of requests with a budget at a deployment whose answers cost more than was held. */
        post: operations["resume_deployment"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/faults": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Faults that are injected into attempts now. */
        get: operations["list_faults"];
        put?: never;
        /** Injects a fault into attempts at a deployment or a region, for a while. */
        post: operations["inject_fault"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/faults/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Ends a fault before its time. */
        delete: operations["end_fault"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/gateway": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What this gateway is: its version, policies, tiers and regions, and whether faults may be injected. */
        get: operations["read_gateway"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/history": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Traffic of the last minutes, hours or days, and what happened, from memory: since the start at most. */
        get: operations["read_history"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/keys": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Keys by name, those of the configuration among them. */
        get: operations["list_keys"];
        put?: never;
        /** Makes a key. Its secret is in this answer and nowhere else. */
        post: operations["create_key"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/keys/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One key. */
        get: operations["read_key"];
        put?: never;
        post?: never;
        /** Takes a key's secrets away, for good. Its name is not free again. */
        delete: operations["delete_key"];
        options?: never;
        head?: never;
        /** Changes what is given; null takes it away. */
        patch: operations["change_key"];
        trace?: never;
    };
    "/admin/v1/keys/{name}/rotate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Gives a key a further secret. Those it has work until the overlap ends. */
        post: operations["rotate_key"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/ledger": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Requests, the newest first. */
        get: operations["list_requests"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/ledger/{request_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What became of one request, by its x-request-id; a moment after its answer ended. */
        get: operations["read_request"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/live": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Events while they happen: `second` each second, `deployment` at first and when its state changes, `event`, and `request` for up to 50 finished requests of a second. At most 32 watch at a time. */
        get: operations["watch"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/openapi.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** This document. */
        get: operations["read_document"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/posture": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What a buyer asks, answered from what was measured with its source and date, or with how to measure it. */
        get: operations["read_posture"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/session": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Who asks, and what changes by this session present. */
        get: operations["read_session"];
        put?: never;
        /** Opens a session for a browser: a cookie that stands for the token presented here, for 12 hours. */
        post: operations["sign_in"];
        /** Ends the session. */
        delete: operations["sign_out"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/sla": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Each SLA and how it is kept in a month: uptime, error budget, first tokens, credit. */
        get: operations["read_sla"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/status": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Every deployment and its credentials: what does not flow, why, since when, and when it is tried again. */
        get: operations["read_status"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/teams": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Teams with a budget, or made to have one, by name. */
        get: operations["list_teams"];
        put?: never;
        /** Makes a team. */
        post: operations["create_team"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/v1/teams/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One team. */
        get: operations["read_team"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        /** Changes what is given; null takes it away. */
        patch: operations["change_team"];
        trace?: never;
    };
    "/admin/v1/usage": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Requests, tokens and money, summed: the dearest first, or day by day where days come first. */
        get: operations["read_usage"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description A change that an operator made. */
        AuditRow: {
            changes: components["schemas"]["ChangedField"][];
            /** @description The command, or the operation of this API. */
            command: string;
            hash: string;
            /** @description The kind of what was changed: `key`, `team`, `deployment`, `configuration`. */
            kind: string;
            name: string;
            number: number;
            /** @constant */
            object: "audit_row";
            /** @description The host of a command, or the address of a client. */
            origin: string;
            /** @description The hash of the row before. */
            previous: string;
            request_id: string | null;
            /** Format: date-time */
            time: string;
            /** @description A user of the system, or whose token was presented. */
            who: string;
        };
        /** @description One page of a list. */
        AuditRowList: {
            data: components["schemas"]["AuditRow"][];
            has_more: boolean;
            /** @description What to give as `after` for the next page. */
            next: string | null;
            /** @constant */
            object: "list";
        };
        /** @description The credit of a key or a team. */
        Balance: {
            /** @description USD. */
            granted: string;
            key: string | null;
            /** @description USD. */
            leased: string;
            /** @description USD. */
            left: string;
            /** @constant */
            object: "balance";
            /** @description USD. */
            spent: string;
            team: string | null;
        };
        /** @description One page of a list. */
        BalanceList: {
            data: components["schemas"]["Balance"][];
            has_more: boolean;
            /** @description What to give as `after` for the next page. */
            next: string | null;
            /** @constant */
            object: "list";
        };
        /** @description An amount of money for each window of time. */
        Budget: {
            /** @description USD. */
            limit: string;
            /** @enum {string} */
            window: "day" | "month" | "none";
            zone: string | null;
        };
        /** @description Whose requests are kept from a deployment. */
        BudgetPause: {
            /** @description Those whose answers were the cause. */
            keys: string[];
            /**
             * @description `keys`: those of the keys below, and of a team of which there are two; `all`: of every key with a budget or credit.
             * @enum {string}
             */
            scope: "keys" | "all";
            /**
             * Format: date-time
             * @description When the last of them ends by itself.
             */
            until: string;
        };
        /** @description A field with its value before and after a change; null: none. */
        ChangedField: {
            after: string | null;
            before: string | null;
            field: string;
        };
        /** @description The configuration that is active, and the changed one that was refused. */
        Configuration: {
            /** @constant */
            object: "configuration";
            /** @description The changed file that is not applied, since it has problems; null where there is none. */
            refused: components["schemas"]["RefusedConfiguration"] | null;
            /** @description Every setting, those that are not written too. */
            settings: components["schemas"]["Setting"][];
            /** @description The file it was read from, or what stands for one. */
            source: string;
            /** @description What tells it from others; rows of the audit have the same. */
            version: string;
        };
        /** @description A credential at one deployment. */
        Credential: {
            /** @description The variable that it is read from, or `file:` and a path. */
            name: string | null;
            /** Format: date-time */
            since: string | null;
            /** @enum {string} */
            state: "accepted" | "refused" | "throttled";
            /**
             * Format: date-time
             * @description When one attempt may present it again; past where the next one may.
             */
            until: string | null;
        };
        /** @description One deployment. */
        Deployment: {
            attempts_in_flight: number;
            /** @description Requests with a budget or credit are kept from it: an answer cost more than was held. */
            budget_pause: components["schemas"]["BudgetPause"] | null;
            /**
             * @description Why it does not get its traffic.
             * @enum {string|null}
             */
            cause: "consecutive" | "ratio" | "probe" | "broken_off" | "throttled" | "not_found" | "credential_refused" | "silent" | null;
            /** @description In the order of the file; of a provider without any, one without a name. */
            credentials: components["schemas"]["Credential"][];
            deployment: string;
            /** @description The latest failure that was not a request's own. */
            last_failure: components["schemas"]["Failure"] | null;
            /** Format: date-time */
            last_success: string | null;
            /** @description The endpoints that its host does not have, as was met lately: its deployment is passed over for those. */
            missing_endpoints: string[];
            model: string;
            /**
             * Format: date-time
             * @description When one attempt may try it again; past where the next one may.
             */
            next_probe: string | null;
            /** @description How many teams it is open for while it is not for all. */
            open_for_teams: number;
            provider: string;
            region: string;
            /** @description Nothing at all has come from it for longer than is usual. */
            silent: boolean;
            /** Format: date-time */
            since: string | null;
            /** @enum {string} */
            state: "closed" | "open" | "half_open" | "resting" | "silent";
            /** @description From an attempt to the first token of a stream. */
            stream_first_token: components["schemas"]["Latency"];
            /** @description Those that hold its model. */
            tiers: string[];
            /** @description Of the provider, without user and query; `sim` where it is simulated. */
            url: string;
            /** @description From an attempt to the whole answer, where it is not streamed. */
            whole_answer: components["schemas"]["Latency"];
        };
        Document: Record<string, never>;
        Error: {
            error: {
                code: string;
                message: string;
                param: string | null;
                type: string;
            };
        };
        /** @description Something that explains what traffic did. */
        Event: {
            /** @description Why, in a few words or a label. */
            detail: string;
            /** @enum {string} */
            kind: "trip" | "probe" | "recovery" | "rest" | "fault_injected" | "fault_ended" | "reload" | "reload_refused";
            /** @constant */
            object: "event";
            /** @description Which deployment or region; empty for the gateway as a whole. */
            subject: string;
            /** Format: date-time */
            time: string;
        };
        /** @description A failed attempt. */
        Failure: {
            /** @description The variable of the credential that was presented. */
            credential: string | null;
            /** @description One line, with the provider's own sentence where there is one. */
            detail: string;
            /** @enum {string} */
            reason: "served" | "client_gone" | "internal" | "shutdown" | "invalid_json" | "invalid_value" | "request_too_large" | "request_timeout" | "unsupported_content_encoding" | "invalid_api_key" | "unknown_url" | "method_not_allowed" | "model_not_found" | "model_not_allowed" | "residency_unavailable" | "not_served" | "state_not_found" | "rate_limit_exceeded" | "insufficient_quota" | "ledger_unavailable" | "budget_paused" | "slow_down" | "no_deployment_available" | "unreachable" | "connect_timeout" | "reset" | "first_token_timeout" | "whole_timeout" | "idle_timeout" | "deadline" | "upstream_status" | "garbage" | "unreadable" | "not_held" | "no_answer" | "truncated" | "error_inside" | "diverged" | "throttled" | "credential_refused" | "account_refused" | "upstream_not_found" | "upstream_no_endpoint" | "rejected" | "context_too_long" | "silent" | "overtaken";
            /** @description The provider's HTTP status. */
            status: number | null;
            /** Format: date-time */
            time: string;
        };
        /** @description An injected fault. */
        Fault: {
            /** @description Of a delay, in milliseconds. */
            delay_ms: number | null;
            /** @description Whose attempts it concerns; one of deployment and region is null. */
            deployment: string | null;
            /** Format: date-time */
            expires: string;
            /** @description The frames before the cut. */
            frames: number | null;
            /** @description What ends it before its time. */
            id: string;
            /** @enum {string} */
            kind: "refuse" | "delay" | "status" | "cut";
            /** @constant */
            object: "fault";
            region: string | null;
            /** @description Of 100 attempts, how many it happens to. */
            share: number;
            /** @description The HTTP status that is replied. */
            status: number | null;
        };
        /** @description One page of a list. */
        FaultList: {
            data: components["schemas"]["Fault"][];
            has_more: boolean;
            /** @description What to give as `after` for the next page. */
            next: string | null;
            /** @constant */
            object: "list";
        };
        /** @description What a gateway is: its version, and the configured names that a page offers. */
        Gateway: {
            /** @description Where clients are served, if that is not the address of operators. */
            clients_at: string | null;
            /** @description A name that clients may write as `model`; null where nothing is configured. */
            example_model: string | null;
            /** @description Whether operators may inject faults. */
            fault_api: boolean;
            /** @constant */
            object: "gateway";
            /** @description In the order of the file. */
            policies: string[];
            /** @description Regions in the order of their first use. */
            regions: string[];
            /** @description Whether every provider is simulated. */
            simulated: boolean;
            tiers: components["schemas"]["Tier"][];
            version: string;
        };
        /** @description Credit that was granted, or, below zero, taken back. */
        Grant: {
            /** @description USD. */
            amount: string;
            by: string;
            /** Format: date-time */
            granted: string;
            id: number;
            key: string | null;
            /** @constant */
            object: "grant";
            reason: string;
            team: string | null;
        };
        /** @description One page of a list. */
        GrantList: {
            data: components["schemas"]["Grant"][];
            has_more: boolean;
            /** @description What to give as `after` for the next page. */
            next: string | null;
            /** @constant */
            object: "list";
        };
        /** @description Traffic by steps of equal length, the oldest first. Every list has one item for each step. */
        History: {
            abandoned: number[];
            attempts: number[];
            broken: number[];
            cost_usd: string[];
            /** @description What happened since, the oldest first; the latest 500 at most. */
            events: components["schemas"]["Event"][];
            /** @description Those whose attempts all failed, or whose provider refused the request itself. */
            failed: number[];
            /** @description Requests that another attempt than the first one answered. */
            failovers: number[];
            /** @description Those of all these that failed through the gateway or its providers. */
            faults: number[];
            /** @description Within a tenth; null where there was no first token. */
            first_token_p50_us: (number | null)[];
            first_token_p99_us: (number | null)[];
            /**
             * Format: date-time
             * @description The beginning of the first step.
             */
            from: string;
            /** @constant */
            object: "history";
            refused: number[];
            /** @description Requests that ended. */
            requests: number[];
            served: number[];
            /** @enum {string} */
            span: "15m" | "6h" | "7d";
            /** @description The length of a step in seconds. */
            step_s: number;
        };
        /** @description A key with the secret that was just made for it. */
        IssuedKey: {
            budget: components["schemas"]["Budget"] | null;
            /** Format: date-time */
            created: string | null;
            disabled: boolean;
            /** @description The limits and budgets that requests with a key are measured by. */
            effective: {
                budgets: {
                    /** @description USD. */
                    limit: string;
                    name: string;
                    /** @enum {string} */
                    of: "key" | "team" | "policy";
                    /** @enum {string} */
                    window: "day" | "month" | "none";
                    zone: string | null;
                }[];
                max_concurrent: number | null;
                requests_per_minute: number | null;
                tokens_per_minute: number | null;
            };
            /** Format: date-time */
            expires: string | null;
            max_concurrent: number | null;
            name: string;
            /** @constant */
            object: "key";
            policy: string;
            requests_per_minute: number | null;
            secret: string | null;
            secrets: components["schemas"]["Secret"][];
            /** @enum {string} */
            source: "file" | "store";
            /** @enum {string} */
            state: "active" | "disabled" | "expired" | "deleted";
            team: string | null;
            tokens_per_minute: number | null;
        };
        /** @description A key: its own limits and budget, and those that apply to it together with its policy and team. */
        Key: {
            budget: components["schemas"]["Budget"] | null;
            /** Format: date-time */
            created: string | null;
            disabled: boolean;
            /** @description The limits and budgets that requests with a key are measured by. */
            effective: {
                budgets: {
                    /** @description USD. */
                    limit: string;
                    name: string;
                    /** @enum {string} */
                    of: "key" | "team" | "policy";
                    /** @enum {string} */
                    window: "day" | "month" | "none";
                    zone: string | null;
                }[];
                max_concurrent: number | null;
                requests_per_minute: number | null;
                tokens_per_minute: number | null;
            };
            /** Format: date-time */
            expires: string | null;
            max_concurrent: number | null;
            name: string;
            /** @constant */
            object: "key";
            policy: string;
            requests_per_minute: number | null;
            secrets: components["schemas"]["Secret"][];
            /** @enum {string} */
            source: "file" | "store";
            /** @enum {string} */
            state: "active" | "disabled" | "expired" | "deleted";
            team: string | null;
            tokens_per_minute: number | null;
        };
        /** @description One page of a list. */
        KeyList: {
            data: components["schemas"]["Key"][];
            has_more: boolean;
            /** @description What to give as `after` for the next page. */
            next: string | null;
            /** @constant */
            object: "list";
        };
        /** @description Percentiles of the latest answers, in microseconds. */
        Latency: {
            p50_us: number | null;
            p99_us: number | null;
        };
        /** @description Six questions, each answered from what was measured, or with how to measure it. */
        Posture: {
            answers: components["schemas"]["PostureAnswer"][];
            /** @constant */
            object: "posture";
            /** @description The policy that it is about; null: all. */
            policy: string | null;
            /**
             * Format: date-time
             * @description The ledger was read from this time on.
             */
            since: string;
            /**
             * Format: date-time
             * @description When the answers were made.
             */
            until: string;
        };
        /** @description The answer to one question. */
        PostureAnswer: {
            facts: components["schemas"]["PostureFact"][];
            /** @description How to measure what is not known; null: everything is. */
            how_to_measure: string | null;
            /** @description Whether anything was measured. What is only configured is not. */
            measured: boolean;
            question: string;
        };
        /** @description Something that is known, and where from. */
        PostureFact: {
            /**
             * Format: date-time
             * @description The last time that it covers.
             */
            at: string;
            /**
             * Format: date-time
             * @description The first time that it covers; null: one instant only.
             */
            since: string | null;
            /** @description The ledger, the configuration, a drill, or statements about closed months. */
            source: string;
            topic: string;
            /** @description With units. */
            value: string;
        };
        /** @description A row of the store that cannot be read. */
        QuarantinedRow: {
            /** @description The name of the key or team, or the number of the grant. */
            row: string;
            table: string;
            /** @description What is wrong with it. */
            why: string;
        };
        /** @description A changed configuration that was refused. */
        RefusedConfiguration: {
            /** @description What is wrong and what to do, in lines, as the log has it. */
            problems: string;
            /** Format: date-time */
            time: string;
        };
        /** @description A request in the ledger. */
        Request: {
            asked_model: string | null;
            attempts: {
                deployment: string;
                duration_us: number;
                /** @description Whether a fault was injected into it. */
                injected_fault: boolean;
                model: string | null;
                /** @description How the provider names the request. */
                provider_request_id: string | null;
                /** @enum {string} */
                reason: "served" | "client_gone" | "internal" | "shutdown" | "invalid_json" | "invalid_value" | "request_too_large" | "request_timeout" | "unsupported_content_encoding" | "invalid_api_key" | "unknown_url" | "method_not_allowed" | "model_not_found" | "model_not_allowed" | "residency_unavailable" | "not_served" | "state_not_found" | "rate_limit_exceeded" | "insufficient_quota" | "ledger_unavailable" | "budget_paused" | "slow_down" | "no_deployment_available" | "unreachable" | "connect_timeout" | "reset" | "first_token_timeout" | "whole_timeout" | "idle_timeout" | "deadline" | "upstream_status" | "garbage" | "unreadable" | "not_held" | "no_answer" | "truncated" | "error_inside" | "diverged" | "throttled" | "credential_refused" | "account_refused" | "upstream_not_found" | "upstream_no_endpoint" | "rejected" | "context_too_long" | "silent" | "overtaken";
                region: string | null;
                /** @description After the request was received; attempts may overlap. */
                started_us: number | null;
                tier: string | null;
            }[];
            cached_input_tokens: number | null;
            /** @description USD. */
            cost_usd: string;
            deployment: string | null;
            duration_us: number;
            /** @enum {string|null} */
            endpoint: "chat" | "completions" | "embeddings" | "messages" | "count_tokens" | "responses" | "input_tokens" | "conversations" | "stored_responses" | null;
            estimated: boolean;
            /** @description From the first attempt sent to the answer of another one. */
            failover_us: number | null;
            first_token_us: number | null;
            input_tokens: number | null;
            key: string | null;
            /** @enum {string|null} */
            limit: "requests_per_minute" | "tokens_per_minute" | "max_concurrent" | "refused_per_minute" | null;
            /** @description The model that the plan put first. */
            meant_model: string | null;
            /** @description The tier through which it was to be reached. */
            meant_tier: string | null;
            model: string | null;
            /** @constant */
            object: "request";
            /** @enum {string} */
            outcome: "served" | "refused" | "failed" | "broken" | "abandoned";
            output_tokens: number | null;
            overhead_us: number;
            /** @description Deployments of the plan that were not asked, where nothing could be, or another model answered. */
            passed_over: {
                deployment: string;
                /** @description Whether faults were injected there then, or within a minute before: its state may follow from them. */
                injected_fault: boolean;
                model: string;
                tier: string | null;
                /** @description When it may be asked again, after the request was received. */
                until_us: number | null;
                /** @enum {string} */
                why: "open" | "half_open" | "resting" | "silent" | "full" | "throttled" | "no_endpoint";
            }[];
            policy: string | null;
            /** @description The price that a request was charged at. */
            price: {
                /** @description Classes of tokens that are priced apart. */
                apart_usd_per_mtok: {
                    [key: string]: string;
                };
                /** @description USD. */
                cached_input_usd_per_mtok: string;
                /** @description USD. */
                input_usd_per_mtok: string;
                /** @description USD. */
                output_usd_per_mtok: string;
                /** @description USD. */
                request_usd: string;
            } | null;
            price_version: string | null;
            /** @description How the provider of `deployment` names the request. */
            provider_request_id: string | null;
            /** @enum {string} */
            reason: "served" | "client_gone" | "internal" | "shutdown" | "invalid_json" | "invalid_value" | "request_too_large" | "request_timeout" | "unsupported_content_encoding" | "invalid_api_key" | "unknown_url" | "method_not_allowed" | "model_not_found" | "model_not_allowed" | "residency_unavailable" | "not_served" | "state_not_found" | "rate_limit_exceeded" | "insufficient_quota" | "ledger_unavailable" | "budget_paused" | "slow_down" | "no_deployment_available" | "unreachable" | "connect_timeout" | "reset" | "first_token_timeout" | "whole_timeout" | "idle_timeout" | "deadline" | "upstream_status" | "garbage" | "unreadable" | "not_held" | "no_answer" | "truncated" | "error_inside" | "diverged" | "throttled" | "credential_refused" | "account_refused" | "upstream_not_found" | "upstream_no_endpoint" | "rejected" | "context_too_long" | "silent" | "overtaken";
            reasoning_tokens: number | null;
            region: string | null;
            request_id: string;
            status: number;
            stream: boolean;
            team: string | null;
            tier: string | null;
            /** Format: date-time */
            time: string;
            /** @description Parts of the input and the output that some models price apart. */
            tokens_apart: {
                [key: string]: number;
            } | null;
        };
        /** @description One page of a list. */
        RequestList: {
            data: components["schemas"]["Request"][];
            has_more: boolean;
            /** @description What to give as `after` for the next page. */
            next: string | null;
            /** @constant */
            object: "list";
        };
        /** @description The traffic of one second, as the event stream has it. */
        Second: {
            abandoned: number;
            attempts: number;
            /** @description Attempts in flight when this is sent. */
            attempts_in_flight: number;
            broken: number;
            /** @description USD. */
            cost_usd: string;
            /** @description Deployments with attempts. */
            deployments: {
                attempts: number;
                deployment: string;
                failed: number;
                tier: string | null;
            }[];
            failed: number;
            failovers: number;
            faults: number;
            faults_active: number;
            first_token_p50_us: number | null;
            first_token_p99_us: number | null;
            input_tokens: number;
            /** @constant */
            object: "second";
            output_tokens: number;
            refused: number;
            requests: number;
            served: number;
            /**
             * Format: date-time
             * @description Its beginning.
             */
            time: string;
        };
        /** @description A secret of a key, without the secret. */
        Secret: {
            /** Format: date-time */
            created: string | null;
            /** Format: date-time */
            ends: string | null;
            /** @description The first digits of its SHA-256. */
            id: string;
            /** Format: date-time */
            last_used: string | null;
        };
        /** @description Who asks: by a token, or by the session of a browser that presented one. */
        Session: {
            /** @description What changes by this session present as `x-tierway-csrf`; null without a session. */
            csrf: string | null;
            /**
             * Format: date-time
             * @description When the session ends; null without one.
             */
            expires: string | null;
            /** @constant */
            object: "session";
            /** @enum {string} */
            role: "operator" | "viewer";
        };
        /** @description A setting with its value. */
        Setting: {
            /** @description `default`, `file, line 3` or `env TIERWAY__SERVER__LISTEN`. */
            origin: string;
            setting: string;
            /** @description As TOML; a secret is masked. */
            value: string;
        };
        /** @description Why requests failed, with the first one as an example. */
        SlaCause: {
            failed: number;
            reason: string;
            request_id: string;
        };
        /** @description A statement about a month: what was counted, and the credit that was granted. */
        SlaClosing: {
            /** Format: date-time */
            closed: string;
            credits: components["schemas"]["SlaCredit"][];
            eligible: number;
            failed: number;
            month: string;
            /** @constant */
            object: "sla_closing";
            policy: string;
            requests: number;
            /** @description 1 for the closing, more for a restatement. */
            statement: number;
            step: components["schemas"]["SlaStep"] | null;
            uptime: string | null;
        };
        /** @description What is due to a key or a team. */
        SlaCredit: {
            /** @description USD. */
            due: string;
            /** @description What this statement granted: what was due and no earlier one had granted. */
            granted: string;
            key: string | null;
            /** @description USD. */
            spent: string;
            team: string | null;
        };
        /** @description What was counted. */
        SlaFigures: {
            /** @description How many thousandths of the pace that uses up the error budget in just a month; null where nothing was asked. */
            burn_1h: number | null;
            burn_3d: number | null;
            burn_6h: number | null;
            eligible: number;
            /** @description What is left of the time that may be down in the month; below zero, the promise is not kept. */
            error_budget_left_s: number;
            failed: number;
            /** @description The share of first tokens within the objective; null without one, and without first tokens. */
            first_token_kept: string | null;
            first_token_p50_us: number | null;
            first_token_p95_us: number | null;
            first_token_p99_us: number | null;
            /** @description All receipts, eligible or not. */
            requests: number;
            /** @description USD. */
            spent: string;
            /** @description Null where nothing was asked. */
            uptime: string | null;
            worst_hour: components["schemas"]["SlaWorstHour"] | null;
        };
        /** @description The figures of one key. */
        SlaKey: {
            figures: components["schemas"]["SlaFigures"];
            key: string;
        };
        /** @description The probes of a policy. */
        SlaProbes: {
            failed: number;
            /** @description Intervals of five minutes that count by their probes, because nothing else was eligible in them. */
            intervals: number;
            sent: number;
            /** @description USD. */
            spent: string;
            worst_hour: components["schemas"]["SlaWorstHour"] | null;
        };
        /** @description What a policy promises. */
        SlaPromise: {
            credits: components["schemas"]["SlaStep"][];
            /** @description The share of streams whose first token has a time to keep. */
            first_token_share: string | null;
            first_token_within_us: number | null;
            /** @description `requests` or `5m`. */
            measure: string;
            min_requests: number;
            uptime: string;
            zone: string;
        };
        /** @description A month of a policy with an SLA, or what has passed of it. */
        SlaReport: {
            /** Format: date-time */
            begins: string;
            /**
             * Format: date-time
             * @description From this time on it is closed.
             */
            closes: string;
            /** @description The closing, and restatements of it. */
            closings: components["schemas"]["SlaClosing"][];
            /** @description Intervals of five minutes in which no gateway was alive and nothing was asked; they count under 5m. */
            dead_intervals: number;
            /** Format: date-time */
            ends: string;
            figures: components["schemas"]["SlaFigures"];
            /** @description Whether the month is over. */
            is_over: boolean;
            /** @description The same for each key, by name; its uptime is always that of its requests. */
            keys: components["schemas"]["SlaKey"][];
            /** @description Such as 2026-11. */
            month: string;
            /** @constant */
            object: "sla_report";
            policy: string;
            /** @description What the gateway asked by itself, where it does; none of it is in `figures` and `keys`, except that the uptime counts it. */
            probes: components["schemas"]["SlaProbes"];
            promise: components["schemas"]["SlaPromise"];
            /** @description The credit that would be given if the month were closed as it is; null: none. */
            step: components["schemas"]["SlaStep"] | null;
            /** @description Receipts that cannot be read, and count for nothing. */
            unreadable: number;
            /**
             * Format: date-time
             * @description Receipts up to this time are counted.
             */
            until: string;
        };
        /** @description One page of a list. */
        SlaReportList: {
            data: components["schemas"]["SlaReport"][];
            has_more: boolean;
            /** @description What to give as `after` for the next page. */
            next: string | null;
            /** @constant */
            object: "list";
        };
        /** @description Below an uptime, a share of what was spent. */
        SlaStep: {
            below: string;
            credit: string;
        };
        /** @description The hour in which most requests failed. */
        SlaWorstHour: {
            /** Format: date-time */
            begins: string;
            /** @description The three most frequent ones. */
            causes: components["schemas"]["SlaCause"][];
            failed: number;
        };
        /** @description The status of every deployment. */
        Status: {
            /** @description In the order of the file. */
            deployments: components["schemas"]["Deployment"][];
            /** @description Whether every deployment gets its traffic. */
            flows: boolean;
            /** @constant */
            object: "status";
            /** @description Rows of the store that cannot be read: they count for nothing, and a team among them may spend nothing. */
            quarantined: components["schemas"]["QuarantinedRow"][];
            /**
             * Format: date-time
             * @description When it was so.
             */
            time: string;
        };
        /** @description A team. */
        Team: {
            budget: components["schemas"]["Budget"] | null;
            /** Format: date-time */
            created: string | null;
            name: string;
            /** @constant */
            object: "team";
            /** @enum {string} */
            source: "file" | "store";
        };
        /** @description One page of a list. */
        TeamList: {
            data: components["schemas"]["Team"][];
            has_more: boolean;
            /** @description What to give as `after` for the next page. */
            next: string | null;
            /** @constant */
            object: "list";
        };
        /** @description A tier and the models in it. */
        Tier: {
            models: string[];
            name: string;
            /** @description The tiers to step down to, in order. */
            then: string[];
        };
        /** @description Sums over the ledger, and their total. */
        Usage: {
            by: ("key" | "team" | "policy" | "model" | "deployment" | "tier" | "region" | "price" | "day" | "reason")[];
            data: components["schemas"]["UsageRow"][];
            /** @constant */
            object: "usage";
            /** Format: date-time */
            since: string | null;
            /** @description Requests, tokens and money. */
            total: {
                cached_input_tokens: number;
                /** @description USD. */
                cost_usd: string;
                estimated: number;
                failed: number;
                input_tokens: number;
                metered: number;
                output_tokens: number;
                reasoning_tokens: number;
                requests: number;
            };
            /** Format: date-time */
            until: string | null;
        };
        /** @description A sum, and the value of each dimension that was summed by. */
        UsageRow: {
            cached_input_tokens: number;
            /** @description USD. */
            cost_usd: string;
            day?: string | null;
            deployment?: string | null;
            estimated: number;
            failed: number;
            input_tokens: number;
            key?: string | null;
            metered: number;
            model?: string | null;
            output_tokens: number;
            policy?: string | null;
            price?: string | null;
            reason?: string | null;
            reasoning_tokens: number;
            region?: string | null;
            requests: number;
            team?: string | null;
            tier?: string | null;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    list_audit: {
        parameters: {
            query?: {
                /** @description How many to a page. */
                limit?: number;
                /** @description The `next` of the page before. */
                after?: string;
                /** @description At this time or later: how long ago, a day in UTC, or a time. */
                since?: string;
                /** @description Before this time: the same. */
                until?: string;
                /** @description Only changes of this kind of thing: key, team, deployment, configuration, fault, sla. */
                kind?: string;
                /** @description Only changes of what has this name. */
                name?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AuditRowList"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    read_configuration: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Configuration"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_credits: {
        parameters: {
            query?: {
                /** @description How many to a page. */
                limit?: number;
                /** @description The `next` of the page before. */
                after?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["BalanceList"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_grants: {
        parameters: {
            query?: {
                /** @description How many to a page. */
                limit?: number;
                /** @description The `next` of the page before. */
                after?: string;
                /** @description The key that holds it. One of key and team. */
                key?: string;
                /** @description The team that holds it. One of key and team. */
                team?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GrantList"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    grant_credit: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "amount": "10.00",
                 *       "reason": "invoice 2026-11",
                 *       "team": "growth"
                 *     }
                 */
                "application/json": {
                    /**
                     * @description USD; with a sign it is taken back.
                     * @example 10.00
                     * @example -2.50
                     */
                    amount: string;
                    /**
                     * @description The key that holds it. One of key and team.
                     * @example standard
                     */
                    key?: string;
                    /**
                     * @description Why, in one line for people.
                     * @example invoice 2026-11
                     */
                    reason?: string | null;
                    /**
                     * @description The team that holds it. One of key and team.
                     * @example standard
                     */
                    team?: string;
                };
            };
        };
        responses: {
            /** @description Made. */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Grant"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description This token may only look, or the session's request lacks `x-tierway-csrf`. */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body came too slowly. */
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is not JSON, or encoded as nobody here reads it. */
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway holds as many bodies as it can. */
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    resume_deployment: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description With slashes as %2F. */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Status"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description This token may only look, or the session's request lacks `x-tierway-csrf`. */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that name, or this gateway keeps no ledger. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_faults: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FaultList"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that id, or faults are not enabled. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    inject_fault: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "expires_in": "1m",
                 *       "kind": "status",
                 *       "region": "eu-central",
                 *       "share": 50,
                 *       "status": 503
                 *     }
                 */
                "application/json": {
                    /**
                     * @description Of a delay, and required there: so many milliseconds later, or at the end of the fault, the attempt is sent.
                     * @example 2000
                     */
                    delay_ms?: number;
                    /**
                     * @description Whose attempts. One of deployment and region.
                     * @example growth-app
                     */
                    deployment?: string;
                    /**
                     * @description How long it lasts, at most 10m. Every fault ends by itself.
                     * @example 24h
                     */
                    expires_in: string;
                    /**
                     * @description Of a cut, and required there: so many frames of a stream pass, then its connection breaks. A whole answer breaks within.
                     * @example 3
                     */
                    frames?: number;
                    /**
                     * @description What happens to an attempt.
                     * @example refuse
                     * @enum {string}
                     */
                    kind: "refuse" | "delay" | "status" | "cut";
                    /**
                     * @description Whose attempts. One of deployment and region.
                     * @example growth-app
                     */
                    region?: string;
                    /**
                     * @description To how many of 100 attempts; all of them unless given.
                     * @default 100
                     * @example 50
                     */
                    share?: number;
                    /**
                     * @description Of a status, and required there: what is replied in place of the provider.
                     * @example 503
                     */
                    status?: number;
                };
            };
        };
        responses: {
            /** @description Made. */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Fault"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description This token may only look, or the session's request lacks `x-tierway-csrf`. */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that id, or faults are not enabled. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body came too slowly. */
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is not JSON, or encoded as nobody here reads it. */
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway holds as many bodies as it can. */
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    end_fault: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description With slashes as %2F. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Fault"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description This token may only look, or the session's request lacks `x-tierway-csrf`. */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that id, or faults are not enabled. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    read_gateway: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Gateway"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    read_history: {
        parameters: {
            query?: {
                /** @description How far back: 15m by seconds, as without it; 6h by ten seconds; 7d by five minutes. */
                span?: "15m" | "6h" | "7d";
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["History"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_keys: {
        parameters: {
            query?: {
                /** @description How many to a page. */
                limit?: number;
                /** @description The `next` of the page before. */
                after?: string;
                /** @description Only keys of this policy. */
                policy?: string;
                /** @description Only keys of this team. */
                team?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["KeyList"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    create_key: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "budget": {
                 *         "limit": "100.00",
                 *         "window": "month"
                 *       },
                 *       "expires": "2037-01-31",
                 *       "name": "growth-app",
                 *       "policy": "standard",
                 *       "requests_per_minute": 50,
                 *       "team": "growth"
                 *     }
                 */
                "application/json": {
                    /**
                     * @description What it may spend; at or below the policy's.
                     * @example {
                     *       "limit": "500.00",
                     *       "window": "month",
                     *       "zone": "Europe/Paris"
                     *     }
                     */
                    budget?: {
                        /**
                         * @description USD in each window.
                         * @example 500.00
                         */
                        limit: string;
                        /**
                         * @description When it is whole again; none: never.
                         * @example month
                         * @enum {string}
                         */
                        window: "day" | "month" | "none";
                        /**
                         * @description In which time zone days and months end; UTC unless given. A budget without window has none.
                         * @example Europe/Paris
                         */
                        zone?: string | null;
                    } | null;
                    /**
                     * @description Its last day, in UTC, or the instant it ends.
                     * @example 2027-01-31
                     * @example 2027-01-31T12:00:00Z
                     */
                    expires?: string | null;
                    /**
                     * @description The SHA-256 of a secret that exists and is kept; without it a secret is made.
                     * @example sha256:9f86d081884c7d659f86d081884c7d659f86d081884c7d659f86d081884c7d65
                     */
                    hash?: string;
                    /**
                     * @description Requests at once; at or below the policy's.
                     * @example 16
                     */
                    max_concurrent?: number | null;
                    /**
                     * @description For people, reports and budgets; unique for ever.
                     * @example standard
                     */
                    name: string;
                    /**
                     * @description One of the configuration's.
                     * @example standard
                     */
                    policy: string;
                    /**
                     * @description Requests in any sliding minute; at or below the policy's.
                     * @example 50
                     */
                    requests_per_minute?: number | null;
                    /**
                     * @description Who shares a budget and a report with it.
                     * @example standard
                     */
                    team?: string | null;
                    /**
                     * @description Tokens in any sliding minute; at or below the policy's.
                     * @example 50
                     */
                    tokens_per_minute?: number | null;
                };
            };
        };
        responses: {
            /** @description Made. */
            201: {
                headers: {
                    /** @description Which state this is, for If-Match. What is in the configuration has none. */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["IssuedKey"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description This token may only look, or the session's request lacks `x-tierway-csrf`. */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body came too slowly. */
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is one already, or it is in the configuration. */
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is not JSON, or encoded as nobody here reads it. */
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway holds as many bodies as it can. */
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    read_key: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description With slashes as %2F. */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    /** @description Which state this is, for If-Match. What is in the configuration has none. */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Key"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that name, or this gateway keeps no ledger. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    delete_key: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: nothing is changed where it is no longer the current one. */
                "If-Match"?: string;
            };
            path: {
                /** @description With slashes as %2F. */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    /** @description Which state this is, for If-Match. What is in the configuration has none. */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Key"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description This token may only look, or the session's request lacks `x-tierway-csrf`. */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that name, or this gateway keeps no ledger. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is one already, or it is in the configuration. */
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description It is not in the state that If-Match names. */
            412: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    change_key: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: nothing is changed where it is no longer the current one. */
                "If-Match"?: string;
            };
            path: {
                /** @description With slashes as %2F. */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "disabled": false,
                 *       "expires": null,
                 *       "requests_per_minute": 20
                 *     }
                 */
                "application/json": {
                    /**
                     * @description What it may spend; at or below the policy's.
                     * @example {
                     *       "limit": "500.00",
                     *       "window": "month",
                     *       "zone": "Europe/Paris"
                     *     }
                     */
                    budget?: {
                        /**
                         * @description USD in each window.
                         * @example 500.00
                         */
                        limit: string;
                        /**
                         * @description When it is whole again; none: never.
                         * @example month
                         * @enum {string}
                         */
                        window: "day" | "month" | "none";
                        /**
                         * @description In which time zone days and months end; UTC unless given. A budget without window has none.
                         * @example Europe/Paris
                         */
                        zone?: string | null;
                    } | null;
                    /**
                     * @description Whether it is refused until this is false again.
                     * @example false
                     */
                    disabled?: boolean;
                    /**
                     * @description Its last day, in UTC, or the instant it ends.
                     * @example 2027-01-31
                     * @example 2027-01-31T12:00:00Z
                     */
                    expires?: string | null;
                    /**
                     * @description Requests at once; at or below the policy's.
                     * @example 16
                     */
                    max_concurrent?: number | null;
                    /**
                     * @description Another of the configuration's.
                     * @example standard
                     */
                    policy?: string;
                    /**
                     * @description Requests in any sliding minute; at or below the policy's.
                     * @example 50
                     */
                    requests_per_minute?: number | null;
                    /**
                     * @description Who shares a budget and a report with it.
                     * @example standard
                     */
                    team?: string | null;
                    /**
                     * @description Tokens in any sliding minute; at or below the policy's.
                     * @example 50
                     */
                    tokens_per_minute?: number | null;
                };
            };
        };
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    /** @description Which state this is, for If-Match. What is in the configuration has none. */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Key"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description This token may only look, or the session's request lacks `x-tierway-csrf`. */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that name, or this gateway keeps no ledger. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body came too slowly. */
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is one already, or it is in the configuration. */
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description It is not in the state that If-Match names. */
            412: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is not JSON, or encoded as nobody here reads it. */
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway holds as many bodies as it can. */
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    rotate_key: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: nothing is changed where it is no longer the current one. */
                "If-Match"?: string;
            };
            path: {
                /** @description With slashes as %2F. */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: {
            content: {
                /**
                 * @example {
                 *       "overlap": "24h"
                 *     }
                 */
                "application/json": {
                    /**
                     * @description How long the secrets it has go on working; 24h unless given, 0s ends them at once.
                     * @example 24h
                     */
                    overlap?: string;
                };
            };
        };
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    /** @description Which state this is, for If-Match. What is in the configuration has none. */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["IssuedKey"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description This token may only look, or the session's request lacks `x-tierway-csrf`. */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that name, or this gateway keeps no ledger. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body came too slowly. */
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is one already, or it is in the configuration. */
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description It is not in the state that If-Match names. */
            412: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is not JSON, or encoded as nobody here reads it. */
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway holds as many bodies as it can. */
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_requests: {
        parameters: {
            query?: {
                /** @description How many to a page. */
                limit?: number;
                /** @description The `next` of the page before. */
                after?: string;
                /** @description At this time or later: how long ago, a day in UTC, or a time. */
                since?: string;
                /** @description Before this time: the same. */
                until?: string;
                /** @description Only requests of this; - is none. */
                key?: string;
                /** @description Only requests of this; - is none. */
                team?: string;
                /** @description Only requests of this; - is none. */
                policy?: string;
                /** @description Only requests of this; - is none. */
                model?: string;
                /** @description Only requests of this; - is none. */
                deployment?: string;
                /** @description Only requests of this; - is none. */
                tier?: string;
                /** @description Only requests of this; - is none. */
                region?: string;
                /** @description Only requests of this; - is none. */
                price?: string;
                /** @description Only requests of this; - is none. */
                day?: string;
                /** @description Only requests of this; - is none. */
                reason?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RequestList"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that name, or this gateway keeps no ledger. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    read_request: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description With slashes as %2F. */
                request_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Request"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that name, or this gateway keeps no ledger. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    watch: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/event-stream": components["schemas"]["Second"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description As many watch as may. */
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    read_document: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Document"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    read_posture: {
        parameters: {
            query?: {
                /** @description Only about this policy. */
                policy?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Posture"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that name, or this gateway keeps no ledger. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    read_session: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Session"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    sign_in: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Made. */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Session"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description This token may only look, or the session's request lacks `x-tierway-csrf`. */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    sign_out: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Session"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description This token may only look, or the session's request lacks `x-tierway-csrf`. */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    read_sla: {
        parameters: {
            query?: {
                /** @description The calendar month in the policy's zone; absent, the one that is running. */
                month?: string;
                /** @description Only this policy. */
                policy?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SlaReportList"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that name, or this gateway keeps no ledger. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    read_status: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Status"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_teams: {
        parameters: {
            query?: {
                /** @description How many to a page. */
                limit?: number;
                /** @description The `next` of the page before. */
                after?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TeamList"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    create_team: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "budget": {
                 *         "limit": "2000.00",
                 *         "window": "month",
                 *         "zone": "Europe/Paris"
                 *       },
                 *       "name": "growth"
                 *     }
                 */
                "application/json": {
                    /**
                     * @description What its keys may spend together.
                     * @example {
                     *       "limit": "500.00",
                     *       "window": "month",
                     *       "zone": "Europe/Paris"
                     *     }
                     */
                    budget?: {
                        /**
                         * @description USD in each window.
                         * @example 500.00
                         */
                        limit: string;
                        /**
                         * @description When it is whole again; none: never.
                         * @example month
                         * @enum {string}
                         */
                        window: "day" | "month" | "none";
                        /**
                         * @description In which time zone days and months end; UTC unless given. A budget without window has none.
                         * @example Europe/Paris
                         */
                        zone?: string | null;
                    } | null;
                    /**
                     * @description As its keys name it; unique for ever.
                     * @example standard
                     */
                    name: string;
                };
            };
        };
        responses: {
            /** @description Made. */
            201: {
                headers: {
                    /** @description Which state this is, for If-Match. What is in the configuration has none. */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Team"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description This token may only look, or the session's request lacks `x-tierway-csrf`. */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body came too slowly. */
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is one already, or it is in the configuration. */
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is not JSON, or encoded as nobody here reads it. */
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway holds as many bodies as it can. */
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    read_team: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description With slashes as %2F. */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    /** @description Which state this is, for If-Match. What is in the configuration has none. */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Team"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that name, or this gateway keeps no ledger. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    change_team: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: nothing is changed where it is no longer the current one. */
                "If-Match"?: string;
            };
            path: {
                /** @description With slashes as %2F. */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "budget": null
                 *     }
                 */
                "application/json": {
                    /**
                     * @description What its keys may spend together.
                     * @example {
                     *       "limit": "500.00",
                     *       "window": "month",
                     *       "zone": "Europe/Paris"
                     *     }
                     */
                    budget?: {
                        /**
                         * @description USD in each window.
                         * @example 500.00
                         */
                        limit: string;
                        /**
                         * @description When it is whole again; none: never.
                         * @example month
                         * @enum {string}
                         */
                        window: "day" | "month" | "none";
                        /**
                         * @description In which time zone days and months end; UTC unless given. A budget without window has none.
                         * @example Europe/Paris
                         */
                        zone?: string | null;
                    } | null;
                };
            };
        };
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    /** @description Which state this is, for If-Match. What is in the configuration has none. */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Team"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description This token may only look, or the session's request lacks `x-tierway-csrf`. */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that name, or this gateway keeps no ledger. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body came too slowly. */
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is one already, or it is in the configuration. */
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description It is not in the state that If-Match names. */
            412: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is not JSON, or encoded as nobody here reads it. */
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway holds as many bodies as it can. */
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    read_usage: {
        parameters: {
            query?: {
                /** @description What to sum by. */
                by?: ("key" | "team" | "policy" | "model" | "deployment" | "tier" | "region" | "price" | "day" | "reason")[];
                /** @description At this time or later: how long ago, a day in UTC, or a time. */
                since?: string;
                /** @description Before this time: the same. */
                until?: string;
                /** @description Only requests of this; - is none. */
                key?: string;
                /** @description Only requests of this; - is none. */
                team?: string;
                /** @description Only requests of this; - is none. */
                policy?: string;
                /** @description Only requests of this; - is none. */
                model?: string;
                /** @description Only requests of this; - is none. */
                deployment?: string;
                /** @description Only requests of this; - is none. */
                tier?: string;
                /** @description Only requests of this; - is none. */
                region?: string;
                /** @description Only requests of this; - is none. */
                price?: string;
                /** @description Only requests of this; - is none. */
                day?: string;
                /** @description Only requests of this; - is none. */
                reason?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description As it is now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Usage"];
                };
            };
            /** @description A field, parameter or header is not as it must be; `param` names it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description No token of an operator. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is none of that name, or this gateway keeps no ledger. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The store cannot be used at the moment. */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
}
