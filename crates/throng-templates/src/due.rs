//! Which templates are due by their schedules. Pure.

use std::collections::{BTreeMap, BTreeSet};

use throng_model::Timestamp;
use throng_spec::{Pattern, Schedule, Spec};

/// Every template with a schedule: its own, or that of its audiences.
fn schedules(spec: &Spec) -> impl Iterator<Item = (&Pattern, &Schedule)> {
    let audiences = spec.audience_templates.iter().filter_map(|template| {
        let schedule = template.for_each.schedule.as_ref();
        Some((&template.name, schedule.or(template.audience.schedule.as_ref())?))
    });
    let syncs = spec
        .sync_templates
        .iter()
        .filter_map(|template| Some((&template.name, template.for_each.schedule.as_ref()?)));
    audiences.chain(syncs)
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
