//! No file, log or answer contains the secret of a stored key, in any encoding.

use crate::place::{CONFIG, Place, asked, until};
use crate::process::Running;
use crate::spellings::spellings;

/// The secrets of imported keys; each can be searched for.
const IMPORTED: [&str; 3] = ["sk-canary-in-csv-2f7d", "sk-canary-in-json-81ce", "sk-canary-by-hash-5b90"];

fn free_of(place: &str, bytes: &[u8], secrets: &[String]) {
    let text = String::from_utf8_lossy(bytes);
    for secret in secrets {
        for spelling in spellings(secret) {
            assert!(!text.contains(&spelling), "a secret, as {spelling}, is in {place}");
        }
    }
}

#[test]
fn no_secret_of_a_stored_key_is_found_anywhere() {
    let place = Place::new();
    let [csv, json, by_hash] = IMPORTED;
    place.write("keys.csv", &format!("name,policy,secret\nin-csv,standard,{csv}\n"));
    place.write("keys.jsonl", &format!("{{\"name\":\"in-json\",\"policy\":\"standard\",\"secret\":\"{json}\"}}\n"));
    let hash: String = tierway::domain::secret::KeyHash::of(by_hash).0.iter().map(|b| format!("{b:02x}")).collect();
    place.write("hashes.csv", &format!("name,policy,hash\nby-hash,standard,sha256:{hash}\n"));
    let mut heard = Vec::new();
    let mut said = |args: &[&str]| {
        let output = place.run(args);
        heard.push((format!("what {args:?} says"), output.stderr));
        heard.push((format!("what {args:?} answers"), output.stdout));
    };
    said(&["keys", "import", "keys.csv"]);
    let mut secrets = vec![place.created("made")];
    let config = CONFIG.replace("log = \"warn\"", "log = \"trace\"");
    place.write("tierway.toml", &config);
    let gateway = Running::hearing(place.command(&["serve"]), |_| true);
    said(&["keys", "import", "keys.jsonl"]);
    said(&["keys", "import", "hashes.csv"]);
    // Refused, with a message that does not repeat the secret.
    said(&["keys", "import", "keys.csv"]);
    let rotated = place.printed(&["keys", "rotate", "made", "--overlap", "1h"]);
    secrets.push(rotated.trim_end().to_owned());
    let as_json = place.json(&["keys", "rotate", "in-csv"]);
    secrets.push(as_json["secret"].as_str().expect("it is shown once").to_owned());
    secrets.extend(IMPORTED.map(str::to_owned));
    for secret in &secrets {
        until(&gateway, secret, 200);
    }
    for stranger in ["sk-nobody", &format!("{}x", secrets[0]), &secrets[0][..20]] {
        assert_eq!(asked(&gateway, stranger), 401);
    }
    for name in ["made", "in-csv", "in-json", "by-hash"] {
        said(&["keys", "show", name]);
        said(&["keys", "show", name, "--json"]);
    }
    for form in ["--json", "--csv", "--limit=100"] {
        said(&["keys", "list", form]);
    }
    said(&["keys", "disable", "made", "--json"]);
    said(&["usage"]);
    said(&["audit", "list"]);
    said(&["audit", "list", "--json"]);
    said(&["audit", "verify", "--json"]);
    heard.push(("the metrics".to_owned(), gateway.ask("/metrics").1.into_bytes()));
    // While the database is open, with its log and shared memory, and after it is closed.
    let mut files = files_of(&place);
    let log = gateway.stop();
    assert!(log.contains("\"target\":\"access\"") && log.contains("invalid_api_key"), "the log was heard: {log}");
    heard.push(("the log".to_owned(), log.into_bytes()));
    files.extend(files_of(&place));
    let open = |name: &str| files.iter().any(|(file, bytes)| file == name && !bytes.is_empty());
    assert!(open("tierway.db") && open("tierway.db-wal") && open("tierway.db-shm"), "the canaries fly");
    let all = files.iter().flat_map(|(_, bytes)| bytes).copied().collect::<Vec<_>>();
    let stored = tierway::domain::secret::KeyHash::of(&secrets[0]).0;
    assert!(all.windows(stored.len()).any(|bytes| bytes == stored), "the hash of each is in it");
    heard.extend(files);
    for (place, bytes) in &heard {
        free_of(place, bytes, &secrets);
    }
}

/// All files of the database.
fn files_of(place: &Place) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(place.folder()).expect("it is there").map(|entry| entry.expect("it is there"));
    // Not the socket by which a successor would ask for the listening ones.
    let entries = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    named
        .filter(|(name, _)| name.starts_with("tierway.db"))
        .map(|(name, path)| (name, std::fs::read(path).expect("it is read")))
        .collect()
}
