//! The types of the admin API's fields: names, counts, money, times.
//!
//! Each type has its reader and its schema in one place. Money is a decimal string, never a number.

use super::input::{DescribedField, Field, InputError, InputFields, InputValue, PresenceKind, ValueType, object};
use crate::admin::{ReportTime, parse_duration_ms, parse_expiry};
use crate::domain::budget::{BudgetPeriod, BudgetSpec, Scope, Zone};
use crate::domain::id::{NAME_MAX_BYTES, RequestId, is_name};
use crate::domain::money::NanoUsd;
use crate::domain::register::Holder;
use crate::domain::report::Dimension;
use crate::domain::secret::KeyHash;
use crate::domain::sla::month::SlaMonth;
use serde_json::json;
use std::time::Duration;

/// The largest integer that every JSON reader represents exactly.
const COUNT_MAX: u64 = (1 << 53) - 1;
/// Maximum number of items on a page.
const PAGE_MAX: u64 = 1000;
/// Maximum length of a cursor, in characters: a scope and a name.
const CURSOR_MAX: usize = 300;
/// Maximum number of digits before the point: amounts are below a billion dollars.
const DOLLAR_DIGITS: usize = 9;

/// The name of a key, team or policy.
pub static NAME: ValueType<String> = ValueType {
    read: |node| {
        let name = node.text()?;
        if is_name(name) {
            return Ok(name.to_owned());
        }
        Err(InputError::value("must be 1 to 200 letters, digits and - _ . / :, without blanks or quotes"))
    },
    schema: || json!({ "type": "string", "minLength": 1, "maxLength": NAME_MAX_BYTES, "pattern": "^[!#-\\[\\]-~]+$", "examples": ["standard"] }),
};

/// A whole number from 1.
pub static COUNT: ValueType<u64> = ValueType {
    read: |node| match node {
        InputValue::Whole(number @ 1..=COUNT_MAX) => Ok(*number),
        _ => Err(InputError::value(format!("must be a whole number from 1 to {COUNT_MAX}"))),
    },
    schema: || json!({ "type": "integer", "minimum": 1, "maximum": COUNT_MAX, "examples": [50] }),
};

/// A whole number from 1 that fits 32 bits.
pub static SMALL_COUNT: ValueType<u32> = ValueType {
    read: |node| {
        let number = if let InputValue::Whole(number) = node { u32::try_from(*number).ok() } else { None };
        let wrong = || InputError::value(format!("must be a whole number from 1 to {}", u32::MAX));
        number.filter(|number| *number > 0).ok_or_else(wrong)
    },
    schema: || json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX, "examples": [16] }),
};

/// A boolean.
pub static FLAG: ValueType<bool> = ValueType {
    read: |node| match node {
        InputValue::Flag(flag) => Ok(*flag),
        _ => Err(InputError::value("must be true or false")),
    },
    schema: || json!({ "type": "boolean", "examples": [false] }),
};

/// When a key expires.
pub static EXPIRY: ValueType<i64> = ValueType {
    read: |node| {
        let wrong = "must be a last day such as \"2027-01-31\", or a time such as \"2027-01-31T12:00:00Z\"";
        parse_expiry(node.text()?).ok_or_else(|| InputError::value(wrong))
    },
    schema: || {
        let pattern =
            "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2}))?$";
        json!({ "type": "string", "pattern": pattern, "examples": ["2027-01-31", "2027-01-31T12:00:00Z"] })
    },
};

/// How long the old secrets of a key work after a rotation.
pub static OVERLAP: ValueType<Duration> = ValueType {
    read: |node| {
        overlap(node.text()?).ok_or_else(|| InputError::value("must be a duration such as \"24h\", \"7d\" or \"0s\""))
    },
    schema: || json!({ "type": "string", "pattern": "^[0-9]{1,6}[smhd]$", "examples": ["24h"] }),
};

fn overlap(text: &str) -> Option<Duration> {
    // Up to six digits, and a unit.
    let ms = parse_duration_ms(text).filter(|_| text.len() <= 7)?;
    u64::try_from(ms).ok().map(Duration::from_millis)
}

