//! The output of the commands, and their exit codes.

use crate::place::{Place, text};
use crate::process::KEY;
use std::process::Stdio;

#[test]
fn a_new_secret_is_alone_on_stdout_and_never_shown_again() {
    let place = Place::new();
    let args = ["keys", "create", "growth", "--policy", "standard", "--team", "growth", "--expires", "2027-01-31"];
    let output = place.run(&args);
    let (answer, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    let secret = answer.strip_suffix('\n').expect("a line");
    assert!(secret.starts_with("tw_standard_") && !secret.contains(char::is_whitespace), "{answer}");
    for wanted in ["created the key growth", "shown now and never again", "OPENAI_BASE_URL=http://127.0.0.1:0/v1"] {
        assert!(said.contains(wanted), "{wanted:?} is not in: {said}");
    }
    assert!(said.contains("no team of that name has a budget") && !said.contains(secret), "{said}");
    for args in [&["keys", "show", "growth"][..], &["keys", "show", "growth", "--json"], &["keys", "list", "--json"]] {
        assert!(!place.printed(args).contains(secret));
    }
    let shown = place.printed(&["keys", "show", "growth"]);
    for wanted in
        ["policy        standard", "expires       end of 2027-01-31", "sha256sum | cut -c1-12", "100000 requests"]
    {
        assert!(shown.contains(wanted), "{wanted:?} is not in: {shown}");
    }
}

#[test]
fn one_object_holds_everything_of_a_new_key() {
    let place = Place::new();
    let budget = ["--budget", "50.00/month/Europe/Paris", "--requests-per-minute", "7"];
    let made = place.json(&[&["keys", "create", "growth", "--policy", "standard"][..], &budget].concat());
    assert!(made["secret"].as_str().expect("its secret").starts_with("tw_standard_"));
    assert_eq!(made["budget"], serde_json::json!({ "limit": "50", "window": "month", "zone": "Europe/Paris" }));
    assert_eq!(made["effective"]["requests_per_minute"], 7);
    assert_eq!(made["effective"]["budgets"][0]["of"], "key");
    assert_eq!((&made["state"], &made["source"]), (&"active".into(), &"store".into()));
    let mut shown = place.json(&["keys", "show", "growth"]);
    shown["secret"] = made["secret"].clone();
    assert_eq!(shown, made, "all but the secret is shown again");
}

#[test]
fn a_secret_that_could_not_be_printed_is_an_error_with_advice() {
    let place = Place::new();
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there"));
    let mut create = place.command(&["keys", "create", "growth", "--policy", "standard"]);
    let output = create.stdout(full()).stderr(Stdio::piped()).spawn().expect("it starts").wait_with_output();
    let output = output.expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("is lost") && said.contains("tierway keys rotate growth --overlap 0s"), "{said}");
}

#[test]
fn errors_say_what_to_do() {
    let place = Place::new();
    place.created("there");
    let check = |args: &[&str], code: i32, wanted: &[&str]| {
        let said = place.refused(args, code);
        for wanted in wanted {
            assert!(said.contains(wanted), "{args:?}: {wanted:?} is not in: {said}");
        }
    };
    check(&["keys", "create", "there", "--policy", "standard"], 1, &["already, in the store; choose another name"]);
    check(&["keys", "create", "app", "--policy", "standard"], 1, &["already, in the file"]);
    check(&["keys", "create", "new", "--policy", "gone"], 2, &["no policy 'gone'", "standard, paying"]);
    check(&["keys", "create", "a b", "--policy", "standard"], 2, &["without blanks"]);
    check(&["keys", "create", "new"], 2, &["--policy"]);
    check(&["keys", "create", "new", "--policy", "standard", "--budget", "5 EUR"], 2, &["50.00/month"]);
    check(&["keys", "create", "new", "--policy", "standard", "--expires", "soon"], 2, &["2027-01-31"]);
    check(&["keys", "create", "n", "--policy", "standard", "--requests-per-minute", "0"], 2, &["0 is not in 1.."]);
    let above = ["keys", "create", "n", "--policy", "standard", "--requests-per-minute", "100001"];
    check(&above, 2, &["requests_per_minute: is above the policy's 100000"]);
    check(&["keys", "show", "gone"], 1, &["no key 'gone'", "`tierway keys list`"]);
    check(&["keys", "disable", "app"], 1, &["in the configuration; change it there"]);
    check(&["keys", "rotate", "app"], 1, &["in the configuration; change it there"]);
    check(&["keys", "edit", "there"], 2, &["--no-budget"]);
    check(&["keys", "edit", "there", "--team", "t", "--no-team"], 2, &["cannot be used with"]);
    check(&["keys", "disable", "there", "--if-version", "99"], 1, &["changed meanwhile", "--if-version"]);
    check(&["keys", "expire", "there"], 2, &["--never"]);
    check(&["teams", "create", "filed"], 1, &["team 'filed' already, in the file"]);
    check(&["teams", "edit", "filed", "--no-budget"], 1, &["in the configuration"]);
    check(&["credits", "grant", "--key", "gone", "5"], 1, &["no key 'gone'"]);
    check(&["credits", "grant", "--team", "gone", "5"], 1, &["no team 'gone'"]);
    check(&["credits", "grant", "5"], 2, &["--key", "--team"]);
    check(&["credits", "grant", "--key", "there", "0"], 2, &["not nothing"]);
    check(&["credits", "grant", "--key", "there", "five"], 2, &["25.00 or -5.00"]);
    check(&["keys", "list", "--store", "sqlite:nowhere/tierway.db"], 69, &["no directory nowhere"]);
    place.write("other.db", "no database, and long enough to be mistaken for one. ".repeat(100).as_str());
    check(&["keys", "list", "--store", "sqlite:other.db"], 69, &["not a database"]);
    place.write("tierway.toml", "[serverr]");
    check(&["keys", "list"], 78, &["serverr", "where the gateway runs"]);
}

