//! What somebody typed is shown on a terminal and opened in a spreadsheet: it controls neither.

use crate::place::Place;

const REASON: &str = "=HYPERLINK(\"http://evil.example\")\u{202e}txt";

#[test]
fn a_reason_controls_neither_a_terminal_nor_a_spreadsheet() {
    let place = Place::new();
    place.printed(&["keys", "create", "@payer", "--policy", "standard"]);
    place.printed(&["credits", "grant", "--key", "@payer", "5", "--reason", REASON]);
    for form in [&[][..], &["--csv"], &["--json"]] {
        let shown = place.printed(&[&["credits", "list", "--grants"][..], form].concat());
        assert!(!shown.contains('\u{202e}') && shown.contains("\\u202etxt"), "{form:?}: {shown}");
    }
    let listed = place.json(&["credits", "list", "--grants"]);
    assert_eq!(listed["data"][0]["reason"], REASON, "JSON says the same");
    let csv = place.printed(&["credits", "list", "--grants", "--csv"]);
    assert!(csv.contains(",'@payer,") && csv.contains(",\"'=HYPERLINK(\"\"http"), "{csv}");
    for list in [&["keys", "list", "--csv"][..], &["credits", "list", "--csv"]] {
        let csv = place.printed(list);
        assert!(csv.contains("'@payer,"), "{csv}");
    }
}

#[test]
fn a_key_has_a_bounded_number_of_secrets_that_work() {
    let place = Place::new();
    place.printed(&["keys", "create", "often", "--policy", "standard"]);
    for _ in 1..10 {
        place.printed(&["keys", "rotate", "often", "--overlap", "24h"]);
    }
    let refused = place.refused(&["keys", "rotate", "often", "--overlap", "24h"], 1);
    assert!(refused.contains("10 secrets that work") && refused.contains("without an overlap"), "{refused}");
    place.printed(&["keys", "rotate", "often", "--overlap", "0s"]);
    place.printed(&["keys", "rotate", "often", "--overlap", "24h"]);
}
