//! Makes a value up that follows a schema rule by rule.
//!
//! Rules that only a whole value shows to be broken are not looked at: the caller validates the value and draws another.

use super::merge::{add_rule, types};
use super::pattern::matched_text;
use super::validate::{is_a, matches};
use super::{DEEPEST, resolved};
use crate::domain::random::RandomValue;
use serde_json::{Map, Number, Value};
use std::borrow::Cow;
use std::cell::Cell;

/// From this depth on, or after this many schemas, nothing is made that is not required.
const FULL_DEPTH: u32 = 6;
const FULL_STEPS: u32 = 100;
/// After this many schemas nothing is made at all.
const MOST_STEPS: u32 = 10_000;
/// The most items, members or characters that one value gets.
const MOST_ITEMS: usize = 1_000;
const MOST_CHARACTERS: usize = 100_000;
/// How often another item is drawn where items differ.
const REDRAWS: u32 = 64;

const WORDS: [&str; 8] = ["river", "light", "stone", "water", "slow", "open", "one", "many"];

/// Makes one value up.
pub(super) struct SchemaGenerator<'s> {
    root: &'s Value,
    seed: RandomValue,
    /// The number of this value among those that are tried: alternatives of the first are not drawn.
    nth: u64,
    drawn: Cell<u64>,
    steps: Cell<u32>,
}

impl<'s> SchemaGenerator<'s> {
    pub(super) fn new(root: &'s Value, seed: RandomValue, nth: u64) -> Self {
        Self { root, seed, nth, drawn: Cell::new(0), steps: Cell::new(0) }
    }

    /// A value for the whole document.
    pub(super) fn document(&self) -> Value {
        self.value(self.root, 0)
    }

    fn draw(&self) -> RandomValue {
        self.drawn.set(self.drawn.get() + 1);
        self.seed.salted(self.drawn.get())
    }

