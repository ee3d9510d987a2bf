//! Imports of many keys: all or none, quickly, with every invalid row reported.

use crate::place::{Place, asked, text, until};
use std::io::Write;
use std::process::Stdio;
use std::time::Instant;
use tierway::domain::secret::KeyHash;

/// Number of keys of the large import.
const MANY: usize = 100_000;

#[test]
fn secrets_of_any_shape_go_on_working() {
    let place = Place::new();
    let hash: String = KeyHash::of("sk-by-hash").0.iter().map(|byte| format!("{byte:02x}")).collect();
    let csv = format!(
        "name,policy,secret,hash,team,budget,expires\r\n\
         plain,standard,sk-plain,,,,\r\n\"a \"\"team\"\"s\",standard,,sha256:{hash},t,5.00/month,2999-12-31\r\n"
    );
    place.write("keys.csv", &csv);
    assert!(place.refused(&["keys", "import", "keys.csv"], 1).contains("line 3: name: 1 to 200 letters"));
    place.write("keys.csv", &csv.replace("\"a \"\"team\"\"s\"", "\"hashed\""));
    assert_eq!(place.printed(&["keys", "import", "keys.csv", "--dry-run"]), "2 keys can be imported\n");
    assert_eq!(place.json(&["keys", "list"])["data"].as_array().map(Vec::len), Some(1), "a dry run makes none");
    let gateway = place.serve();
    assert_eq!(place.printed(&["keys", "import", "keys.csv"]), "imported 2 keys\n");
    until(&gateway, "sk-plain", 200);
    assert_eq!(asked(&gateway, "sk-by-hash"), 200);
    let shown = place.json(&["keys", "show", "hashed"]);
    assert_eq!((&shown["team"], &shown["budget"]["limit"]), (&"t".into(), &"5".into()));
    assert_eq!(shown["expires"], "3000-01-01T00:00:00.000Z");
    gateway.stop();
}

#[test]
fn json_lines_are_read_from_stdin() {
    let place = Place::new();
    let mut import = place.command(&["keys", "import", "-"]);
    let mut import = import.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = "{\"name\":\"a\",\"policy\":\"standard\",\"secret\":\"sk-a\",\"max_concurrent\":3}\n\n\
                 {\"name\":\"b\",\"policy\":\"standard\",\"secret\":\"sk-b\",\"team\":null}\n";
    import.stdin.take().expect("it is piped").write_all(lines.as_bytes()).expect("it reads");
    let output = import.wait_with_output().expect("it ends");
    assert_eq!(text(&output.stdout), "imported 2 keys\n");
    assert_eq!(place.json(&["keys", "show", "a"])["max_concurrent"], 3);
}

#[test]
fn every_bad_row_is_named_and_nothing_is_imported() {
    let place = Place::new();
    place.created("there");
    place.write("taken.csv", "name,policy,secret\ntaken,standard,sk-taken\n");
    place.printed(&["keys", "import", "taken.csv"]);
    place.write(
        "keys.csv",
        "name,policy,secret,requests_per_minute\nnew,standard,sk-new,\nthere,standard,sk-2,\nlost,gone,sk-3,\n\
         thief,standard,sk-taken,\nfast,standard,sk-4,100001\napp,standard,sk-5,\n",
    );
    let said = place.refused(&["keys", "import", "keys.csv"], 1);
    for wanted in [
        "5 of the rows cannot be imported; nothing was",
        "line 3: there is a key 'there' already, in the store",
        "line 4: policy: there is no policy 'gone'",
        "line 5: the key 'taken' has this secret already",
        "line 6: requests_per_minute: is above the policy's 100000",
        "line 7: there is a key 'app' already, in the file",
    ] {
        assert!(said.contains(wanted), "{wanted:?} is not in: {said}");
    }
    assert!(!said.contains("sk-"), "{said}");
    place.refused(&["keys", "show", "new"], 1);
    assert!(place.refused(&["keys", "import", "gone.csv"], 1).contains("gone.csv cannot be read"));
}

/// Beside a gateway under load, which fails no request meanwhile.
#[test]
fn a_hundred_thousand_keys_are_imported_beside_a_gateway_that_goes_on() {
    let place = Place::new();
    let secret = place.created("busy");
    let gateway = place.serve();
    let rows = (0..MANY).map(|nth| format!("key-{nth},standard,sk-{nth}-of-many,team-{}\n", nth % 7));
    place.write("keys.csv", &format!("name,policy,secret,team\n{}", rows.collect::<String>()));
    let started = Instant::now();
    let mut import = place.command(&["keys", "import", "keys.csv"]);
    let mut import = import.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let (mut slowest, mut asked_meanwhile) = (std::time::Duration::ZERO, 0);
    while import.try_wait().expect("it was started here").is_none() {
        let asking = Instant::now();
        assert_eq!(asked(&gateway, &secret), 200);
        (slowest, asked_meanwhile) = (slowest.max(asking.elapsed()), asked_meanwhile + 1);
    }
    let took = started.elapsed();
    let output = import.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let known = until(&gateway, &format!("sk-{}-of-many", MANY - 1), 200);
    println!(
        "{MANY} keys imported in {took:?} and known {known:?} later; of {asked_meanwhile} requests meanwhile the slowest \
         took {slowest:?}"
    );
    assert_eq!(asked(&gateway, "sk-0-of-many"), 200, "all are known at once");
    assert!(text(&output.stderr).contains("read 100,000 keys in"), "progress is reported");
    gateway.stop();
}