/// The SHA-256 of an existing secret.
pub static HASH: ValueType<KeyHash> = ValueType {
    read: |node| {
        let hash = node.text()?.strip_prefix("sha256:").and_then(KeyHash::from_hex);
        hash.ok_or_else(|| InputError::value("must be \"sha256:\" and 64 hex digits"))
    },
    schema: || {
        let example = format!("sha256:{}", "9f86d081884c7d65".repeat(4));
        json!({ "type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$", "examples": [example] })
    },
};

/// One line of text.
pub static LINE: ValueType<String> = ValueType {
    read: |node| {
        let line = node.text()?;
        if line.chars().count() > 500 || line.chars().any(char::is_control) {
            return Err(InputError::value("must be one line of up to 500 characters"));
        }
        Ok(line.to_owned())
    },
    schema: || {
        let pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";
        json!({ "type": "string", "maxLength": 500, "pattern": pattern, "examples": ["invoice 2026-11"] })
    },
};

/// An amount of credit; a negative one takes credit back.
pub static AMOUNT: ValueType<NanoUsd> = ValueType {
    read: |node| {
        let text = node.text()?;
        let amount = match text.strip_prefix('-') {
            Some(positive) => dollars(positive).map(|NanoUsd(nano)| NanoUsd(-nano)),
            None => dollars(text),
        };
        let wrong =
            "must be USD as a decimal string such as \"10.00\", below a billion and not zero; \"-10.00\" takes back";
        amount.filter(|amount| *amount != NanoUsd::ZERO).ok_or_else(|| InputError::value(wrong))
    },
    schema: || {
        let (pattern, zero) = ("^-?[0-9]{1,9}(\\.[0-9]{1,9})?$", "^-?0+(\\.0+)?$");
        json!({ "type": "string", "pattern": pattern, "not": { "pattern": zero }, "examples": ["10.00", "-2.50"] })
    },
};

fn dollars(text: &str) -> Option<NanoUsd> {
    let whole = text.split('.').next().unwrap_or_default();
    NanoUsd::parse_usd(text).filter(|_| whole.len() <= DOLLAR_DIGITS)
}

static DOLLARS: ValueType<NanoUsd> = ValueType {
    read: |node| {
        dollars(node.text()?).ok_or_else(|| InputError::value("must be USD as a decimal string such as \"500.00\""))
    },
    schema: || json!({ "type": "string", "pattern": "^[0-9]{1,9}(\\.[0-9]{1,9})?$", "examples": ["500.00"] }),
};

static WINDOW: ValueType<&'static str> = ValueType {
    read: |node| {
        let text = node.text()?;
        let known = ["day", "month", "none"].into_iter().find(|window| *window == text);
        known.ok_or_else(|| InputError::value("must be \"day\", \"month\" or \"none\""))
    },
    schema: || json!({ "type": "string", "enum": ["day", "month", "none"], "examples": ["month"] }),
};

static ZONE: ValueType<Zone> = ValueType {
    read: |node| {
        let wrong = || InputError::value("is no time zone; write a name such as \"Europe/Paris\"");
        Zone::named(node.text()?).ok_or_else(wrong)
    },
    schema: || json!({ "type": "string", "pattern": "^[A-Za-z0-9_+/-]{1,64}$", "examples": ["Europe/Paris"] }),
};

static LIMIT_USD: Field<NanoUsd> =
    Field { name: "limit", is: &DOLLARS, need: PresenceKind::Required, about: "USD in each window." };
static BUDGET_WINDOW: Field<&'static str> =
    Field { name: "window", is: &WINDOW, need: PresenceKind::Required, about: "When it is whole again; none: never." };
static BUDGET_ZONE: Field<Zone> = Field {
    name: "zone",
    is: &ZONE,
    need: PresenceKind::Nullable,
    about: "In which time zone days and months end; UTC unless given. A budget without window has none.",
};
/// The fields of a budget.
pub static BUDGET_FIELDS: [&dyn DescribedField; 3] = [&LIMIT_USD, &BUDGET_WINDOW, &BUDGET_ZONE];

