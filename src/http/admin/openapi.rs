//! The document of the admin API, OpenAPI 3.1, made from the table the router is made from.
//!
//! Requests are described by the fields that read them. Answers are described here: every member is always
//! there unless said otherwise, and there are no others.
//!
//! Start reading at [`document`].

use super::input::{DescribedField, Presence};
use super::operations::{BodySpec, OPERATIONS, Operation};
use super::value_types::REQUEST_ID;
use crate::domain::call::Endpoint;
use crate::domain::receipt::{Outcome, Reason};
use crate::domain::refusal::LimitKind;
use crate::domain::report::Dimension;
use serde_json::{Map, Value, json};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// All of it.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.name()] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tierway admin API",
            "version": VERSION,
            "description": "Keys, teams, credit, usage and the ledger of one gateway. Every path needs a token: \
                            the admin token may do everything, the viewer token may look. Money is a decimal string of \
                            USD, times are RFC 3339 in UTC.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "The admin token or the viewer token." },
            },
            "schemas": schemas(),
        },
    })
}

/// The schema of an object of `fields`.
pub(super) fn object(fields: &[&dyn DescribedField]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name().to_owned(), property(*field))).collect();
    let required: Vec<_> =
        fields.iter().filter(|field| field.need() == Presence::Required).map(|field| field.name()).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(field: &dyn DescribedField) -> Value {
    let mut schema = field.schema();
    if field.need() == Presence::Nullable {
        schema = or_null(schema);
    }
    schema["description"] = field.about().into();
    schema
}

fn or_null(mut schema: Value) -> Value {
    match schema["type"].take() {
        Value::String(plain) => {
            schema["type"] = json!([plain, "null"]);
            if let Some(known) = schema.get_mut("enum").and_then(Value::as_array_mut) {
                known.push(Value::Null);
            }
            schema
        }
        _ => {
            if let Some(members) = schema.as_object_mut() {
                members.remove("type");
            }
            json!({ "anyOf": [schema, { "type": "null" }] })
        }
    }
}

fn described(operation: &Operation) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.about,
        "tags": [tag(operation.path)],
        "parameters": parameters(operation),
        "responses": responses(operation),
        "x-tierway-role": if operation.changes() { "operator" } else { "viewer" },
    });
    if let Some(BodySpec { fields, is_optional, example }) = operation.body {
        let example: Value = serde_json::from_str(example).unwrap_or_default();
        let content = json!({ "schema": object(fields), "example": example });
        described["requestBody"] = json!({ "required": !is_optional, "content": { "application/json": content } });
    }
    described
}

/// `keys` of `/admin/v1/keys/{name}`.
fn tag(path: &str) -> &str {
    path.split('/').nth(3).unwrap_or_default().trim_end_matches(".json")
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let in_path = operation.path.split(['{', '}']).nth(1).map(|name| {
        let schema = match name {
            "request_id" => json!({ "type": "string", "pattern": REQUEST_ID }),
            _ => json!({ "type": "string", "minLength": 1 }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema, "description": "With slashes as %2F." })
    });
    let in_query = operation.query.iter().map(|field| {
        let schema = field.schema();
        let mut parameter =
            json!({ "name": field.name(), "in": "query", "required": false, "description": field.about() });
        if schema["type"] == "array" {
            parameter["explode"] = false.into();
        }
        parameter["schema"] = schema;
        parameter
    });
    let condition = operation.conditional.then(|| {
        let tag = "(W/)?\"[^\"]*\"";
        let schema = json!({ "type": "string", "pattern": format!("^(\\*|{tag}(, ?{tag})*)$"), "examples": ["*"] });
        let about = "An ETag: nothing is changed where it is no longer the current one.";
        json!({ "name": "If-Match", "in": "header", "required": false, "schema": schema, "description": about })
    });
    in_path.into_iter().chain(in_query).chain(condition).collect()
}

/// What may come of it, by status.
fn responses(operation: &Operation) -> Value {
    let json_of = |schema: &str| json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } });
    let error = |about: &str| json!({ "description": about, "content": json_of("Error") });
    let (status, about) = if operation.response.created { ("201", "Made.") } else { ("200", "As it is now.") };
    let mut success = json!({ "description": about, "content": json_of(operation.response.schema) });
    if operation.response.versioned {
        let about = "Which state this is, for If-Match. What is in the configuration has none.";
        success["headers"] =
            json!({ "ETag": { "schema": { "type": "string", "pattern": "^\"[0-9]+\"$" }, "description": about } });
    }
    let mut responses = json!({
        status: success,
        "400": error("A field, parameter or header is not as it must be; `param` names it."),
        "401": error("No token of an operator."),
    });
    let mut add = |status: &str, about: &str| responses[status] = error(about);
    let named = operation.path.contains('{');
    let of_ledger = matches!(tag(operation.path), "usage" | "ledger");
    if named || of_ledger {
        add("404", "There is none of that name, or this gateway keeps no ledger.");
    }
    if operation.changes() {
        add("403", "This token may only look.");
        add("503", "The store cannot be used at the moment.");
    } else if of_ledger || tag(operation.path) == "credits" {
        add("503", "The store cannot be used at the moment.");
    }
    if operation.changes() && operation.response.versioned {
        add("409", "There is one already, or it is in the configuration.");
    }
    if operation.conditional {
        add("412", "It is not in the state that If-Match names.");
    }
    if operation.body.is_some() {
        add("408", "The body came too slowly.");
        add("413", "The body is too large.");
        add("415", "The body is not JSON, or encoded as nobody here reads it.");
        add("429", "The gateway holds as many bodies as it can.");
    }
    responses
}

