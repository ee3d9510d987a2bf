//! THE table of the admin API: every operation, once. Router, reader and document are made from it.
//!
//! Start reading at [`OPERATIONS`].

use super::error::AdminFailure;
use super::input::DescribedField;
use super::{AdminRequest, AdminResponse, credits, keys, openapi, reports, teams};
use http::Method;
use std::pin::Pin;

/// What an operation's future is.
pub(super) type OperationFuture = Pin<Box<dyn Future<Output = Result<AdminResponse, AdminFailure>> + Send>>;

/// One method at one path.
pub(super) struct Operation {
    pub(super) method: AdminMethod,
    /// Paths that are alike stand together.
    pub(super) path: &'static str,
    /// Its name in the document and in logs.
    pub(super) id: &'static str,
    /// What it is for, in a line.
    pub(super) about: &'static str,
    pub(super) query: &'static [&'static dyn DescribedField],
    pub(super) body: Option<BodySpec>,
    /// Whether `If-Match` is heeded.
    pub(super) conditional: bool,
    pub(super) response: ResponseSpec,
    pub(super) run: fn(AdminRequest) -> OperationFuture,
}

/// The methods there are here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AdminMethod {
    Get,
    Post,
    Patch,
}

impl AdminMethod {
    /// What `method` asks for: HEAD is GET whose body the server leaves out.
    pub(super) fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET | Method::HEAD => Some(Self::Get),
            Method::POST => Some(Self::Post),
            Method::PATCH => Some(Self::Patch),
            _ => None,
        }
    }

    /// As the document has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Patch => "patch",
        }
    }

    /// As the header `Allow` has it.
    pub(super) fn allowed(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::Patch => "PATCH",
        }
    }
}

/// The body an operation takes.
#[derive(Clone, Copy)]
pub(super) struct BodySpec {
    pub(super) fields: &'static [&'static dyn DescribedField],
    pub(super) is_optional: bool,
    /// One that works where the policy `standard` and what it names are there, as JSON.
    pub(super) example: &'static str,
}

/// What it answers where it succeeds.
pub(super) struct ResponseSpec {
    /// The name of its schema.
    pub(super) schema: &'static str,
    pub(super) created: bool,
    /// Whether there is an `ETag`.
    pub(super) versioned: bool,
}

impl Operation {
    /// Whether it is an operator's alone.
    pub(super) fn changes(&self) -> bool {
        self.method != AdminMethod::Get
    }
}

const fn response(schema: &'static str) -> ResponseSpec {
    ResponseSpec { schema, created: false, versioned: false }
}

const fn versioned(schema: &'static str) -> ResponseSpec {
    ResponseSpec { versioned: true, ..response(schema) }
}

const fn looks(
    path: &'static str,
    id: &'static str,
    about: &'static str,
    response: ResponseSpec,
    run: fn(AdminRequest) -> OperationFuture,
) -> Operation {
    Operation { method: AdminMethod::Get, path, id, about, query: &[], body: None, conditional: false, response, run }
}

const fn takes(fields: &'static [&'static dyn DescribedField], example: &'static str) -> Option<BodySpec> {
    Some(BodySpec { fields, is_optional: false, example })
}

const KEYS: &str = "/admin/v1/keys";
const KEY: &str = "/admin/v1/keys/{name}";
const TEAMS: &str = "/admin/v1/teams";
const TEAM: &str = "/admin/v1/teams/{name}";
const GRANTS: &str = "/admin/v1/credits/grants";

