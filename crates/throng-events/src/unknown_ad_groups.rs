//! Why events of ad groups that the applied spec does not have are rejected. Pure.

use std::collections::HashMap;

use throng_model::AdGroupName;

use crate::event::EventProblem;

/// For so many names of a request a similar one is searched for.
const MAX_SEARCHES: usize = 20;

/// The problems of one request's events of unknown ad groups. A search for a similar name compares with every name of
/// the spec, which takes milliseconds with thousands of them: there is at most one for each name, and none after the
/// first 20 names. A request can have an event of a removed ad group in each line.
#[derive(Debug, Default)]
pub struct UnknownAdGroups<'a> {
    searched: HashMap<&'a str, EventProblem>,
}

impl<'a> UnknownAdGroups<'a> {
    /// The problem of an event of this ad group. `known`: the names in the applied spec, of which a similar one is
    /// shown.
    pub fn problem<'b>(
        &mut self,
        name: &'a str,
        known: impl Iterator<Item = &'b AdGroupName>,
    ) -> EventProblem {
        if let Some(problem) = self.searched.get(name) {
            return problem.clone();
        }
        if self.searched.len() == MAX_SEARCHES {
            return EventProblem::unknown_ad_group(name, std::iter::empty());
        }
        let problem = EventProblem::unknown_ad_group(name, known);
        self.searched.insert(name, problem.clone());
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_similar_name_is_searched_for_once_for_each_of_the_first_names() {
        let shoes = AdGroupName::new("shoes").unwrap();
        let names: Vec<String> = (0..25).map(|n| format!("shoes{n}")).collect();
        let (mut unknown, mut searches) = (UnknownAdGroups::default(), 0);
        for _ in 0..3 {
            for (number, name) in names.iter().enumerate() {
                let known = std::iter::once(&shoes).inspect(|_| searches += 1);
                let problem = unknown.problem(name, known);
                assert!(problem.message.contains(&format!("`{name}`")), "{problem}");
                assert_eq!(problem.help.contains("`shoes`"), number < 20, "{problem}");
            }
        }
        assert_eq!(searches, 20);
    }
}
