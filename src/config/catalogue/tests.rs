//! The built-in catalogue is whole; a catalogue finds what is meant and refuses what is not one.

use super::*;
use crate::domain::money::{NanoUsd, PicoUsdPerToken};
use crate::domain::pricing::Prices;
use crate::domain::usage::{TokenClass, Usage};

const NOTHING: &str = "as_of = \"2026-11-30\"\nsource = \"a test\"\n";

fn catalogue(models: &str) -> PriceCatalogue {
    let text = format!(
        "{NOTHING}[hosts.here]\naddress = [\"api.here.example*\", \"*.HERE.example/x*\"]\nalso = [\"there\"]\n\
         output_ceiling = \"max_completion_tokens\"\nstream_options = false\nheaders = [\"api-key\"]\n\
         [hosts.here.models]\n{models}\n[hosts.there]\naddress = [\"there.example\"]\n[hosts.there.models]\n\
         \"far\" = {{ context = 9 }}\n"
    );
    PriceCatalogue::of_file(text, Path::new("prices.toml")).expect("it has the form of a catalogue")
}

fn found(catalogue: &PriceCatalogue, model: &str) -> Result<CatalogueEntry, Vec<String>> {
    match catalogue.find("https://api.here.example/v1", model).expect("the models can be read") {
        Some(CatalogueMatch::Found(entry)) => Ok(*entry),
        Some(CatalogueMatch::Ambiguous(names)) => Err(names),
        Some(CatalogueMatch::Unknown) => Err(Vec::new()),
        None => panic!("the host is known"),
    }
}

#[test]
fn the_built_in_catalogue_is_whole() {
    let catalogue = PriceCatalogue::built_in();
    catalogue.check().expect("every entry can be read");
    assert!(catalogue.hosts().len() > 30, "{}", catalogue.hosts().len());
    let models: usize = catalogue.hosts().iter().map(|host| host.model_names().expect("they are read").count()).sum();
    assert!(models > 1_500, "{models}");
    assert!(BUILT_IN.contains("Permission is hereby granted"), "the licence's notice is kept");
}

#[test]
fn every_name_of_the_built_in_catalogue_is_one_entrys() {
    let catalogue = PriceCatalogue::built_in();
    for host in catalogue.hosts() {
        for (own, text) in host.models().expect("they can be read") {
            let sample = text.sample(own);
            let found = catalogue.find_at(host, &sample).expect("the models can be read");
            let CatalogueMatch::Found(entry) = found else { panic!("{} {sample}: {found:?}", host.name) };
            assert_eq!(&entry.name, own, "{} {sample}", host.name);
        }
    }
}

#[test]
fn a_host_is_known_by_its_address() {
    let catalogue = catalogue("");
    let check = |url: &str, expected: Option<&str>| {
        let found = catalogue.hosts_at(url);
        assert_eq!(found.first().map(|host| host.name.as_str()), expected, "{url}");
    };
    check("https://api.here.example/v1", Some("here"));
    check("HTTPS://API.Here.Example", Some("here"));
    check("http://eu.here.example/x/v1", Some("here"));
    check("https://there.example", Some("there"));
    check("https://there.example/v1", None);
    check("https://evil.example/api.here.example", None);
    let expected = HostQuirks {
        output_ceiling: Some(OutputCeiling::MaxCompletionTokens),
        stream_options: Some(false),
        headers: vec!["api-key".to_owned()],
        passes_on: None,
    };
    assert_eq!(catalogue.quirks_at("https://api.here.example"), expected);
    assert_eq!(catalogue.quirks_at("https://there.example"), HostQuirks::default());
}