    fn one_of<'v, T>(&self, values: &'v [T]) -> Option<&'v T> {
        values.get(self.draw().below(values.len() as u64) as usize)
    }

    /// Counts a schema; whether it is one too many.
    fn is_over(&self, depth: u32) -> bool {
        self.steps.set(self.steps.get().saturating_add(1));
        depth > DEEPEST || self.steps.get() > MOST_STEPS
    }

    /// Whether only what is required is made.
    fn is_minimal(&self, depth: u32) -> bool {
        depth > FULL_DEPTH || self.steps.get() > FULL_STEPS
    }

    fn value(&self, schema: &Value, depth: u32) -> Value {
        if self.is_over(depth) {
            return Value::Null;
        }
        let mut rules = Map::new();
        match schema {
            Value::Bool(false) => return Value::Null,
            Value::Object(written) => self.collect(&mut rules, written, depth),
            _ => {}
        }
        if let Some(constant) = rules.get("const") {
            return constant.clone();
        }
        if let Some(values) = rules.get("enum").and_then(Value::as_array) {
            let allowed = rules.get("type").map(types);
            let fits = |value: &&Value| allowed.as_ref().is_none_or(|names| names.iter().any(|name| is_a(name, value)));
            let fitting: Vec<&Value> = values.iter().filter(fits).collect();
            return self.one_of(&fitting).map_or(Value::Null, |value| (*value).clone());
        }
        match &*self.kind(&rules, depth) {
            "object" => self.object(&rules, depth),
            "array" => self.list(&rules, depth),
            "integer" => self.number(&rules, true),
            "number" => self.number(&rules, false),
            "boolean" => Value::Bool(self.draw().below(2) == 1),
            "null" => Value::Null,
            _ => Value::String(self.text(&rules)),
        }
    }

    /// Collects the rules of `written` and of all schemas that apply with it.
    fn collect(&self, rules: &mut Map<String, Value>, written: &Map<String, Value>, depth: u32) {
        if self.is_over(depth) {
            return;
        }
        let mut more = |schema: Option<&Value>| {
            if let Some(written) = schema.and_then(Value::as_object) {
                self.collect(rules, written, depth + 1);
            }
        };
        for (keyword, rule) in written {
            match (keyword.as_str(), rule) {
                ("$ref", _) => more(resolved(self.root, rule)),
                ("allOf", Value::Array(schemas)) => schemas.iter().for_each(|schema| more(Some(schema))),
                ("anyOf" | "oneOf", Value::Array(schemas)) => more(self.alternative(schemas, depth)),
                ("if", _) if self.draw().below(2) == 0 => {
                    more(Some(rule));
                    more(written.get("then"));
                }
                ("if", _) => more(written.get("else")),
                _ => {}
            }
        }
        const COMBINING: [&str; 8] = ["$ref", "allOf", "anyOf", "oneOf", "if", "then", "else", "not"];
        for (keyword, rule) in written.iter().filter(|(keyword, _)| !COMBINING.contains(&keyword.as_str())) {
            add_rule(rules, keyword, rule);
        }
    }

    /// One of several schemas: the first that is more than null; where little is to be made, one that ends.
    fn alternative<'v>(&self, schemas: &'v [Value], depth: u32) -> Option<&'v Value> {
        let is_null = |schema: &&Value| schema.get("type").is_some_and(|name| name == "null");
        if self.is_minimal(depth) {
            let ends = |schema: &&Value| !schema.to_string().contains("\"$ref\"");
            return schemas.iter().find(is_null).or_else(|| schemas.iter().find(ends)).or(schemas.first());
        }
        if self.nth == 0 {
            return schemas.iter().find(|schema| !is_null(schema)).or(schemas.first());
        }
        self.one_of(schemas)
    }

    fn kind<'r>(&self, rules: &'r Map<String, Value>, depth: u32) -> Cow<'r, str> {
        let names = rules.get("type").map(types).unwrap_or_default();
        if self.is_minimal(depth) && names.contains(&"null") {
            return "null".into();
        }
        let usual = names.iter().find(|name| **name != "null").or(names.first());
        let drawn = if self.nth == 0 { usual } else { self.one_of(&names) };
        if let Some(name) = drawn {
            return (*name).into();
        }
        let has = |keywords: &[&str]| keywords.iter().any(|keyword| rules.contains_key(*keyword));
        let found = if has(&["properties", "required", "additionalProperties", "minProperties"]) {
            "object"
        } else if has(&["items", "prefixItems", "minItems", "contains"]) {
            "array"
        } else if has(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]) {
            "number"
        } else if self.nth > 0 {
            self.one_of(&["string", "integer", "object", "array", "boolean", "null"]).copied().unwrap_or("string")
        } else if depth == 0 && !has(&["pattern", "format", "minLength", "maxLength"]) {
            "object"
        } else {
            "string"
        };
        found.into()
    }

    fn object(&self, rules: &Map<String, Value>, depth: u32) -> Value {
        let required: Vec<&str> = array(rules, "required").iter().filter_map(Value::as_str).collect();
        let empty = Map::new();
        let named = rules.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let others = rules.get("additionalProperties").unwrap_or(&Value::Bool(true));
        let mut made = Map::new();
        for (name, schema) in named {
            let is_required = required.contains(&name.as_str());
            let is_wanted = || self.nth == 0 || self.draw().below(2) == 0;
            if is_required || !(self.is_minimal(depth) || *schema == Value::Bool(false)) && is_wanted() {
                made.insert(name.clone(), self.value(schema, depth + 1));
            }
        }
        for name in &required {
            if !made.contains_key(*name) {
                made.insert((*name).to_owned(), self.value(others, depth + 1));
            }
        }
        let needs = rules.get("dependentRequired").and_then(Value::as_object).into_iter().flatten();
        for (_, needed) in needs.filter(|(name, _)| made.contains_key(*name)).collect::<Vec<_>>() {
            for name in needed.as_array().into_iter().flatten().filter_map(Value::as_str) {
                let schema = named.get(name).unwrap_or(others);
                made.entry(name).or_insert_with(|| self.value(schema, depth + 1));
            }
        }
        let most = rules.get("maxProperties").map_or(usize::MAX, |_| count(rules, "maxProperties"));
        let spare: Vec<String> = made.keys().filter(|name| !required.contains(&name.as_str())).cloned().collect();
        for name in spare.iter().rev().take(made.len().saturating_sub(most)) {
            made.remove(name);
        }
        self.add_unnamed(rules, others, &mut made, depth);
        Value::Object(made)
    }

    /// Adds members that no schema names, where some are wanted.
    fn add_unnamed(&self, rules: &Map<String, Value>, others: &Value, made: &mut Map<String, Value>, depth: u32) {
        let patterns = rules.get("patternProperties").and_then(Value::as_object);
        let (pattern, schema) = match patterns.and_then(|patterns| patterns.iter().next()) {
            Some((pattern, schema)) => (Some(pattern), schema),
            None => (None, others),
        };
        let is_map = made.is_empty() && (others.is_object() || pattern.is_some());
        let wanted = usize::from(is_map && !self.is_minimal(depth));
        let least = count(rules, "minProperties").max(wanted).min(MOST_ITEMS);
        // Names that are drawn may be there already.
        for nth in 1..=least + REDRAWS as usize {
            if made.len() >= least || *schema == Value::Bool(false) {
                break;
            }
            let name = match (pattern, rules.get("propertyNames")) {
                (Some(pattern), _) => matched_text(pattern, nth as u32, self.draw()).unwrap_or_default(),
                (None, Some(names)) => self.text_of(names, depth + 1),
                (None, None) => format!("name_{nth}"),
            };
            let value = self.value(schema, depth + 1);
            made.entry(name).or_insert(value);
        }
    }

    /// A name that `schema` allows, which need not say that it is a text.
    fn text_of(&self, schema: &Value, depth: u32) -> String {
        match self.value(schema, depth) {
            Value::String(text) => text,
            other => other.to_string(),
        }
    }

    fn list(&self, rules: &Map<String, Value>, depth: u32) -> Value {
        let firsts = ["prefixItems", "items"].iter().find_map(|keyword| rules.get(*keyword)?.as_array());
        let mut made: Vec<Value> = firsts.into_iter().flatten().map(|schema| self.value(schema, depth + 1)).collect();
        if let Some(contained) = rules.get("contains") {
            let least = rules.get("minContains").map_or(1, |_| count(rules, "minContains")).min(MOST_ITEMS);
            made.extend((0..least).map(|_| self.value(contained, depth + 1)));
        }
        let others = ["items", "additionalItems"].iter().find_map(|keyword| rules.get(*keyword));
        let others = others.filter(|schema| !schema.is_array()).unwrap_or(&Value::Bool(true));
        let most = rules.get("maxItems").map_or(MOST_ITEMS, |_| count(rules, "maxItems"));
        let wanted = usize::from(!self.is_minimal(depth) && made.is_empty());
        let least = count(rules, "minItems").max(wanted).min(most).min(MOST_ITEMS);
        let unique = rules.get("uniqueItems").is_some_and(|unique| *unique == Value::Bool(true));
        let mut redraws = 0;
        while made.len() < least && redraws < REDRAWS && *others != Value::Bool(false) && !self.is_over(depth) {
            let next = self.value(others, depth + 1);
            if unique && made.contains(&next) {
                redraws += 1;
            } else {
                made.push(next);
            }
        }
        Value::Array(made)
    }

    fn number(&self, rules: &Map<String, Value>, whole: bool) -> Value {
        let bound = |keyword: &str| rules.get(keyword).and_then(Value::as_f64).filter(|bound| bound.is_finite());
        // The nearest whole number beyond an exclusive bound, or a little beyond it.
        let beyond = |bound: f64, sign: f64| match (whole, sign > 0.0) {
            (true, true) => bound.floor() + 1.0,
            (true, false) => bound.ceil() - 1.0,
            (false, _) => bound + sign * (bound.abs() * 1e-9).max(1e-9),
        };
        let excluded = bound("exclusiveMinimum").map(|least| beyond(least, 1.0));
        let least = bound("minimum").into_iter().chain(excluded).reduce(f64::max);
        let excluded = bound("exclusiveMaximum").map(|most| beyond(most, -1.0));
        let most = bound("maximum").into_iter().chain(excluded).reduce(f64::min);
        let (low, high) = match (least, most) {
            (Some(low), Some(high)) => (low, high),
            (Some(low), None) => (low, low + 100.0),
            (None, Some(high)) => ((high - 100.0).max(high.min(0.0)), high),
            (None, None) => (1.0, 100.0),
        };
        let drawn = low + self.draw().unit() * (high - low);
        let step = bound("multipleOf").filter(|step| *step > 0.0).or(whole.then_some(1.0));
        let round = drawn.round();
        let is_fine = |step: f64| (low..=high).contains(&round) && (round / step).fract() == 0.0;
        let fitted = match step {
            None => (drawn * 10.0).round() / 10.0,
            // Of tenths and the like few are exact as floats, and some clients divide.
            Some(step) if is_fine(step) => round,
            Some(step) => {
                let nearest = (drawn / step).round() * step;
                if nearest < low {
                    (low / step).ceil() * step
                } else if nearest > high {
                    (high / step).floor() * step
                } else {
                    nearest
                }
            }
        };
        let fitted = if step.is_none() && !(low..=high).contains(&fitted) { drawn } else { fitted };
        let as_integer = fitted.fract() == 0.0 && fitted.abs() < 9e15;
        if as_integer && (whole || step.is_some()) {
            return Value::from(fitted as i64);
        }
        // Beyond what a float counts exactly, a bound is as good as any.
        let exact =
            ["minimum", "maximum"].iter().filter_map(|keyword| rules.get(*keyword)).find(|bound| !bound.is_f64());
        match exact.filter(|_| whole) {
            Some(bound) => bound.clone(),
            None => Number::from_f64(fitted).map_or(Value::Null, Value::Number),
        }
    }

    fn text(&self, rules: &Map<String, Value>) -> String {
        let least = count(rules, "minLength").min(MOST_CHARACTERS);
        let most = rules.get("maxLength").map_or(MOST_CHARACTERS, |_| count(rules, "maxLength"));
        let pattern = rules.get("pattern").and_then(Value::as_str);
        // A text of the format means more than one that only looks like it.
        let format = rules.get("format").and_then(Value::as_str).and_then(of_format);
        if let Some(text) = format.filter(|text| pattern.is_none_or(|pattern| matches(pattern, text))) {
            return text.to_owned();
        }
        if let Some(pattern) = pattern {
            let seed = self.draw();
            let long_enough = |text: &String| text.chars().count() >= least;
            let found = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
                .into_iter()
                .filter_map(|extra| matched_text(pattern, extra, seed))
                .find(long_enough);
            if let Some(text) = found {
                return text;
            }
        }
        let mut text = String::new();
        while text.len() < least.max(8) {
            text.push_str(if text.is_empty() { "" } else { " " });
            text.push_str(self.one_of(&WORDS).copied().unwrap_or_default());
        }
        text.truncate(most.max(least));
        text
    }
}

fn array<'r>(rules: &'r Map<String, Value>, keyword: &str) -> &'r [Value] {
    rules.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A rule that counts, 0 where it is absent or no number.
fn count(rules: &Map<String, Value>, keyword: &str) -> usize {
    rules.get(keyword).and_then(Value::as_f64).map_or(0, |number| number as usize)
}

fn of_format(format: &str) -> Option<&'static str> {
    Some(match format {
        "date-time" => "2023-11-14T22:13:20Z",
        "date" => "2023-11-14",
        "time" => "22:13:20Z",
        "duration" => "PT1H30M",
        "email" | "idn-email" => "river@example.com",
        "hostname" | "idn-hostname" => "river.example.com",
        "ipv4" => "192.0.2.1",
        "ipv6" => "2001:db8::1",
        "uuid" | "uuid4" => "6f1c2a52-7d3e-4b5a-9c8d-0e1f2a3b4c5d",
        "uri" | "iri" | "uri-reference" | "iri-reference" | "url" => "https://example.com/river",
        "byte" | "base64" => "cml2ZXI=",
        "json-string" => "{}",
        "json-pointer" => "/river",
        "regex" => "river",
        _ => return None,
    })
}
