//! Looks up the ad groups of several events at once. Pure.

use crate::record::EventRef;

/// For how many events.
const GROUP: usize = 16;

/// Calls `each` with every event and its number, in their order, and with what `look_up` returns for the bytes of its ad
/// group's name. Names are looked up before their events are used, for some events at once: a table of names does not
/// stay in the processor's caches, and the waits for its entries overlap then.
#[inline]
pub fn look_up_each<'a, T: Copy + Default>(
    events: &mut impl Iterator<Item = (usize, EventRef<'a>)>,
    look_up: impl Fn(&[u8]) -> T,
    mut each: impl FnMut(usize, &EventRef<'a>, T),
) {
    let mut group: Vec<(usize, EventRef<'a>)> = Vec::with_capacity(GROUP);
    loop {
        group.extend(events.by_ref().take(GROUP));
        let mut all_found = [T::default(); GROUP];
        for (found, (_, event)) in all_found.iter_mut().zip(&group) {
            *found = look_up(event.ad_group.as_bytes());
        }
        for ((number, event), found) in group.iter().zip(all_found) {
            each(*number, event, found);
        }
        if group.len() < GROUP {
            return;
        }
        group.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_comes_once_in_order_with_what_was_found() {
        let names: Vec<String> = (0..3 * GROUP).map(|length| "a".repeat(length)).collect();
        for count in [0, 1, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP] {
            let events = names.iter().take(count).enumerate().map(|(number, name)| {
                (2 * number, EventRef { ad_group: name.as_str().into(), ..EventRef::default() })
            });
            let mut seen = Vec::new();
            look_up_each(&mut events.clone(), <[u8]>::len, |number, event, length| {
                seen.push((number, event.ad_group.as_bytes().len(), length));
            });
            let wanted: Vec<_> = (0..count).map(|length| (2 * length, length, length)).collect();
            assert_eq!(seen, wanted, "{count}");
        }
    }
}
