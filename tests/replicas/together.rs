//! What one gateway or command changes, all others know.

use crate::place::{CONFIG, Place, asked, until};
use crate::postgres_server::TestDatabase;
use crate::process::Running;
use std::time::Duration;

/// [`CONFIG`] with its store in `database`, and a budget for keys of the policy `standard`.
pub fn config(database: &TestDatabase) -> String {
    format!("{CONFIG}\n[store]\nurl = \"{}\"\n", database.url()).replace(
        "requests_per_minute = 100000",
        "requests_per_minute = 100000\nbudget = { limit = \"1.00\", window = \"none\" }",
    )
}

/// The database and a place whose configuration names it.
fn place() -> (TestDatabase, Place) {
    let (database, place) = (TestDatabase::new(), Place::new());
    place.write("tierway.toml", &config(&database));
    (database, place)
}

#[test]
fn a_key_disabled_by_one_is_refused_by_all_within_a_second_or_so() {
    let (database, place) = place();
    let secret = place.created("shared");
    let gateways = [(); 2].map(|()| Running::configured(place.folder(), &config(&database)));
    for gateway in &gateways {
        assert_eq!(asked(gateway, &secret), 200);
    }
    place.printed(&["keys", "disable", "shared"]);
    let slowest = gateways.iter().map(|gateway| until(gateway, &secret, 401)).max().expect("there are two");
    println!("refused by both after {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    place.printed(&["keys", "enable", "shared"]);
    for gateway in &gateways {
        until(gateway, &secret, 200);
    }
}

#[test]
fn every_command_reads_what_two_gateways_wrote() {
    let (database, place) = place();
    let secret = place.created("spender");
    place.printed(&["teams", "create", "crew"]);
    place.printed(&["credits", "grant", "--team", "crew", "5.00", "--reason", "a test"]);
    let gateways = [(); 2].map(|()| Running::configured(place.folder(), &config(&database)));
    for gateway in &gateways {
        assert_eq!(asked(gateway, &secret), 200);
    }
    for gateway in gateways {
        gateway.stop();
    }
    let usage = place.json(&["usage", "--by", "key"]);
    assert_eq!(usage["rows"][0]["key"], "spender", "{usage}");
    assert_eq!(usage["rows"][0]["requests"], 2, "{usage}");
    let spent = usage["rows"][0]["cost_usd"].as_str().expect("money is text").to_owned();
    let budgets = place.json(&["budgets"]);
    let of_key = budgets["rows"].as_array().expect("rows").iter().find(|row| row["name"] == "spender");
    let of_key = of_key.unwrap_or_else(|| panic!("{budgets}"));
    assert_eq!((&of_key["spent_usd"], &of_key["leased_usd"]), (&spent.into(), &"0".into()), "{budgets}");
    assert_eq!(place.printed(&["budgets", "--unaccounted"]), "everything is accounted for\n");
    assert!(place.printed(&["credits", "list"]).contains("crew"));
    assert!(place.printed(&["keys", "list"]).contains("spender"));
    assert!(place.printed(&["audit", "verify"]).contains('3'), "three changes");
    assert!(place.printed(&["migrate", "--status"]).contains("0001_store  applied"));
    let id = database.query("SELECT replace(id::text, '-', '') FROM tierway.receipts LIMIT 1");
    assert!(place.printed(&["explain", "--request", &format!("req_{id}")]).contains("spender"));
    assert!(place.printed(&["residency", "report"]).contains('2'));
}

#[test]
fn a_url_comes_from_a_file_or_the_environment() {
    let (database, place) = place();
    place.write("url", &format!("{}\n", database.url()));
    let file = format!("url = \"file:{}\"", place.path("url").display());
    place.write("tierway.toml", &config(&database).replace(&format!("url = \"{}\"", database.url()), &file));
    place.created("by-file");
    place.write("tierway.toml", &config(&database).replace(&database.url(), "env:STORE_URL"));
    let listed = place.command(&["keys", "list"]).env("STORE_URL", database.url()).output().expect("the binary starts");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("by-file"), "{listed:?}");
}
