//! Names, aliases and what hides what.

use super::{definition, repository};
use crate::artifact::{Origin, Repository};

#[test]
fn custom_artifacts_hide_built_in_ones_until_removed() {
    let mut set = Repository::builtin();
    let own = "name: Generic.Client.Info\nauthor: me\n";
    set.insert(definition(own));
    let origin = |set: &Repository| {
        let entries = set.list();
        let mut named = entries
            .iter()
            .filter(|entry| entry.name == "Generic.Client.Info");
        (named.next().unwrap().origin, named.next().is_none())
    };
    assert_eq!(set.get("Generic.Client.Info").unwrap().author, "me");
    assert_eq!(origin(&set), (Origin::Custom, true));
    assert!(set.remove("Generic.Client.Info"));
    assert!(!set.remove("Generic.Client.Info"));
    assert_eq!(set.get("Generic.Client.Info").unwrap().author, "");
    assert_eq!(origin(&set), (Origin::BuiltIn, true));
}

#[test]
fn an_alias_gives_the_artifact_under_that_name() {
    let set = repository(&["name: A.B\naliases: [C.D, E]\n", "name: E\nauthor: other\n"]);
    assert_eq!(set.get("C.D").unwrap().name, "C.D");
    assert_eq!(set.get("E").unwrap().author, "other");
    let names: Vec<(String, Option<String>)> = set
        .list()
        .into_iter()
        .map(|entry| (entry.name, entry.alias_of))
        .collect();
    let alias = Some("A.B".to_owned());
    let expected = [("A.B", None), ("C.D", alias), ("E", None)];
    assert_eq!(
        names,
        expected.map(|(name, alias)| (name.to_owned(), alias))
    );
}

#[test]
fn a_custom_variant_is_preferred() {
    let set = repository(&["name: A\n", "name: Custom.A\n", "name: B\n"]);
    assert_eq!(set.get_preferred("A").unwrap().name, "Custom.A");
    assert_eq!(set.get_preferred("B").unwrap().name, "B");
    assert!(set.get_preferred("C").is_none());
}
