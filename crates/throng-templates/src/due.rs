//! Which templates are due by their schedules. Pure.

use std::collections::{BTreeMap, BTreeSet};

use throng_model::Timestamp;
use throng_spec::{AudienceTemplate, Pattern, Schedule, Spec, SyncTemplate};

/// Every template with a schedule: its own, or that of its audiences.
fn schedules(spec: &Spec) -> impl Iterator<Item = (&Pattern, &Schedule)> {
    let audiences = spec.audience_templates.iter();
    let audiences =
        audiences.filter_map(|template| Some((&template.name, of_audiences(template)?)));
    let syncs = spec.sync_templates.iter();
    let syncs = syncs.filter_map(move |template| Some((&template.name, of_syncs(spec, template)?)));
    audiences.chain(syncs)
}

fn of_audiences(template: &AudienceTemplate) -> Option<&Schedule> {
    template.for_each.schedule.as_ref().or(template.audience.schedule.as_ref())
}

/// Without one of its own, that of the template that makes its audiences: a new audience would have no sync.
fn of_syncs<'s>(spec: &'s Spec, template: &'s SyncTemplate) -> Option<&'s Schedule> {
    let wanted = shape(&template.audience);
    let mut makers = spec.audience_templates.iter().filter(|maker| shape(&maker.name) == wanted);
    template.for_each.schedule.as_ref().or_else(|| makers.find_map(of_audiences))
}

/// A pattern of names without the names of its columns, which differ between queries.
fn shape(pattern: &Pattern) -> Option<String> {
    pattern.fill(|_| Some("*".to_owned())).ok()
}

/// The templates that have a schedule.
pub fn scheduled(spec: &Spec) -> impl Iterator<Item = &Pattern> {
    schedules(spec).map(|(name, _)| name)
}

/// The templates whose schedule has fired since they were expanded last. One that `expanded_at` does not have is
/// not due. Times in the future, from before the clock stepped back, become `now`: otherwise no schedule would fire for as
/// long as the step.
pub fn due(
    spec: &Spec,
    expanded_at: &mut BTreeMap<Pattern, Timestamp>,
    now: Timestamp,
) -> BTreeSet<Pattern> {
    for at in expanded_at.values_mut() {
        *at = (*at).min(now);
    }
    let is_due = |(name, schedule): &(&Pattern, &Schedule)| {
        let next = expanded_at.get(*name).and_then(|since| schedule.next_after(*since));
        next.is_some_and(|at| at <= now)
    };
    schedules(spec).filter(is_due).map(|(name, _)| name.clone()).collect()
}