#[test]
fn a_catalogue_over_another_one_takes_its_place_entry_by_entry() {
    let beneath = catalogue("\"old\" = { context = 1 }\n\"both\" = { context = 1, max_output = 1 }");
    let text = "as_of = \"2027-01-02\"\nsource = \"mine\"\n\
                [hosts.proxy]\naddress = [\"proxy.example*\"]\nalso = [\"here\"]\n\
                [hosts.own]\naddress = [\"api.here.example*\"]\nstream_options = true\n\
                [hosts.own.models.both]\ncontext = 2\n[hosts.own.models.\"new\"]\ncontext = 2\n";
    let over = PriceCatalogue::of_file(text.to_owned(), Path::new("x")).expect("it has the form of a catalogue");
    let catalogue = over.over(beneath);
    catalogue.check().expect("`also` may name a host beneath");
    let check = |host: &str, model: &str, expected: Option<(u64, &str)>| {
        let found = catalogue.find(&format!("https://{host}/v1"), model).expect("the models can be read");
        let found = match &found {
            Some(CatalogueMatch::Found(entry)) => entry.context.map(|context| (context, &*entry.as_of.text)),
            _ => None,
        };
        assert_eq!(found, expected, "{host} {model}");
    };
    check("api.here.example", "old", Some((1, "2026-11-30")));
    check("api.here.example", "both", Some((2, "2027-01-02")));
    check("api.here.example", "new", Some((2, "2027-01-02")));
    check("api.here.example", "far", Some((9, "2026-11-30")));
    check("api.here.example", "none", None);
    check("proxy.example", "both", Some((1, "2026-11-30")));
    check("else.example", "both", None);
    let quirks = catalogue.quirks_at("https://api.here.example");
    assert_eq!((quirks.output_ceiling, quirks.stream_options), (Some(OutputCeiling::MaxCompletionTokens), Some(true)));
}

#[test]
fn a_name_is_looked_for_exactly_then_by_pattern_then_elsewhere() {
    let catalogue = catalogue(
        "\"big\" = { match = [\"big*\"], except = [\"*-tts\"] }\n\"Big-1\" = {}\n\"small\" = { match = [\"small-####-##-##\"] }\n\
         \"bigger\" = { match = [\"bigg*\"] }",
    );
    let check = |model: &str, expected: Result<&str, &[&str]>| {
        let found = found(&catalogue, model).map(|entry| entry.name);
        let expected = expected.map(str::to_owned).map_err(|names| names.iter().map(ToString::to_string).collect());
        assert_eq!(found, expected, "{model}");
    };
    check("big-1", Ok("Big-1"));
    check("BIG-1", Ok("Big-1"));
    check("big-2", Ok("big"));
    check("big-2-tts", Err(&[]));
    check("bigger-2", Err(&["big", "bigger"]));
    check("small", Err(&[]));
    check("small-2026-11-30", Ok("small"));
    check("small-20261130", Ok("small"));
    check("small-20261x30", Err(&[]));
    check("far", Ok("far"));
    check("none", Err(&[]));
}

#[test]
fn prices_are_read_with_dates_thresholds_and_classes() {
    let catalogue = catalogue(
        "\"m\" = { context = 1000, max_output = 100, image_tokens = { typical = 7, most = 9 }, price = [\
         { input = \"1\", cached_input = \"0.1\", cache_write = \"1.25\", cache_write_1h = \"2\", output = \"4\", request = \"0.001\", \
         above = [{ tokens = 200, input = \"2\", output = \"8\" }] }, \
         { from = \"2027-01-01\", input = \"3\", output = \"5\", by_hour = true }], \
         variants = [{ when = \"service_tier=priority\", input = \"2\" }] }",
    );
    let entry = found(&catalogue, "m").expect("the entry is written");
    assert_eq!((entry.context, entry.max_output), (Some(1_000), Some(100)));
    assert_eq!(entry.image_tokens.map(|image| (image.typical, image.most)), Some((7, 9)));
    assert_eq!(entry.uncharged(), ["service_tier=priority"]);
    assert!(entry.differs_by_hour());
    let prices: Prices = entry.prices.expect("input has a price");
    let now = prices.at(0);
    let mut usage = Usage { input: 200, output: 10, ..Usage::default() };
    usage.apart.set(TokenClass::CacheWrite, 100);
    assert_eq!(now.for_input(200).cost(usage), NanoUsd(1_000_000 + 100_000 + 125_000 + 40_000));
    usage.apart.set(TokenClass::CacheWrite1h, 50);
    assert_eq!(now.for_input(200).cost(usage), NanoUsd(1_000_000 + 50_000 + 125_000 + 100_000 + 40_000));
    let long = now.for_input(201);
    assert_eq!((long.input, long.cached_input), (PicoUsdPerToken(2_000_000), PicoUsdPerToken(100_000)));
    assert_eq!(long.apart.get(TokenClass::CacheWrite), Some(PicoUsdPerToken(1_250_000)));
    assert_eq!(prices.after(0).map(|(from, next)| (from, &*next.version)), Some((1_798_761_600_000, "3/5")));
}