/// An amount for each window of time.
pub static BUDGET: ValueType<BudgetSpec> = ValueType {
    read: |node| {
        let input = InputFields::of(node, &BUDGET_FIELDS)?;
        let (limit, window, zone) =
            (input.required(&LIMIT_USD)?, input.required(&BUDGET_WINDOW)?, input.optional(&BUDGET_ZONE)?);
        let utc = || Zone::named("UTC").ok_or_else(|| InputError::field("zone", "is unknown"));
        let window = match (window, zone) {
            ("none", None) => BudgetPeriod::Ever,
            ("none", Some(_)) => return Err(InputError::field("zone", "has no meaning without a window")),
            ("day", zone) => BudgetPeriod::Day(zone.map_or_else(utc, Ok)?),
            (_, zone) => BudgetPeriod::Month(zone.map_or_else(utc, Ok)?),
        };
        Ok(BudgetSpec { limit, window })
    },
    schema: || {
        let mut schema = object(&BUDGET_FIELDS);
        schema["examples"] = json!([{ "limit": "500.00", "window": "month", "zone": "Europe/Paris" }]);
        schema
    },
};

// --- in queries -------------------------------------------------------------------------------

/// The number of items on a page.
pub static LIMIT: ValueType<usize> = ValueType {
    read: |node| {
        let text = node.text()?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && (1..=PAGE_MAX).contains(number));
        let number = number.and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| InputError::value(format!("must be a whole number from 1 to {PAGE_MAX}")))
    },
    schema: || json!({ "type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": 100, "examples": [100] }),
};

/// A cursor: a name.
pub static AFTER_NAME: ValueType<String> = ValueType {
    read: |node| short(node, CURSOR_MAX),
    schema: || json!({ "type": "string", "maxLength": CURSOR_MAX, "examples": ["growth-app"] }),
};

/// A calendar month.
pub static MONTH: ValueType<SlaMonth> = ValueType {
    read: |node| SlaMonth::parse(node.text()?).ok_or_else(|| InputError::value("write a month such as 2026-11")),
    schema: || json!({ "type": "string", "pattern": "^(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])$", "examples": ["2026-11"] }),
};

/// A cursor: the number of a grant.
pub static AFTER_NUMBER: ValueType<i64> = ValueType {
    read: |node| {
        let text = node.text()?;
        let right = text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| right).ok_or_else(|| InputError::value("is no `next` of this list"))
    },
    schema: || json!({ "type": "string", "pattern": "^[0-9]{1,18}$", "examples": ["100"] }),
};

/// A cursor: a holder of credit.
pub static AFTER_HOLDER: ValueType<Holder> = ValueType {
    read: |node| {
        let holder = short(node, CURSOR_MAX)?;
        let holder = holder
            .split_once('/')
            .and_then(|(scope, name)| Some(Holder { scope: Scope::of_label(scope)?, name: name.into() }));
        holder.ok_or_else(|| InputError::value("is no `next` of this list"))
    },
    schema: || json!({ "type": "string", "pattern": "^(key|team)/[!-~]{1,200}$", "examples": ["key/growth-app"] }),
};

/// A cursor: the id of a request.
pub static AFTER_REQUEST: ValueType<RequestId> = ValueType {
    read: |node| RequestId::parse(node.text()?).ok_or_else(|| InputError::value("is no `next` of this list")),
    schema: || {
        let example = format!("req_{}", "0".repeat(32));
        json!({ "type": "string", "pattern": REQUEST_ID, "examples": [example] })
    },
};

/// The pattern of a request id.
pub const REQUEST_ID: &str = "^(req_)?[0-9a-fA-F]{32}$";

