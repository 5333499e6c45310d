//! Reading the portable Roaring format in place
//! (<https://github.com/RoaringBitmap/RoaringFormatSpec>): no container is copied.

const NO_RUNS: u32 = 12346;
const WITH_RUNS: u32 = 12347;
/// A bitmap with run containers has an offset table only from this count of containers.
const OFFSETS_FROM: usize = 4;
const BITMAP_BYTES: usize = 8192;
/// Containers with more members are bitmaps.
const MAX_ARRAY_MEMBERS: usize = 4096;

/// The offsets of the parts of a checked bitmap. Small, so that one per shard can stay in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Layout {
    containers: u32,
    /// Start of the run flags; 0 if there are none.
    runs: u32,
    /// Start of (key, cardinality - 1) pairs.
    keys: u32,
    /// Start of the offset table; 0 if there is none.
    offsets: u32,
}

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_le_bytes([pair[0], pair[1]]))
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}

/// The position of one container.
struct Container {
    start: usize,
    cardinality: usize,
    runs: bool,
}

/// A serialized bitmap of which every byte was checked.
pub(crate) struct CheckedBitmap {
    pub(crate) layout: Layout,
    /// Its cardinality.
    pub(crate) members: u64,
    /// Its greatest member; `None` if it is empty.
    pub(crate) greatest: Option<u32>,
}

