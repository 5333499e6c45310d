//! The placements of a partition: a number for each name, so that an event is counted by a number.
//!
//! There are at most [`MAX_PLACEMENTS`] of them. If there are more, new ones are counted as `other`, and every ten
//! minutes of the insertions' times the quarter that is used least is merged into `other` to make room. Which
//! number a name has depends on the insertions and their order alone, so that every replica and every replay agree.

use std::collections::HashMap;

use throng_model::Timestamp;

/// The number of insertions without a placement.
pub const NO_PLACEMENT: u16 = 0;
/// The number of placements that have none of their own; also of one with the name `other`.
pub const OTHER_PLACEMENT: u16 = 1;
/// The most placements of a partition.
const MAX_PLACEMENTS: usize = 1_000;
/// The name of [`OTHER_PLACEMENT`].
const OTHER: &str = "other";
/// The first number of a name.
const FIRST: u16 = 2;
/// The longest name.
const MAX_NAME_BYTES: usize = 128;
/// The longest time in which names that are used least keep their numbers.
const BLOCK_MICROS: i64 = 600 * 1_000_000;

/// A placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPlacement {
    /// Its number.
    pub number: u16,
    /// Its name.
    pub name: String,
    /// How many insertions have named it; halved whenever others are merged.
    pub used: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    name: Box<[u8]>,
    used: u64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placements {
    numbers: HashMap<Box<[u8]>, u16>,
    /// By number, from [`FIRST`] on.
    slots: Vec<Option<Slot>>,
    /// The place of the one that was named last.
    last: usize,
    /// The newest ten minutes that have had an insertion with a placement.
    block: i64,
}

impl Default for Placements {
    fn default() -> Self {
        Self { numbers: HashMap::new(), slots: Vec::new(), last: 0, block: i64::MIN }
    }
}

impl Placements {
    /// Whether no placement has been named.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The number of a name. One that is new gets the lowest number that is free.
    pub fn number(&mut self, name: &[u8]) -> u16 {
        if name.is_empty() {
            return NO_PLACEMENT;
        }
        // Insertions of a message are often of one placement.
        if let Some(Some(slot)) = self.slots.get_mut(self.last)
            && *slot.name == *name
        {
            slot.used = slot.used.saturating_add(1);
            return number_of(self.last);
        }
        if let Some(number) = self.numbers.get(name).copied() {
            self.last = usize::from(number - FIRST);
            if let Some(Some(slot)) = self.slots.get_mut(self.last) {
                slot.used = slot.used.saturating_add(1);
            }
            return number;
        }
        self.add(name)
    }

    #[cold]
    fn add(&mut self, name: &[u8]) -> u16 {
        let is_text = std::str::from_utf8(name).is_ok() && name.len() <= MAX_NAME_BYTES;
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if !is_text || name == OTHER.as_bytes() || free >= MAX_PLACEMENTS {
            return OTHER_PLACEMENT;
        }
        let slot = Some(Slot { name: name.into(), used: 1 });
        match self.slots.get_mut(free) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        self.last = free;
        self.numbers.insert(name.into(), number_of(free));
        number_of(free)
    }

    /// The numbers that have to be merged into [`OTHER_PLACEMENT`], ascending: those used least, if there is no
    /// room at an insertion of this time. They are free from now on.
    pub fn make_room(&mut self, at: Timestamp) -> Vec<u16> {
        let block = at.0.div_euclid(BLOCK_MICROS);
        if block <= self.block {
            return Vec::new();
        }
        self.block = block;
        if self.numbers.len() < MAX_PLACEMENTS {
            return Vec::new();
        }
        let mut by_use: Vec<(u64, usize)> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(place, slot)| Some((slot.as_ref()?.used, place)))
            .collect();
        by_use.sort_unstable();
        by_use.truncate(MAX_PLACEMENTS / 4);
        let mut gone: Vec<u16> = by_use.iter().map(|(_, place)| number_of(*place)).collect();
        gone.sort_unstable();
        for (_, place) in by_use {
            if let Some(slot) = self.slots[place].take() {
                self.numbers.remove(&slot.name);
            }
        }
        self.slots.iter_mut().flatten().for_each(|slot| slot.used /= 2);
        gone
    }

    /// The name of a number; `None` if it has none.
    pub fn name(&self, number: u16) -> Option<&str> {
        if number == OTHER_PLACEMENT {
            return Some(OTHER);
        }
        let place = usize::from(number.checked_sub(FIRST)?);
        std::str::from_utf8(&self.slots.get(place)?.as_ref()?.name).ok()
    }

    /// Whether a number is that of a placement, or of none.
    pub fn is_known(&self, number: u16) -> bool {
        let place = usize::from(number).checked_sub(usize::from(FIRST));
        place.is_none_or(|place| self.slots.get(place).is_some_and(Option::is_some))
    }

    /// The form to store: the placements, and the newest ten minutes.
    pub fn stored(&self) -> (Vec<NamedPlacement>, i64) {
        let named = self.slots.iter().enumerate().filter_map(|(place, slot)| {
            let number = number_of(place);
            let name = self.name(number)?.to_owned();
            Some(NamedPlacement { number, name, used: slot.as_ref()?.used })
        });
        (named.collect(), self.block)
    }

    /// What was stored; `None` if it is not that.
    pub fn of_stored(named: Vec<NamedPlacement>, block: i64) -> Option<Self> {
        let mut placements = Self { block, ..Self::default() };
        for NamedPlacement { number, name, used } in named {
            let place = usize::from(number.checked_sub(FIRST)?);
            let is_valid = place < MAX_PLACEMENTS
                && place >= placements.slots.len()
                && !name.is_empty()
                && name != OTHER
                && name.len() <= MAX_NAME_BYTES;
            if !is_valid {
                return None;
            }
            let name: Box<[u8]> = name.into_bytes().into();
            if placements.numbers.insert(name.clone(), number).is_some() {
                return None;
            }
            placements.slots.resize(place, None);
            placements.slots.push(Some(Slot { name, used }));
        }
        Some(placements)
    }
}

