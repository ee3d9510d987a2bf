//! The OpenAPI document as tests read it: which operations exist, their fields, and whether an answer conforms.

use crate::support::client::Response;
use crate::validator::faults;
use serde_json::Value;

/// The document with every reference replaced by its target.
pub struct Document(pub Value);

/// One operation of the document.
#[derive(Clone, Debug)]
pub struct Described {
    pub method: String,
    pub path: String,
    pub about: Value,
}

impl Document {
    pub fn of(mut document: Value) -> Self {
        let schemas = document["components"]["schemas"].clone();
        resolve(&mut document, &schemas);
        Self(document)
    }

    pub fn operations(&self) -> Vec<Described> {
        let paths = self.0["paths"].as_object().expect("there are paths");
        let of = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().expect("a path has methods").clone();
            let described = |(method, about): (String, Value)| Described {
                method: method.to_uppercase(),
                path: path.clone(),
                about,
            };
            methods.into_iter().map(described).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of).collect()
    }

    /// Whether `answer` conforms; `Err` says why not.
    pub fn holds(&self, method: &str, path: &str, answer: &Response) -> Result<(), String> {
        let path = path.split('?').next().unwrap_or_default();
        let Some(operation) = self.operations().into_iter().find(|one| one.method == method && fits(&one.path, path))
        else {
            let error = &self.0["components"]["schemas"]["Error"];
            return if matches!(answer.status, 401 | 404 | 405) {
                clean(error, answer)
            } else {
                Err("is not described".to_owned())
            };
        };
        let responses = &operation.about["responses"];
        let described = &responses[answer.status.to_string()];
        if described.is_null() {
            return Err(format!("status {} is not described", answer.status));
        }
        if described["headers"]["ETag"].is_null() && answer.header("etag").is_some() {
            return Err("its ETag is not described".to_owned());
        }
        clean(&described["content"]["application/json"]["schema"], answer)
    }
}

impl Described {
    pub fn changes(&self) -> bool {
        self.about["x-tierway-role"] == "operator"
    }

    /// Whether its answer does not end by itself.
    pub fn is_stream(&self) -> bool {
        self.about["responses"]["200"]["content"]["text/event-stream"].is_object()
    }

    /// Its status where it succeeds.
    pub fn success(&self) -> u16 {
        let statuses = self.about["responses"].as_object().expect("it has answers").keys();
        let mut success =
            statuses.filter_map(|status| status.parse().ok()).filter(|status| (200..300).contains(status));
        success.next().expect("it may succeed")
    }

    /// Its path, with `name` in place of the parameter.
    pub fn at(&self, name: &str) -> String {
        let before = self.path.split('{').next().unwrap_or_default();
        let after = self.path.split('}').nth(1);
        after.map_or_else(|| self.path.clone(), |after| format!("{before}{name}{after}"))
    }

    pub fn body(&self) -> &Value {
        &self.about["requestBody"]["content"]["application/json"]
    }

    /// Its parameters in the query: name and schema.
    pub fn query(&self) -> Vec<(String, Value)> {
        let all = self.about["parameters"].as_array().expect("there are parameters");
        let query = all.iter().filter(|parameter| parameter["in"] == "query");
        query.map(|one| (one["name"].as_str().expect("a name").to_owned(), one["schema"].clone())).collect()
    }
}

fn clean(schema: &Value, answer: &Response) -> Result<(), String> {
    if answer.header("content-type") != Some("application/json") {
        return Err("it is not said to be JSON".to_owned());
    }
    let faults = faults(schema, &answer.json());
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Whether `path` matches `template`.
fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len() && template.iter().zip(path).all(|(part, is)| part.starts_with('{') || *part == is)
}

fn resolve(value: &mut Value, schemas: &Value) {
    if let Some(name) = value.get("$ref").and_then(|target| target.as_str()?.rsplit('/').next().map(str::to_owned)) {
        *value = schemas[&name].clone();
        assert!(!value.is_null(), "there is no schema {name}");
    }
    match value {
        Value::Object(members) => members.values_mut().for_each(|member| resolve(member, schemas)),
        Value::Array(items) => items.iter_mut().for_each(|item| resolve(item, schemas)),
        _ => {}
    }
}
