//! The OpenAPI 3.1 document of the admin API, made from the table that the router is made from.
//!
//! Requests are described by the fields that read them, answers by the structs that are serialised, see
//! [`views`](crate::admin::views). Only the error is described here.
//!
//! Start reading at [`document`].

use super::input::object;
// circle: operations.rs: the document describes every operation, and one of the operations returns it.
use super::operations::{AdminOperation, BodySpec, OPERATIONS};
use super::value_types::REQUEST_ID;
use crate::http::ops::TokenRole;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The document.
pub(super) fn document() -> Value {
    let mut generator = generator();
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.name()] = described(operation, &mut generator);
    }
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Error".to_owned(), error());
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
        "security": [{ "token": [] }, { "session": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "The admin token or the viewer token." },
                "session": {
                    "type": "apiKey", "in": "cookie", "name": "tierway_session",
                    "description": "A browser's session. Changes by it present the session's `csrf` as `x-tierway-csrf`.",
                },
            },
            "schemas": schemas,
        },
    })
}

/// Puts named schemas where OpenAPI expects them, and drops formats such as `uint64`: `minimum` has that meaning.
fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let without_formats = RecursiveTransform(|schema: &mut Schema| {
        if schema.get("format").is_some_and(|format| format != "date-time") {
            schema.remove("format");
        }
    });
    settings.with_transform(without_formats).into_generator()
}

/// The schema of every error.
fn error() -> Value {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "param", "type"],
                "properties": {
                    "message": { "type": "string" },
                    "type": { "type": "string" },
                    "param": { "type": ["string", "null"] },
                    "code": { "type": "string" },
                },
                "additionalProperties": false,
            },
        },
        "additionalProperties": false,
    })
}

/// The document as an answer: its own schema is OpenAPI's.
pub(super) struct OpenApiDocument;

impl JsonSchema for OpenApiDocument {
    fn schema_name() -> Cow<'static, str> {
        "Document".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}

fn described(operation: &AdminOperation, generator: &mut SchemaGenerator) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.about,
        "tags": [tag(operation.path)],
        "parameters": parameters(operation),
        "responses": responses(operation, generator),
        "x-tierway-role": if operation.permits(TokenRole::Viewer) { "viewer" } else { "operator" },
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

fn parameters(operation: &AdminOperation) -> Vec<Value> {
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

/// The answers of an operation, by status.
fn responses(operation: &AdminOperation, generator: &mut SchemaGenerator) -> Value {
    let json_of = |schema: Value| json!({ "application/json": { "schema": schema } });
    let error = |about: &str| json!({ "description": about, "content": json_of(json!({ "$ref": "#/components/schemas/Error" })) });
    let (status, about) = if operation.response.is_created { ("201", "Made.") } else { ("200", "As it is now.") };
    let schema = (operation.response.schema)(generator).to_value();
    let content = match operation.response.is_stream {
        true => json!({ "text/event-stream": { "schema": schema } }),
        false => json_of(schema),
    };
    let mut success = json!({ "description": about, "content": content });
    if operation.response.has_etag {
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
    let of_faults = tag(operation.path) == "faults";
    let of_ledger = matches!(tag(operation.path), "usage" | "ledger" | "sla" | "posture");
    if of_faults {
        add("404", "There is none of that id, or faults are not enabled.");
    } else if named || of_ledger {
        add("404", "There is none of that name, or this gateway keeps no ledger.");
    }
    if operation.changes() {
        add("403", "This token may only look, or the session's request lacks `x-tierway-csrf`.");
        add("503", "The store cannot be used at the moment.");
    } else if of_ledger || tag(operation.path) == "credits" {
        add("503", "The store cannot be used at the moment.");
    }
    if operation.changes() && operation.response.has_etag {
        add("409", "There is one already, or it is in the configuration.");
    }
    if operation.conditional {
        add("412", "It is not in the state that If-Match names.");
    }
    if operation.response.is_stream {
        add("429", "As many watch as may.");
    }
    if operation.body.is_some() {
        add("408", "The body came too slowly.");
        add("413", "The body is too large.");
        add("415", "The body is not JSON, or encoded as nobody here reads it.");
        add("429", "The gateway holds as many bodies as it can.");
    }
    responses
}