fn number_of(place: usize) -> u16 {
    // At most `MAX_PLACEMENTS`.
    place as u16 + FIRST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_numbers() {
        let mut placements = Placements::default();
        let numbers = ["home", "feed", "home", "", "other", "feed"]
            .map(|name| placements.number(name.as_bytes()));
        assert_eq!(numbers, [2, 3, 2, NO_PLACEMENT, OTHER_PLACEMENT, 3]);
        assert_eq!(placements.number(&[b'x'; 129]), OTHER_PLACEMENT);
        assert_eq!(placements.number(&[0xff]), OTHER_PLACEMENT);
        let names = [0, 1, 2, 3, 4].map(|number| placements.name(number));
        assert_eq!(names, [None, Some("other"), Some("home"), Some("feed"), None]);
        let known = [0, 1, 2, 3, 4, u16::MAX].map(|number| placements.is_known(number));
        assert_eq!(known, [true, true, true, true, false, false]);
    }

    #[test]
    fn those_used_least_make_room_in_the_next_ten_minutes() {
        let mut placements = Placements::default();
        assert!(placements.make_room(Timestamp(0)).is_empty());
        for number in 0..MAX_PLACEMENTS {
            let times = if (100..350).contains(&number) { 1 } else { 4 };
            (0..times).for_each(|_| {
                placements.number(format!("p{number}").as_bytes());
            });
        }
        assert_eq!(placements.number(b"new"), OTHER_PLACEMENT);
        assert!(placements.make_room(Timestamp(BLOCK_MICROS - 1)).is_empty());
        let mut replica = restored(&placements);
        let gone: Vec<u16> = (102..352).collect();
        assert_eq!(placements.make_room(Timestamp(BLOCK_MICROS)), gone);
        assert_eq!(replica.make_room(Timestamp(BLOCK_MICROS)), gone);
        // After it there is room, and a name that is gone is a new one.
        assert!(placements.make_room(Timestamp(9 * BLOCK_MICROS)).is_empty());
        let numbers = ["new", "p100", "p99"].map(|name| placements.number(name.as_bytes()));
        assert_eq!(numbers, [102, 103, 101]);
        assert_eq!(placements.name(104), None);
        let again = restored(&placements);
        assert_eq!(again.stored(), placements.stored());
    }

    fn restored(placements: &Placements) -> Placements {
        let (named, block) = placements.stored();
        Placements::of_stored(named, block).unwrap()
    }

    #[test]
    fn what_was_not_stored_is_refused() {
        let named = |number, name: &str| NamedPlacement { number, name: name.to_owned(), used: 1 };
        let of = |named: Vec<NamedPlacement>| Placements::of_stored(named, 0);
        assert!(of(vec![named(2, "a"), named(7, "b")]).is_some());
        assert!(of(vec![named(7, "a"), named(2, "b")]).is_none(), "not ascending");
        assert!(of(vec![named(2, "a"), named(3, "a")]).is_none(), "a name twice");
        for (number, name) in [(0, "a"), (1, "a"), (2, ""), (2, "other"), (1_002, "a")] {
            assert!(of(vec![named(number, name)]).is_none(), "{number} {name}");
        }
        assert!(of(vec![named(1_001, "a")]).is_some());
    }
}
