//! Tests of the command line: its examples, its reference, keys of any form.

use clap::{CommandFactory, Parser as _};

#[test]
fn every_subcommand_is_well_formed() {
    super::Arguments::command().debug_assert();
}

/// Calls `visit` with each command below this one, and its names from `throng` on.
fn each_command(command: &clap::Command, names: &str, visit: &mut dyn FnMut(&str, &clap::Command)) {
    visit(names, command);
    for below in command.get_subcommands() {
        each_command(below, &format!("{names} {}", below.get_name()), visit);
    }
}

#[test]
fn every_example_can_be_parsed() {
    let mut examples = 0;
    each_command(&super::Arguments::command(), "throng", &mut |names, command| {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in text.lines().filter(|line| line.starts_with("  throng ")) {
            let words = line.split_whitespace().take_while(|word| *word != ">");
            let parsed = super::Arguments::try_parse_from(words);
            assert!(parsed.is_ok(), "{names}: {line}: {:?}", parsed.err());
            examples += 1;
        }
    });
    assert!(examples > 30, "{examples}");
}

#[test]
fn the_reference_has_every_option() {
    let reference = include_str!("../../../../docs/reference/cli.md");
    each_command(&super::Arguments::command(), "throng", &mut |names, command| {
        for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
            let Some(long) = option.get_long() else { continue };
            let is_there = ["`", " ", "\n", ","]
                .iter()
                .any(|end| reference.contains(&format!("--{long}{end}")));
            assert!(is_there, "docs/reference/cli.md lacks --{long} of {names}");
        }
        if command.get_subcommands().next().is_none() {
            assert!(reference.contains(&format!("`{names}")), "it lacks {names}");
        }
    });
}

#[test]
fn an_ad_group_is_named_as_in_the_output() {
    for kind in ["ad-group", super::WhyKind::AdGroup.as_str()] {
        let arguments = super::Arguments::try_parse_from(["throng", "why", kind, "shoes"]);
        let command = arguments.unwrap().command;
        let is_ad_group =
            matches!(command, super::Command::Why { kind: super::WhyKind::AdGroup, .. });
        assert!(is_ad_group, "{kind}");
    }
}

fn parse_lookup(line: &[&str]) -> (Vec<String>, Vec<String>) {
    let arguments = super::Arguments::try_parse_from(line).unwrap();
    match arguments.command {
        super::Command::Lookup { users, keys, node } => {
            assert_eq!(node.url.as_deref(), Some("http://x"), "{line:?}");
            (users, keys)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_may_begin_with_a_hyphen() {
    let (users, keys) = parse_lookup(&["throng", "lookup", "-7", "-8.5", "--url", "http://x"]);
    assert_eq!((users, keys.len()), (vec!["-7".to_owned(), "-8.5".to_owned()], 0));
    let line = ["throng", "lookup", "--key", "-a", "--key=", "--key=--b", "--url", "http://x"];
    assert_eq!(parse_lookup(&line), (vec![], vec!["-a".into(), String::new(), "--b".into()]));
    let (users, _) = parse_lookup(&["throng", "lookup", "--url", "http://x", "--", "-a", "id="]);
    assert_eq!(users, ["-a", "id="]);
    let (users, _) = parse_lookup(&["throng", "lookup", "a b", "", "--url", "http://x"]);
    assert_eq!(users, ["a b", ""]);
}
