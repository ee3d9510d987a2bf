//! Every operation of the admin API, in one table. Router, reader and OpenAPI document are made from it.
//!
//! Start reading at [`OPERATIONS`].

use super::error::AdminFailure;
use super::input::DescribedField;
use super::openapi::OpenApiDocument;
use super::{
    AdminRequest, AdminResponse, audit, configuration, credits, faults, keys, live, openapi, posture, reports,
    sessions, sla, status, teams,
};
use crate::admin::views::{
    AuditRowObject, BalanceObject, ConfigurationObject, FaultObject, GatewayObject, GrantObject, HistoryObject,
    IssuedKeyObject, KeyObject, ListObject, PostureObject, RequestObject, SecondObject, SessionObject, SlaReportObject,
    StatusObject, TeamObject, UsageReportObject,
};
use crate::http::ops::TokenRole;
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::pin::Pin;

/// The future of an operation.
pub(super) type OperationFuture = Pin<Box<dyn Future<Output = Result<AdminResponse, AdminFailure>> + Send>>;

/// One method at one path.
pub(super) struct AdminOperation {
    pub(super) method: AdminMethod,
    /// Operations of the same path are adjacent.
    pub(super) path: &'static str,
    /// Its id in the document and in logs.
    pub(super) id: &'static str,
    /// Its description for the document, in a line.
    pub(super) about: &'static str,
    pub(super) query: &'static [&'static dyn DescribedField],
    pub(super) body: Option<BodySpec>,
    /// Whether it evaluates `If-Match`.
    pub(super) conditional: bool,
    /// Whether the viewer token may run it although it changes something: only its own session.
    pub(super) is_for_viewers: bool,
    pub(super) response: ResponseSpec,
    pub(super) run: fn(AdminRequest) -> OperationFuture,
}

/// The methods of the admin API.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AdminMethod {
    Get,
    Post,
    Patch,
    Delete,
}

impl AdminMethod {
    /// The method that `method` is handled as: HEAD is GET, and the server leaves out the body.
    pub(super) fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET | Method::HEAD => Some(Self::Get),
            Method::POST => Some(Self::Post),
            Method::PATCH => Some(Self::Patch),
            Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }

    /// Its name in the document.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    /// Its part of the header `Allow`.
    pub(super) fn allowed(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// The body of an operation.
#[derive(Clone, Copy)]
pub(super) struct BodySpec {
    pub(super) fields: &'static [&'static dyn DescribedField],
    pub(super) is_optional: bool,
    /// JSON that is valid if the policy `standard` exists, and what else it names.
    pub(super) example: &'static str,
}

/// The answer of an operation that succeeds.
pub(super) struct ResponseSpec {
    /// The schema of its body; a named one is added to the generator's definitions.
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
    /// 201 in place of 200.
    pub(super) is_created: bool,
    /// Whether there is an `ETag`.
    pub(super) has_etag: bool,
    /// Whether it is a stream of events, each with an object of the schema or another one in it.
    pub(super) is_stream: bool,
}

impl ResponseSpec {
    const fn created(self) -> Self {
        Self { is_created: true, ..self }
    }

    const fn with_etag(self) -> Self {
        Self { has_etag: true, ..self }
    }

    const fn streamed(self) -> Self {
        Self { is_stream: true, ..self }
    }
}

impl AdminOperation {
    /// Whether it changes something: only the admin token may run it, and a session only with what its page was given.
    pub(super) fn changes(&self) -> bool {
        self.method != AdminMethod::Get
    }

    /// Whether a token of `role` may run it.
    pub(super) fn permits(&self, role: TokenRole) -> bool {
        !self.changes() || self.is_for_viewers || role == TokenRole::Operator
    }
}

/// Whether `method` at the route `path` signs a browser in.
pub(super) fn is_sign_in(path: Option<&str>, method: &Method) -> bool {
    path == Some(SESSION) && *method == Method::POST
}

const fn response<T: JsonSchema>() -> ResponseSpec {
    ResponseSpec { schema: SchemaGenerator::subschema_for::<T>, is_created: false, has_etag: false, is_stream: false }
}

const fn get(
    path: &'static str,
    id: &'static str,
    about: &'static str,
    response: ResponseSpec,
    run: fn(AdminRequest) -> OperationFuture,
) -> AdminOperation {
    AdminOperation {
        method: AdminMethod::Get,
        path,
        id,
        about,
        query: &[],
        body: None,
        conditional: false,
        is_for_viewers: false,
        response,
        run,
    }
}

const fn body(fields: &'static [&'static dyn DescribedField], example: &'static str) -> Option<BodySpec> {
    Some(BodySpec { fields, is_optional: false, example })
}

const KEYS: &str = "/admin/v1/keys";
const KEY: &str = "/admin/v1/keys/{name}";
const TEAMS: &str = "/admin/v1/teams";
const TEAM: &str = "/admin/v1/teams/{name}";
const GRANTS: &str = "/admin/v1/credits/grants";
const FAULTS: &str = "/admin/v1/faults";
const SESSION: &str = "/admin/v1/session";

