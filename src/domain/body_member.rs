//! Members of a request's body that choose a host, a credential or a price, and what a provider's rules say of them.
//!
//! The gateway understands few members and passes on the rest as bytes. These are the exceptions: a client that writes
//! one may ask the provider for more than its key may have. Which members they are is configured for each provider;
//! they are compared by name alone, and never changed.
//!
//! Start reading in [`BodyRules::verdict`].

use super::pricing::PriceVersion;
use std::sync::Arc;

/// The names of all members that some provider has a rule for, in lower case, for the reader of bodies.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ListedMembers {
    /// By their length.
    names: Vec<Arc<str>>,
}

impl ListedMembers {
    /// The list of `names`; each counts once.
    pub fn of(names: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut names: Vec<Arc<str>> = names.into_iter().collect();
        names.sort_unstable_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        names.dedup();
        Self { names }
    }

    /// The listed name that `name` is.
    #[inline]
    pub fn find(&self, name: &str) -> Option<&Arc<str>> {
        let order = |known: &Arc<str>| known.len().cmp(&name.len()).then_with(|| (**known).cmp(name));
        self.names.binary_search_by(order).ok().map(|index| &self.names[index])
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }
}

/// A listed member that a body has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenMember {
    /// Its name, as it is listed.
    pub name: Arc<str>,
    /// What is said with it.
    pub value: MemberValue,
}

/// What is said with a member, as far as a rule looks at it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemberValue {
    /// `null`, `false`, or a list without anything in it: the same as not at all.
    Off,
    /// A short text.
    Word(Box<str>),
    /// Anything else.
    Other,
}

impl MemberValue {
    /// Whether no price depends on it: nothing is asked for, or the provider's own choice.
    fn is_usual(&self) -> bool {
        match self {
            Self::Off => true,
            Self::Word(word) => matches!(&**word, "auto" | "default" | "standard" | "standard_only" | "global"),
            Self::Other => false,
        }
    }
}

/// What a request with one member costs at a deployment, in place of the usual price.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberPrice {
    /// The member's name, in lower case.
    pub name: Arc<str>,
    /// What is said with it.
    pub word: Box<str>,
    /// The price.
    pub price: PriceVersion,
}

impl MemberPrice {
    /// Whether it is that of requests with `given`.
    pub fn is_of(&self, given: &GivenMember) -> bool {
        self.name == given.name && matches!(&given.value, MemberValue::Word(word) if *word == self.word)
    }
}

/// What a provider's rules say of members that the gateway does not understand. Names are in lower case.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct BodyRules {
    /// Never sent to it.
    pub denied: Vec<Arc<str>>,
    /// They change what an answer costs there, by a factor that nobody may know, or make it longer than its ceiling.
    pub priced: Vec<Arc<str>>,
}

/// Why a body may not be sent to a provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberObjection {
    /// Its rules deny a member.
    Denied,
    /// With a member an answer may cost more than is known, and a budget or credit pays.
    Unpriced,
}

impl BodyRules {
    /// Whether a body with `given` may be sent to a deployment whose price depends on members as `prices` say.
    /// `is_paid`: whether a budget or credit pays for it.
    ///
    /// # Errors
    /// The first member that stands against it, and why.
    pub fn verdict<'g>(
        &self,
        given: &'g [GivenMember],
        prices: &[MemberPrice],
        is_paid: bool,
    ) -> Result<(), (&'g GivenMember, MemberObjection)> {
        if let Some(denied) = given.iter().find(|member| self.denied.contains(&member.name)) {
            return Err((denied, MemberObjection::Denied));
        }
        let mut priced = given.iter().filter(|member| self.priced.contains(&member.name) && !member.value.is_usual());
        // What two of them cost together is not known either.
        let (first, second) = (priced.next(), priced.next());
        let is_known = |member| second.is_none() && prices.iter().any(|price| price.is_of(member));
        match first.filter(|member| is_paid && !is_known(member)) {
            Some(member) => Err((member, MemberObjection::Unpriced)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::pricing::Price;

    fn given(members: &[(&str, MemberValue)]) -> Vec<GivenMember> {
        members.iter().map(|(name, value)| GivenMember { name: (*name).into(), value: value.clone() }).collect()
    }

    fn word(word: &str) -> MemberValue {
        MemberValue::Word(word.into())
    }

    #[test]
    fn a_listed_name_is_found_among_those_of_its_length() {
        let listed = ListedMembers::of(["models", "route", "plugin", "models", "a"].map(Into::into));
        let check = |name: &str, is_found: bool| assert_eq!(listed.find(name).is_some(), is_found, "{name}");
        ["models", "route", "plugin", "a"].iter().for_each(|name| check(name, true));
        ["model", "modelz", "", "b", "routes", "Models"].iter().for_each(|name| check(name, false));
        assert_eq!(listed.iter().count(), 4);
        assert!(ListedMembers::default().find("a").is_none());
    }

    #[test]
    fn a_denied_member_is_never_sent_and_a_priced_one_only_where_its_price_is_known_or_nobody_pays() {
        let rules = BodyRules { denied: vec!["models".into()], priced: vec!["service_tier".into(), "plugins".into()] };
        let prices =
            [MemberPrice { name: "service_tier".into(), word: "priority".into(), price: Price::default().into() }];
        let check = |members: &[(&str, MemberValue)], unpaid: Result<(), MemberObjection>, paid| {
            let given = given(members);
            for (is_paid, expected) in [(false, unpaid), (true, paid)] {
                let found = rules.verdict(&given, &prices, is_paid).map_err(|(_, why)| why);
                assert_eq!(found, expected, "{members:?} {is_paid}");
            }
        };
        let (denied, unpriced) = (Err(MemberObjection::Denied), Err(MemberObjection::Unpriced));
        check(&[], Ok(()), Ok(()));
        check(&[("other", MemberValue::Other)], Ok(()), Ok(()));
        check(&[("models", MemberValue::Off)], denied, denied);
        check(&[("models", MemberValue::Other)], denied, denied);
        for usual in [MemberValue::Off, word("auto"), word("default")] {
            check(&[("service_tier", usual)], Ok(()), Ok(()));
        }
        check(&[("service_tier", word("flex"))], Ok(()), unpriced);
        check(&[("service_tier", MemberValue::Other)], Ok(()), unpriced);
        check(&[("service_tier", word("priority"))], Ok(()), Ok(()));
        check(&[("service_tier", word("priority")), ("plugins", MemberValue::Off)], Ok(()), Ok(()));
        check(&[("service_tier", word("priority")), ("plugins", MemberValue::Other)], Ok(()), unpriced);
        check(&[("plugins", MemberValue::Other), ("models", MemberValue::Other)], denied, denied);
    }
}