impl Layout {
    /// Checks every byte of a serialized bitmap.
    pub(crate) fn check(bytes: &[u8]) -> Result<CheckedBitmap, &'static str> {
        let layout = Self::of_header(bytes).ok_or("its header is truncated or not Roaring")?;
        let mut at = layout.first_container();
        let (mut members, mut greatest, mut previous) = (0u64, None, None);
        for number in 0..layout.containers as usize {
            let key = layout.key(bytes, number).ok_or("its keys are truncated")?;
            if previous.is_some_and(|p| p >= key) {
                return Err("its keys are not ascending");
            }
            previous = Some(key);
            if layout.offsets != 0
                && u32_at(bytes, layout.offsets as usize + number * 4) != u32::try_from(at).ok()
            {
                return Err("a container is not at its offset");
            }
            let cardinality = layout.cardinality(bytes, number).ok_or("its keys are truncated")?;
            let container =
                Container { start: at, cardinality, runs: layout.is_run(bytes, number) };
            let (length, last) = container.check(bytes)?;
            at += length;
            members += cardinality as u64;
            greatest = Some(u32::from(key) << 16 | u32::from(last));
        }
        if at != bytes.len() {
            return Err("bytes follow its end");
        }
        Ok(CheckedBitmap { layout, members, greatest })
    }

    fn of_header(bytes: &[u8]) -> Option<Self> {
        let cookie = u32_at(bytes, 0)?;
        let (containers, runs, keys) = if cookie == NO_RUNS {
            (u32_at(bytes, 4)? as usize, 0, 8)
        } else if cookie & 0xFFFF == WITH_RUNS {
            let containers = (cookie >> 16) as usize + 1;
            (containers, 4, 4 + containers.div_ceil(8))
        } else {
            return None;
        };
        if containers > 1 << 16 {
            return None;
        }
        let after_keys = keys + containers * 4;
        let has_offsets = runs == 0 || containers >= OFFSETS_FROM;
        let end = after_keys + if has_offsets { containers * 4 } else { 0 };
        bytes.get(..end)?;
        Some(Self {
            containers: containers as u32,
            runs,
            keys: keys as u32,
            offsets: if has_offsets { after_keys as u32 } else { 0 },
        })
    }

    fn first_container(&self) -> usize {
        let count = self.containers as usize;
        self.keys as usize + count * if self.offsets == 0 { 4 } else { 8 }
    }

    #[inline]
    fn key(&self, bytes: &[u8], number: usize) -> Option<u16> {
        u16_at(bytes, self.keys as usize + number * 4)
    }

    #[inline]
    fn cardinality(&self, bytes: &[u8], number: usize) -> Option<usize> {
        Some(usize::from(u16_at(bytes, self.keys as usize + number * 4 + 2)?) + 1)
    }

    #[inline]
    fn is_run(&self, bytes: &[u8], number: usize) -> bool {
        self.runs != 0
            && bytes
                .get(self.runs as usize + number / 8)
                .is_some_and(|b| b >> (number % 8) & 1 == 1)
    }

    /// The number of the container with this key. Ordinals are dense, so most often both are equal.
    #[inline]
    fn number_of(&self, bytes: &[u8], key: u16) -> Option<usize> {
        let guess = usize::from(key);
        let count = self.containers as usize;
        if guess < count && self.key(bytes, guess)? == key {
            return Some(guess);
        }
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(bytes, middle)?.cmp(&key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    fn start_of(&self, bytes: &[u8], number: usize) -> Option<usize> {
        if self.offsets != 0 {
            return Some(u32_at(bytes, self.offsets as usize + number * 4)? as usize);
        }
        // Without a table there are at most three containers.
        let mut at = self.first_container();
        for earlier in 0..number {
            let cardinality = self.cardinality(bytes, earlier)?;
            let container = Container { start: at, cardinality, runs: self.is_run(bytes, earlier) };
            at += container.length(bytes)?;
        }
        Some(at)
    }

    /// Whether the bitmap contains `value`. `bytes` must be those that this layout was made from:
    /// with others the answer is arbitrary, but nothing panics.
    #[inline]
    pub(crate) fn contains(&self, bytes: &[u8], value: u32) -> bool {
        self.find(bytes, (value >> 16) as u16, value as u16).unwrap_or(false)
    }

    #[inline]
    fn find(&self, bytes: &[u8], key: u16, low: u16) -> Option<bool> {
        let number = self.number_of(bytes, key)?;
        let container = Container {
            start: self.start_of(bytes, number)?,
            cardinality: self.cardinality(bytes, number)?,
            runs: self.is_run(bytes, number),
        };
        container.contains(bytes, low)
    }
}

impl Container {
    fn length(&self, bytes: &[u8]) -> Option<usize> {
        Some(if self.runs {
            2 + usize::from(u16_at(bytes, self.start)?) * 4
        } else if self.cardinality > MAX_ARRAY_MEMBERS {
            BITMAP_BYTES
        } else {
            self.cardinality * 2
        })
    }

    #[inline]
    fn contains(&self, bytes: &[u8], low: u16) -> Option<bool> {
        if self.runs {
            return self.run_contains(bytes, low);
        }
        if self.cardinality > MAX_ARRAY_MEMBERS {
            let byte = bytes.get(self.start + usize::from(low >> 3))?;
            return Some(byte >> (low & 7) & 1 == 1);
        }
        let values = bytes.get(self.start..self.start + self.cardinality * 2)?;
        let (mut from, mut length) = (0, self.cardinality);
        while length > 1 {
            let half = length / 2;
            // No branch: values are random, so a branch would be mispredicted half of the time.
            from = if u16_at(values, (from + half) * 2)? <= low { from + half } else { from };
            length -= half;
        }
        Some(u16_at(values, from * 2)? == low)
    }

    fn run_contains(&self, bytes: &[u8], low: u16) -> Option<bool> {
        let count = usize::from(u16_at(bytes, self.start)?);
        let runs = bytes.get(self.start + 2..self.start + 2 + count * 4)?;
        let (mut from, mut to) = (0, count);
        while from < to {
            let middle = from.midpoint(to);
            let first = u16_at(runs, middle * 4)?;
            if low < first {
                to = middle;
            } else if low - first <= u16_at(runs, middle * 4 + 2)? {
                return Some(true);
            } else {
                from = middle + 1;
            }
        }
        Some(false)
    }

    /// The length in bytes and the last member.
    fn check(&self, bytes: &[u8]) -> Result<(usize, u16), &'static str> {
        let truncated = "a container is truncated";
        let length = self.length(bytes).ok_or(truncated)?;
        let body = bytes.get(self.start..self.start + length).ok_or(truncated)?;
        if self.runs {
            return check_runs(body, self.cardinality).map(|last| (length, last));
        }
        if self.cardinality > MAX_ARRAY_MEMBERS {
            let ones: u32 = body.iter().map(|b| b.count_ones()).sum();
            if ones as usize != self.cardinality {
                return Err("a container's count does not match its bits");
            }
            let byte = body.iter().rposition(|&b| b != 0).unwrap_or(0);
            let bit = 7 - body[byte].leading_zeros().min(7);
            return Ok((length, (byte * 8) as u16 + bit as u16));
        }
        let mut values = body.chunks_exact(2).map(|v| u16::from_le_bytes([v[0], v[1]]));
        let mut last = values.next().ok_or(truncated)?;
        for value in values {
            if value <= last {
                return Err("a container is not ascending");
            }
            last = value;
        }
        Ok((length, last))
    }
}