/// Every operation.
pub(super) static OPERATIONS: &[AdminOperation] = &[
    AdminOperation {
        query: &keys::LISTED_BY,
        ..get(
            KEYS,
            "list_keys",
            "Keys by name, those of the configuration among them.",
            response::<ListObject<KeyObject>>(),
            |a| Box::pin(keys::list(a)),
        )
    },
    AdminOperation {
        method: AdminMethod::Post,
        body: body(
            &keys::NEW,
            r#"{"name":"growth-app","policy":"standard","team":"growth","requests_per_minute":50,"budget":{"limit":"100.00","window":"month"},"expires":"2037-01-31"}"#,
        ),
        ..get(
            KEYS,
            "create_key",
            "Makes a key. Its secret is in this answer and nowhere else.",
            response::<IssuedKeyObject>().with_etag().created(),
            |a| Box::pin(keys::create(a)),
        )
    },
    get(KEY, "read_key", "One key.", response::<KeyObject>().with_etag(), |a| Box::pin(keys::read(a))),
    AdminOperation {
        method: AdminMethod::Patch,
        body: body(&keys::CHANGED, r#"{"requests_per_minute":20,"expires":null,"disabled":false}"#),
        conditional: true,
        ..get(
            KEY,
            "change_key",
            "Changes what is given; null takes it away.",
            response::<KeyObject>().with_etag(),
            |a| Box::pin(keys::change(a)),
        )
    },
    AdminOperation {
        method: AdminMethod::Delete,
        conditional: true,
        ..get(
            KEY,
            "delete_key",
            "Takes a key's secrets away, for good. Its name is not free again.",
            response::<KeyObject>().with_etag(),
            |a| Box::pin(keys::delete(a)),
        )
    },
    AdminOperation {
        method: AdminMethod::Post,
        body: Some(BodySpec { fields: &keys::ROTATED, is_optional: true, example: r#"{"overlap":"24h"}"# }),
        conditional: true,
        ..get(
            "/admin/v1/keys/{name}/rotate",
            "rotate_key",
            "Gives a key a further secret. Those it has work until the overlap ends.",
            response::<IssuedKeyObject>().with_etag(),
            |a| Box::pin(keys::rotate(a)),
        )
    },
    AdminOperation {
        query: &teams::LISTED_BY,
        ..get(
            TEAMS,
            "list_teams",
            "Teams with a budget, or made to have one, by name.",
            response::<ListObject<TeamObject>>(),
            |a| Box::pin(teams::list(a)),
        )
    },
    AdminOperation {
        method: AdminMethod::Post,
        body: body(
            &teams::NEW,
            r#"{"name":"growth","budget":{"limit":"2000.00","window":"month","zone":"Europe/Paris"}}"#,
        ),
        ..get(TEAMS, "create_team", "Makes a team.", response::<TeamObject>().with_etag().created(), |a| {
            Box::pin(teams::create(a))
        })
    },
    get(TEAM, "read_team", "One team.", response::<TeamObject>().with_etag(), |a| Box::pin(teams::read(a))),
    AdminOperation {
        method: AdminMethod::Patch,
        body: body(&teams::CHANGED, r#"{"budget":null}"#),
        conditional: true,
        ..get(
            TEAM,
            "change_team",
            "Changes what is given; null takes it away.",
            response::<TeamObject>().with_etag(),
            |a| Box::pin(teams::change(a)),
        )
    },
    AdminOperation {
        query: &credits::LISTED_BY,
        ..get(
            "/admin/v1/credits",
            "list_credits",
            "What is left of everybody's credit.",
            response::<ListObject<BalanceObject>>(),
            |a| Box::pin(credits::balances(a)),
        )
    },
    AdminOperation {
        query: &credits::GRANTS_LISTED_BY,
        ..get(
            GRANTS,
            "list_grants",
            "Grants of credit, the oldest first.",
            response::<ListObject<GrantObject>>(),
            |a| Box::pin(credits::grants(a)),
        )
    },
    AdminOperation {
        method: AdminMethod::Post,
        body: body(&credits::GRANTED, r#"{"team":"growth","amount":"10.00","reason":"invoice 2026-11"}"#),
        ..get(
            GRANTS,
            "grant_credit",
            "Grants credit to a key or a team, or takes it back.",
            response::<GrantObject>().created(),
            |a| Box::pin(credits::grant(a)),
        )
    },
    AdminOperation {
        query: &reports::SUMMED_BY,
        ..get(
            "/admin/v1/usage",
            "read_usage",
            "Requests, tokens and money, summed: the dearest first, or day by day where days come first.",
            response::<UsageReportObject>(),
            |a| Box::pin(reports::usage(a)),
        )
    },
    AdminOperation {
        query: &reports::LISTED_BY,
        ..get(
            "/admin/v1/ledger",
            "list_requests",
            "Requests, the newest first.",
            response::<ListObject<RequestObject>>(),
            |a| Box::pin(reports::list(a)),
        )
    },
    get(
        "/admin/v1/ledger/{request_id}",
        "read_request",
        "What became of one request, by its x-request-id; a moment after its answer ended.",
        response::<RequestObject>(),
        |a| Box::pin(reports::read(a)),
    ),
    AdminOperation {
        query: &audit::LISTED_BY,
        ..get(
            "/admin/v1/audit",
            "list_audit",
            "Changes that operators made, the newest first: who, from where, by what, before and after.",
            response::<ListObject<AuditRowObject>>(),
            |a| Box::pin(audit::list(a)),
        )
    },
    AdminOperation {
        query: &sla::REPORTED_BY,
        ..get(
            "/admin/v1/sla",
            "read_sla",
            "Each SLA and how it is kept in a month: uptime, error budget, first tokens, credit.",
            response::<ListObject<SlaReportObject>>(),
            |a| Box::pin(sla::report(a)),
        )
    },
    AdminOperation {
        query: &posture::ASKED_BY,
        ..get(
            "/admin/v1/posture",
            "read_posture",
            "What a buyer asks, answered from what was measured with its source and date, or with how to measure it.",
            response::<PostureObject>(),
            |a| Box::pin(posture::read(a)),
        )
    },
    get(
        "/admin/v1/status",
        "read_status",
        "Every deployment and its credentials: what does not flow, why, since when, and when it is tried again.",
        response::<StatusObject>(),
        |a| Box::pin(status::read(a)),
    ),
    AdminOperation {
        method: AdminMethod::Post,
        ..get(
            "/admin/v1/deployments/{name}/resume",
            "resume_deployment",
            "Ends the pause of requests with a budget at a deployment whose answers cost more than was held.",
            response::<StatusObject>(),
            |a| Box::pin(status::resume(a)),
        )
    },
    get(
        FAULTS,
        "list_faults",
        "Faults that are injected into attempts now.",
        response::<ListObject<FaultObject>>(),
        |a| Box::pin(faults::list(a)),
    ),
    AdminOperation {
        method: AdminMethod::Post,
        body: body(
            &faults::INJECTED,
            r#"{"kind":"status","status":503,"region":"eu-central","share":50,"expires_in":"1m"}"#,
        ),
        ..get(
            FAULTS,
            "inject_fault",
            "Injects a fault into attempts at a deployment or a region, for a while.",
            response::<FaultObject>().created(),
            |a| Box::pin(faults::inject(a)),
        )
    },
    AdminOperation {
        method: AdminMethod::Delete,
        ..get("/admin/v1/faults/{id}", "end_fault", "Ends a fault before its time.", response::<FaultObject>(), |a| {
            Box::pin(faults::end(a))
        })
    },
    get(
        "/admin/v1/gateway",
        "read_gateway",
        "What this gateway is: its version, policies, tiers and regions, and whether faults may be injected.",
        response::<GatewayObject>(),
        |a| Box::pin(live::gateway(a)),
    ),
    get(
        "/admin/v1/configuration",
        "read_configuration",
        "The active configuration, each setting with its origin, and what is wrong with a changed one that was refused.",
        response::<ConfigurationObject>(),
        |a| Box::pin(configuration::read(a)),
    ),
    AdminOperation {
        query: &live::HISTORY_BY,
        ..get(
            "/admin/v1/history",
            "read_history",
            "Traffic of the last minutes, hours or days, and what happened, from memory: since the start at most.",
            response::<HistoryObject>(),
            |a| Box::pin(live::history(a)),
        )
    },
    get(
        "/admin/v1/live",
        "watch",
        "Events while they happen: `second` each second, `deployment` at first and when its state changes, `event`, and \
         `request` for up to 50 finished requests of a second. At most 32 watch at a time.",
        response::<SecondObject>().streamed(),
        |a| Box::pin(live::live(a)),
    ),
    get(
        SESSION,
        "read_session",
        "Who asks, and what changes by this session present.",
        response::<SessionObject>(),
        |a| Box::pin(sessions::read(a)),
    ),
    AdminOperation {
        method: AdminMethod::Post,
        is_for_viewers: true,
        ..get(
            SESSION,
            "sign_in",
            "Opens a session for a browser: a cookie that stands for the token presented here, for 12 hours.",
            response::<SessionObject>().created(),
            |a| Box::pin(sessions::sign_in(a)),
        )
    },
    AdminOperation {
        method: AdminMethod::Delete,
        is_for_viewers: true,
        ..get(SESSION, "sign_out", "Ends the session.", response::<SessionObject>(), |a| {
            Box::pin(sessions::sign_out(a))
        })
    },
    get("/admin/v1/openapi.json", "read_document", "This document.", response::<OpenApiDocument>(), |_| {
        Box::pin(async { Ok(AdminResponse::ok(&openapi::document())) })
    }),
];