#[test]
fn a_store_that_keeps_nothing_is_refused() {
    let place = Place::new();
    for command in [&["keys", "list"][..], &["teams", "list"], &["credits", "list"]] {
        let output = place.command(command).env("TIERWAY__STORE__URL", "memory:").output().expect("it starts");
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        assert!(said.contains("`memory:`, which keeps nothing") && said.contains("--store sqlite:PATH"), "{said}");
    }
}

#[test]
fn lists_have_every_page_and_what_the_file_has() {
    let place = Place::new();
    assert!(place.printed(&["keys", "list"]).contains("app   file    standard  filed  active  -        -"));
    let rows = (0..2_500).map(|nth| format!("key-{nth:04},standard,sk-{nth}\n"));
    place.write("keys.csv", &format!("name,policy,secret\n{}", rows.collect::<String>()));
    place.printed(&["keys", "import", "keys.csv"]);
    let names = |args: &[&str]| {
        let csv = place.printed(args);
        csv.lines().skip(1).map(|line| line.split(',').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let all = names(&["keys", "list", "--csv"]);
    assert_eq!((all.len(), all.is_sorted()), (2_501, true));
    assert_eq!(names(&["keys", "list", "--csv", "--limit", "2"]), ["app", "key-0000"]);
    assert_eq!(names(&["keys", "list", "--csv", "--limit", "0"]), [""; 0]);
    let page = place.json(&["keys", "list", "--limit", "1001", "--after", "app"]);
    assert_eq!((page["data"].as_array().map(Vec::len), &page["next"]), (Some(1_001), &"key-1000".into()));
    let last = place.json(&["keys", "list", "--after", "key-2498"]);
    assert_eq!((last["data"].as_array().map(Vec::len), last["next"].is_null()), (Some(1), true));
    assert_eq!(place.printed(&["keys", "list"]).lines().count(), 2_502);
}

#[test]
fn an_edit_changes_what_it_names_and_nothing_else() {
    let place = Place::new();
    let create = ["keys", "create", "growth", "--policy", "standard", "--team", "t", "--budget", "5/day"];
    place.printed(&[&create[..], &["--max-concurrent", "3"]].concat());
    let edited = place.json(&["keys", "edit", "growth", "--tokens-per-minute", "9", "--no-max-concurrent"]);
    assert_eq!((&edited["team"], &edited["budget"]["zone"]), (&"t".into(), &"UTC".into()));
    assert_eq!(edited["tokens_per_minute"], 9);
    assert!(edited["max_concurrent"].is_null());
    let version = edited["version"].to_string();
    let edited = place.json(&["keys", "edit", "growth", "--no-team", "--no-budget", "--if-version", &version]);
    assert!(edited["team"].is_null() && edited["budget"].is_null());
    assert_eq!(edited["tokens_per_minute"], 9);
    place.refused(&["keys", "edit", "growth", "--team", "t", "--if-version", &version], 1);
    let said = place.printed(&["keys", "disable", "growth"]);
    assert_eq!(said, "disabled the key growth (disabled); a running gateway knows within a second\n");
    assert!(
        place.printed(&["keys", "expire", "growth", "--at", "2027-01-31"]).contains("end of 2027-01-31 (disabled)")
    );
    assert!(place.printed(&["keys", "enable", "growth"]).contains("(active)"));
}

#[test]
fn a_deleted_key_is_gone_for_good_and_its_name_is_not_free() {
    let place = Place::new();
    place.created("growth");
    place.created("other");
    place.refused(&["keys", "delete", "growth", "--if-version", "99"], 1);
    assert!(place.printed(&["keys", "delete", "growth"]).starts_with("deleted the key growth; "));
    let names = |args: &[&str]| -> Vec<String> {
        let keys = place.json(args);
        let stored = keys["data"].as_array().expect("a list").iter().filter(|key| key["source"] == "store");
        stored.map(|key| format!("{} {}", key["name"], key["state"]).replace('"', "")).collect()
    };
    assert_eq!(names(&["keys", "list"]), ["other active"]);
    assert_eq!(names(&["keys", "list", "--all"]), ["growth deleted", "other active"]);
    assert_eq!(place.json(&["keys", "show", "growth"])["secrets"], serde_json::json!([]));
    for again in ["enable", "disable", "rotate", "delete"] {
        let said = place.refused(&["keys", again, "growth"], 1);
        assert!(said.contains("was deleted, which is for good"), "{again}: {said}");
    }
    let said = place.refused(&["keys", "create", "growth", "--policy", "standard"], 1);
    assert!(said.contains("already, in the store; choose another name"), "{said}");
}

#[test]
fn a_rotation_reports_how_long_the_old_secret_works() {
    let place = Place::new();
    let first = place.created("growth");
    let output = place.run(&["keys", "rotate", "growth"]);
    let (second, said) = (text(&output.stdout), text(&output.stderr));
    assert!(second.starts_with("tw_standard_") && second.trim_end() != first);
    assert!(said.contains("the old secret works until ") && said.contains(" UTC"), "{said}");
    let output = place.run(&["keys", "rotate", "growth", "--overlap", "0s"]);
    assert!(text(&output.stderr).contains("the old secret no longer works"), "{output:?}");
    let shown = place.json(&["keys", "show", "growth"]);
    let ends: Vec<bool> = shown["secrets"].as_array().expect("three").iter().map(|s| s["ends"].is_string()).collect();
    assert_eq!(ends, [true, true, false]);
    assert!(place.printed(&["keys", "show", "growth"]).contains("  ended 20"));
}

#[test]
fn credit_is_granted_taken_back_and_listed() {
    let place = Place::new();
    place.created("growth");
    let grant = |args: &[&str]| {
        let output = place.run(&[&["credits", "grant"][..], args].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let (answer, note) = grant(&["--key", "growth", "12.50", "--reason", "an invoice, \"117\"", "--by", "ops"]);
    assert_eq!(answer, "granted to the key growth: $12.50; left: $12.50; a running gateway knows within a second\n");
    assert!(note.contains("has no budget") && note.contains("credit = \"first\""), "{note}");
    let (answer, _) = grant(&["--key", "growth", "-2.50"]);
    assert!(answer.starts_with("took from the key growth: $2.50; left: $10;"), "{answer}");
    // Its team has a budget, which limits it.
    let (_, note) = grant(&["--team", "filed", "1"]);
    assert_eq!(note, "");
    place.printed(&["keys", "edit", "growth", "--policy", "paying"]);
    let (_, note) = grant(&["--key", "growth", "0.000000001"]);
    assert_eq!(note, "", "nothing goes on without credit there");
    let listed = place.json(&["credits", "list"]);
    assert_eq!(listed["data"][0]["granted"], "10.000000001");
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(2));
    let csv = place.printed(&["credits", "list", "--csv", "--team", "filed"]);
    assert_eq!(csv, "scope,name,granted_usd,spent_usd,leased_usd,left_usd\nteam,filed,1,0,0,1\n");
    let grants = place.json(&["credits", "list", "--grants", "--key", "growth"]);
    let grants = grants["data"].as_array().expect("a list");
    assert_eq!(grants.iter().map(|grant| grant["amount"].clone()).collect::<Vec<_>>(), ["12.5", "-2.5", "0.000000001"]);
    assert_eq!((&grants[0]["by"], &grants[1]["by"]), (&"ops".into(), &"cli".into()));
    assert!(place.printed(&["credits", "list", "--grants", "--csv"]).contains("\"an invoice, \"\"117\"\"\"\n"));
    assert!(place.printed(&["credits", "list"]).contains("of    name"));
}

#[test]
fn teams_are_made_shown_and_changed() {
    let place = Place::new();
    let made = place.printed(&["teams", "create", "growth", "--budget", "2000/month"]);
    assert_eq!(made, "created the team growth, budget: $2,000 a month UTC; a running gateway knows within a second\n");
    place.refused(&["teams", "create", "growth"], 1);
    let listed = place.json(&["teams", "list"]);
    let names: Vec<_> = listed["data"].as_array().expect("a list").iter().map(|team| team["name"].clone()).collect();
    assert_eq!(names, ["filed", "growth"]);
    let edited = place.json(&["teams", "edit", "growth", "--no-budget", "--if-version", "1"]);
    assert!(edited["budget"].is_null());
    place.refused(&["teams", "edit", "growth", "--budget", "1", "--if-version", "1"], 1);
    assert!(place.printed(&["teams", "show", "growth"]).contains("source   store"));
    assert!(place.printed(&["teams", "list"]).contains("filed   file    $2,000 a month UTC"));
}

/// The secret of a key in the file is kept there, and the command says so.
#[test]
fn a_key_of_the_file_is_shown_without_its_secret() {
    let place = Place::new();
    let shown = place.printed(&["keys", "show", "app"]);
    assert!(shown.contains("source        file") && shown.contains("$2,000 a month UTC, of the team filed"), "{shown}");
    assert!(shown.contains("Its secret is the configuration's.") && !shown.contains(KEY), "{shown}");
}