#[test]
fn a_member_of_the_body_has_a_price_of_its_own_where_the_usual_one_is_simple() {
    let models = "\"m\" = { price = [{ input = \"1\", cached_input = \"0.5\", output = \"4\" }], variants = [\
                  { when = \"processing=batch\", input = \"0.5\" }, { when = \"service_tier=priority\", input = \"2\", output = \"8\" }] }";
    let entry = found(&catalogue(models), "m").expect("the entry is written");
    let prices: Vec<_> = entry.member_prices.iter().map(|one| (&*one.name, &*one.word, &*one.price.version)).collect();
    assert_eq!(prices, [("service_tier", "priority", "2:0.5/8")]);
    assert_eq!(entry.uncharged(), ["processing=batch"]);
}

#[test]
fn what_has_no_price_for_tokens_has_none() {
    let catalogue = catalogue("\"voice\" = { price = [{ per_audio_hour = \"0.1\" }] }\n\"bare\" = { context = 5 }");
    let voice = found(&catalogue, "voice").expect("the entry is written");
    assert_eq!((voice.prices.is_none(), voice.uncharged()), (true, vec!["per_audio_hour"]));
    assert!(found(&catalogue, "bare").expect("the entry is written").prices.is_none());
}

#[test]
fn what_is_no_catalogue_is_refused_with_its_place() {
    let check = |text: &str, expected: &str| {
        let refused = PriceCatalogue::of_file(text.to_owned(), Path::new("x")).and_then(|catalogue| catalogue.check());
        let message = refused.expect_err("it is refused").to_string();
        assert!(message.contains(expected), "{message}");
    };
    let host = |models: &str| format!("{NOTHING}[hosts.h]\naddress = [\"h\"]\n[hosts.h.models]\n{models}\n");
    check("", "as_of");
    check("not a catalogue", "head");
    check("as_of = \"soon\"\nsource = \"x\"\n", "is not a date");
    check(&format!("{NOTHING}other = 1\n"), "other");
    check(&format!("{NOTHING}[hosts.h.models]\n\"m\" = {{}}\n"), "address");
    check(&format!("{NOTHING}[hosts.h]\naddress = [\"h\"]\n[hosts.h]\naddress = [\"i\"]\n"), "twice");
    check(&format!("{NOTHING}[hosts.h]\naddress = [\"h\"]\noutput_ceiling = \"max\"\n"), "max");
    check(&format!("{NOTHING}[hosts.h]\naddress = [\"h\"]\nalso = [\"i\"]\n[hosts.h.models]\n"), "no host i");
    check(&host("\"m\" = { contexts = 5 }"), "hosts.h.models.m");
    check(&host("\"m\" = { context = \"5\" }"), "hosts.h.models.m");
    check(&host("\"m\" = { price = [{ input = 1.5 }] }"), "input is no text");
    check(&host("\"m\" = { price = [{ input = \"1,5\" }] }"), "input is no decimal");
    check(&host("\"m\" = { price = [{ inputs = \"1\" }] }"), "inputs is not known");
    check(&host("\"m\" = { price = [{ input = \"1\" }, { input = \"2\" }] }"), "no day");
    check(&host("\"m\" = { price = [{ input = \"1\", above = [{ input = \"2\" }] }] }"), "no `tokens`");
    let tiers = "above = [{ tokens = 5, input = \"2\" }, { tokens = 5, input = \"3\" }]";
    check(&host(&format!("\"m\" = {{ price = [{{ input = \"1\", {tiers} }}] }}")), "do not ascend");
    check(&host("\"m\" = { variants = [{ input = \"1\" }] }"), "no `when`");
}