/// The beginning or the end of a range of time.
pub static MOMENT: ValueType<ReportTime> = ValueType {
    read: |node| {
        let wrong = "must be how long ago, such as 30d, 12h or 15m, a date, or a time such as 2026-11-01T12:00:00Z";
        ReportTime::parse(node.text()?).map_err(|_| InputError::value(wrong))
    },
    schema: || json!({ "type": "string", "minLength": 2, "maxLength": 40, "examples": ["30d", "2026-11-01"] }),
};

/// A value to select receipts by; `-` selects those that have none.
pub static SOUGHT: ValueType<Option<String>> = ValueType {
    read: |node| short(node, CURSOR_MAX).map(|text| (text != "-").then_some(text)),
    schema: || json!({ "type": "string", "maxLength": CURSOR_MAX, "examples": ["growth-app", "-"] }),
};

/// The dimensions to sum by.
pub static DIMENSIONS: ValueType<Vec<Dimension>> = ValueType {
    read: |node| {
        let mut by = Vec::new();
        for name in node.text()?.split(',') {
            let names = || Dimension::ALL.map(Dimension::name).join(", ");
            let unknown = || InputError::value(format!("must be some of {}, with commas between", names()));
            let dimension = Dimension::of_name(name).ok_or_else(unknown)?;
            if by.contains(&dimension) {
                return Err(InputError::value(format!("names '{name}' twice")));
            }
            by.push(dimension);
        }
        Ok(by)
    },
    schema: || {
        let names = Dimension::ALL.map(Dimension::name);
        let items = json!({ "type": "string", "enum": names });
        json!({ "type": "array", "items": items, "minItems": 1, "uniqueItems": true, "default": ["key"], "examples": [["key", "day"]] })
    },
};

fn short(node: &InputValue, most: usize) -> Result<String, InputError> {
    let text = node.text()?;
    if text.chars().count() > most {
        return Err(InputError::value(format!("must be at most {most} characters")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn credit_is_given_or_taken_back_in_decimals() {
        let check = |text: &str, expected: Option<i64>| {
            let read = (AMOUNT.read)(&InputValue::Text(text.to_owned()));
            assert_eq!(read.ok().map(|amount| amount.0), expected, "{text}");
        };
        check("10.00", Some(10_000_000_000));
        check("-0.000000001", Some(-1));
        check("999999999.999999999", Some(999_999_999_999_999_999));
        for wrong in ["", "-", "0", "-0.00", "--1", "+1", "1e3", "1000000000", "0000000001", "0.0000000001", " 1"] {
            check(wrong, None);
        }
    }

    #[test]
    fn an_overlap_has_a_unit() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(overlap(text).map(|d| d.as_secs()), expected, "{text}");
        check("0s", Some(0));
        check("24h", Some(86_400));
        check("7d", Some(604_800));
        for wrong in ["", "h", "24", "-1h", "1.5h", "1h30m", "1000000s", "é"] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_budget_without_window_has_no_zone() {
        let check = |budget: Value, expected: Result<&str, &str>| {
            let node = serde_json::from_value(budget.clone()).expect("a node");
            let read = (BUDGET.read)(&node).map(|budget| budget.window.to_string()).map_err(|wrong| wrong.at);
            assert_eq!(read, expected.map(str::to_owned).map_err(str::to_owned), "{budget}");
        };
        check(json!({ "limit": "5", "window": "day" }), Ok("day UTC"));
        check(json!({ "limit": "5", "window": "month", "zone": "Europe/Paris" }), Ok("month Europe/Paris"));
        check(json!({ "limit": "5", "window": "none", "zone": null }), Ok("none"));
        check(json!({ "limit": "5", "window": "none", "zone": "UTC" }), Err("zone"));
        check(json!({ "limit": 5, "window": "none" }), Err("limit"));
        check(json!({ "limit": "5", "window": "week" }), Err("window"));
        check(json!({ "limit": "5", "window": "day", "zone": "Mars/Olympus" }), Err("zone"));
        check(json!({ "window": "day" }), Err("limit"));
        check(json!({ "limit": "5", "window": "day", "per": 1 }), Err("per"));
    }
}