fn check_runs(body: &[u8], cardinality: usize) -> Result<u16, &'static str> {
    let mut members = 0usize;
    let mut last: Option<u16> = None;
    for run in body[2..].chunks_exact(4) {
        let first = u16::from_le_bytes([run[0], run[1]]);
        let more = u16::from_le_bytes([run[2], run[3]]);
        // Adjacent runs are refused too: the roaring crate does not read them.
        if last.is_some_and(|l| l.saturating_add(1) >= first) {
            return Err("a container's runs are not ascending and separate");
        }
        last = Some(first.checked_add(more).ok_or("a run exceeds its container")?);
        members += usize::from(more) + 1;
    }
    if members != cardinality {
        return Err("a container's count does not match its runs");
    }
    last.ok_or("a container has no run")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roaring::RoaringBitmap;

    use super::*;

    fn bytes(bitmap: &RoaringBitmap) -> Vec<u8> {
        let mut bytes = Vec::new();
        bitmap.serialize_into(&mut bytes).unwrap();
        bytes
    }

    fn bitmaps() -> impl Strategy<Value = RoaringBitmap> {
        let singles = prop::collection::vec(0u32..400_000, 0..200);
        let ranges = prop::collection::vec((0u32..400_000, 1u32..70_000, 1usize..4), 0..5);
        (singles, ranges, any::<bool>()).prop_map(|(singles, ranges, runs)| {
            let mut bitmap: RoaringBitmap = singles.into_iter().collect();
            for (from, length, step) in ranges {
                bitmap.extend((from..from + length).step_by(step));
            }
            if runs {
                bitmap.optimize();
            }
            bitmap
        })
    }

    proptest! {
        #[test]
        fn reads_what_roaring_writes(bitmap in bitmaps(), probes in prop::collection::vec(0u32..500_000, 200)) {
            let bytes = bytes(&bitmap);
            let CheckedBitmap { layout, members, greatest } = Layout::check(&bytes).unwrap();
            prop_assert_eq!(members, bitmap.len());
            prop_assert_eq!(greatest, bitmap.max());
            for probe in probes.into_iter().chain(bitmap.iter().take(300)) {
                prop_assert_eq!(layout.contains(&bytes, probe), bitmap.contains(probe), "{}", probe);
            }
        }

        #[test]
        fn damage_is_an_error_or_harmless(bitmap in bitmaps(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = bytes(&bitmap);
            let layout = Layout::check(&bytes).unwrap().layout;
            let at = at.index(bytes.len());
            prop_assert!(Layout::check(&bytes[..at]).is_err());
            bytes[at] ^= flip;
            // Bytes that are still accepted are a valid bitmap: roaring gives the same answers.
            if let Ok(CheckedBitmap { layout: changed, members, .. }) = Layout::check(&bytes) {
                let expected = RoaringBitmap::deserialize_from(&bytes[..]).unwrap();
                prop_assert_eq!(members, expected.len());
                for probe in expected.iter().take(100) {
                    prop_assert!(changed.contains(&bytes, probe));
                }
            }
            for probe in [0, 1, 65_535, 65_536, 399_999, u32::MAX] {
                layout.contains(&bytes, probe);
            }
        }

        #[test]
        fn random_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..300), cookie in 0usize..3) {
            let mut bytes = [&b""[..], &[0x3A, 0x30, 0, 0], &[0x3B, 0x30, 2, 0]][cookie].to_vec();
            bytes.extend(tail);
            if let Ok(CheckedBitmap { layout, .. }) = Layout::check(&bytes) {
                layout.contains(&bytes, 7);
            }
        }
    }
}