/// Every operation there is.
pub(super) static OPERATIONS: &[Operation] = &[
    Operation {
        query: &keys::LISTED_BY,
        ..looks(KEYS, "list_keys", "Keys by name, those of the configuration among them.", response("KeyList"), |a| {
            Box::pin(keys::list(a))
        })
    },
    Operation {
        method: AdminMethod::Post,
        body: takes(
            &keys::NEW,
            r#"{"name":"growth-app","policy":"standard","team":"growth","requests_per_minute":50,"budget":{"limit":"100.00","window":"month"},"expires":"2037-01-31"}"#,
        ),
        response: ResponseSpec { created: true, ..versioned("IssuedKey") },
        ..looks(KEYS, "create_key", "Makes a key. Its secret is in this answer and nowhere else.", response(""), |a| {
            Box::pin(keys::create(a))
        })
    },
    looks(KEY, "read_key", "One key.", versioned("Key"), |a| Box::pin(keys::read(a))),
    Operation {
        method: AdminMethod::Patch,
        body: takes(&keys::CHANGED, r#"{"requests_per_minute":20,"expires":null,"disabled":false}"#),
        conditional: true,
        ..looks(KEY, "change_key", "Changes what is given; null takes it away.", versioned("Key"), |a| {
            Box::pin(keys::change(a))
        })
    },
    Operation {
        method: AdminMethod::Post,
        body: Some(BodySpec { fields: &keys::ROTATED, is_optional: true, example: r#"{"overlap":"24h"}"# }),
        conditional: true,
        ..looks(
            "/admin/v1/keys/{name}/rotate",
            "rotate_key",
            "Gives a key a further secret. Those it has work until the overlap ends.",
            versioned("IssuedKey"),
            |a| Box::pin(keys::rotate(a)),
        )
    },
    Operation {
        query: &teams::LISTED_BY,
        ..looks(TEAMS, "list_teams", "Teams with a budget, or made to have one, by name.", response("TeamList"), |a| {
            Box::pin(teams::list(a))
        })
    },
    Operation {
        method: AdminMethod::Post,
        body: takes(
            &teams::NEW,
            r#"{"name":"growth","budget":{"limit":"2000.00","window":"month","zone":"Europe/Paris"}}"#,
        ),
        response: ResponseSpec { created: true, ..versioned("Team") },
        ..looks(TEAMS, "create_team", "Makes a team.", response(""), |a| Box::pin(teams::create(a)))
    },
    looks(TEAM, "read_team", "One team.", versioned("Team"), |a| Box::pin(teams::read(a))),
    Operation {
        method: AdminMethod::Patch,
        body: takes(&teams::CHANGED, r#"{"budget":null}"#),
        conditional: true,
        ..looks(TEAM, "change_team", "Changes what is given; null takes it away.", versioned("Team"), |a| {
            Box::pin(teams::change(a))
        })
    },
    Operation {
        query: &credits::LISTED_BY,
        ..looks(
            "/admin/v1/credits",
            "list_credits",
            "What is left of everybody's credit.",
            response("BalanceList"),
            |a| Box::pin(credits::balances(a)),
        )
    },
    Operation {
        query: &credits::GRANTS_LISTED_BY,
        ..looks(GRANTS, "list_grants", "Grants of credit, the oldest first.", response("GrantList"), |a| {
            Box::pin(credits::grants(a))
        })
    },
    Operation {
        method: AdminMethod::Post,
        body: takes(&credits::GRANTED, r#"{"team":"growth","amount":"10.00","reason":"invoice 2026-11"}"#),
        response: ResponseSpec { created: true, ..response("Grant") },
        ..looks(GRANTS, "grant_credit", "Grants credit to a key or a team, or takes it back.", response(""), |a| {
            Box::pin(credits::grant(a))
        })
    },
    Operation {
        query: &reports::SUMMED_BY,
        ..looks(
            "/admin/v1/usage",
            "read_usage",
            "Requests, tokens and money, summed: the dearest first, or day by day where days come first.",
            response("Usage"),
            |a| Box::pin(reports::usage(a)),
        )
    },
    Operation {
        query: &reports::LISTED_BY,
        ..looks("/admin/v1/ledger", "list_requests", "Requests, the newest first.", response("RequestList"), |a| {
            Box::pin(reports::list(a))
        })
    },
    looks(
        "/admin/v1/ledger/{request_id}",
        "read_request",
        "What became of one request, by its x-request-id; a moment after its answer ended.",
        response("Request"),
        |a| Box::pin(reports::read(a)),
    ),
    looks("/admin/v1/openapi.json", "read_document", "This document.", response("Document"), |_| {
        Box::pin(async { Ok(AdminResponse::ok(openapi::document())) })
    }),
];