// --- what is answered -------------------------------------------------------------------------

fn schemas() -> Value {
    let mut schemas = json!({
        "Error": shape(json!({ "error": shape(json!({
            "message": text(), "type": text(), "param": or_null(text()), "code": text(),
        })) })),
        "Document": { "type": "object" },
        "Budget": shape(budget()),
        "Secret": shape(json!({
            "id": { "type": "string", "pattern": "^[0-9a-f]{12}$", "description": "The first digits of its SHA-256." },
            "created": or_null(time()), "ends": or_null(time()), "last_used": or_null(time()),
        })),
        "Key": shape(key()),
        "IssuedKey": shape(with(key(), "secret", or_null(text()))),
        "Team": shape(json!({
            "object": is("team"), "name": text(), "source": one_of(&["file", "store"]),
            "budget": nullable_ref("Budget"), "created": or_null(time()),
        })),
        "Balance": shape(json!({
            "object": is("balance"), "key": or_null(text()), "team": or_null(text()),
            "granted": money(), "spent": money(), "leased": money(), "left": money(),
        })),
        "Grant": shape(json!({
            "object": is("grant"), "id": count(), "key": or_null(text()), "team": or_null(text()), "amount": money(),
            "reason": text(), "by": text(), "granted": time(),
        })),
        "Usage": shape(json!({
            "object": is("usage"), "by": { "type": "array", "items": one_of(&Dimension::ALL.map(Dimension::name)) },
            "since": or_null(time()), "until": or_null(time()),
            "data": { "type": "array", "items": reference("UsageRow") }, "total": shape(numbers()),
        })),
        "UsageRow": usage_row(),
        "Request": shape(request()),
    });
    for item in ["Key", "Team", "Balance", "Grant", "Request"] {
        let data = json!({ "type": "array", "items": reference(item) });
        let next = json!({ "type": ["string", "null"], "description": "What to give as `after` for the next page." });
        schemas[format!("{item}List")] =
            shape(json!({ "object": is("list"), "data": data, "has_more": flag(), "next": next }));
    }
    schemas
}

/// An object with these members and no others.
fn shape(properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().map(|members| members.keys().collect()).unwrap_or_default();
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

fn with(mut properties: Value, name: &str, schema: Value) -> Value {
    properties[name] = schema;
    properties
}

fn budget() -> Value {
    json!({ "limit": money(), "window": one_of(&["day", "month", "none"]), "zone": or_null(text()) })
}

fn key() -> Value {
    let limit = || or_null(count());
    let of = with(with(budget(), "of", one_of(&["key", "team", "policy"])), "name", text());
    let effective = json!({
        "requests_per_minute": limit(), "tokens_per_minute": limit(), "max_concurrent": limit(),
        "budgets": { "type": "array", "items": shape(of) },
    });
    json!({
        "object": is("key"), "name": text(), "source": one_of(&["file", "store"]),
        "state": one_of(&["active", "disabled", "expired"]), "policy": text(), "team": or_null(text()),
        "requests_per_minute": limit(), "tokens_per_minute": limit(), "max_concurrent": limit(),
        "budget": nullable_ref("Budget"), "effective": shape(effective), "expires": or_null(time()),
        "disabled": flag(), "created": or_null(time()),
        "secrets": { "type": "array", "items": reference("Secret") },
    })
}

fn numbers() -> Value {
    json!({
        "requests": count(), "failed": count(), "input_tokens": count(), "cached_input_tokens": count(),
        "output_tokens": count(), "reasoning_tokens": count(), "metered": count(), "estimated": count(),
        "cost_usd": money(),
    })
}

/// A sum, and the value of each dimension that was summed by.
fn usage_row() -> Value {
    let mut row = shape(numbers());
    for dimension in Dimension::ALL {
        row["properties"][dimension.name()] = or_null(text());
    }
    row
}

fn request() -> Value {
    let tokens = || or_null(count());
    let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.label()).collect();
    let attempt = json!({
        "deployment": text(), "tier": or_null(text()), "reason": one_of(&reasons), "duration_us": count(),
    });
    let price = json!({
        "input_usd_per_mtok": money(), "cached_input_usd_per_mtok": money(), "output_usd_per_mtok": money(),
        "request_usd": money(),
    });
    json!({
        "object": is("request"), "request_id": text(), "time": time(), "key": or_null(text()), "team": or_null(text()),
        "policy": or_null(text()), "endpoint": or_null(one_of(&Endpoint::ALL.map(Endpoint::name))),
        "asked_model": or_null(text()), "stream": flag(), "model": or_null(text()), "deployment": or_null(text()),
        "tier": or_null(text()), "region": or_null(text()),
        "attempts": { "type": "array", "items": shape(attempt) },
        "outcome": one_of(&Outcome::ALL.map(Outcome::label)), "reason": one_of(&reasons),
        "limit": or_null(one_of(&LimitKind::ALL.map(LimitKind::label))), "status": count(),
        "input_tokens": tokens(), "cached_input_tokens": tokens(), "output_tokens": tokens(),
        "reasoning_tokens": tokens(), "estimated": flag(), "price_version": or_null(text()), "price": or_null(shape(price)), "cost_usd": money(),
        "first_token_us": tokens(), "duration_us": count(), "overhead_us": count(),
    })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn money() -> Value {
    json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?$", "description": "USD." })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn is(word: &str) -> Value {
    json!({ "type": "string", "const": word })
}

fn one_of(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn nullable_ref(schema: &str) -> Value {
    json!({ "anyOf": [reference(schema), { "type": "null" }] })
}
