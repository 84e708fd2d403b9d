//! Sets of port numbers, stored as ranges.

use std::fmt;
use std::ops::RangeInclusive;

/// Port numbers as sorted ranges that neither overlap nor touch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct PortSet(Vec<RangeInclusive<u16>>);

impl PortSet {
    /// The set of the given ports.
    pub fn of(ports: &[u16]) -> Self {
        ports.iter().map(|&port| port..=port).collect()
    }

    /// All ports from `first` to `last`; empty if `first` is the larger.
    pub fn range(first: u16, last: u16) -> Self {
        std::iter::once(first..=last).collect()
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }

    /// Whether no port is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of ports.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|range| u32::from(range.end() - range.start()) + 1).sum()
    }

    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        let after = self.0.partition_point(|range| *range.start() <= port);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|range| range.contains(&port))
    }

    /// The ports of this set that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        // Both are sorted: a hole that ends before one range affects no later one.
        let mut holes = other.0.as_slice();
        for range in &self.0 {
            // Wider than a port, so that "one past 65535" has a value.
            let (mut start, end) = (u32::from(*range.start()), u32::from(*range.end()));
            let past = holes.partition_point(|hole| u32::from(*hole.end()) < start);
            holes = holes.get(past..).unwrap_or_default();
            for hole in holes {
                let (hole_start, hole_end) = (u32::from(*hole.start()), u32::from(*hole.end()));
                if hole_start > end {
                    break;
                }
                if hole_start > start {
                    left.push((start, hole_start - 1));
                }
                start = hole_end + 1;
            }
            if start <= end {
                left.push((start, end));
            }
        }
        left.into_iter()
            .filter_map(|(start, end)| Some(u16::try_from(start).ok()?..=u16::try_from(end).ok()?))
            .collect()
    }
}

impl FromIterator<RangeInclusive<u16>> for PortSet {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        sorted.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, range) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            if range.start() == range.end() {
                write!(f, "{comma}{}", range.start())?;
            } else {
                write!(f, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(PortSet::of(&[3, 1, 2, 7]).to_string(), "1-3, 7");
    }

    #[test]
    fn exclusion_works_at_both_ends() {
        assert_eq!(
            PortSet::range(0, 65535).without(&PortSet::of(&[0, 9, 65535])).to_string(),
            "1-8, 10-65534"
        );
    }

    proptest! {
        #[test]
        fn without_is_set_difference(a in proptest::collection::vec((any::<u16>(), 0u16..300), 0..12), b in proptest::collection::vec((any::<u16>(), 0u16..300), 0..12), port: u16) {
            let set = |pairs: &[(u16, u16)]| pairs.iter().map(|&(start, length)| start..=start.saturating_add(length)).collect::<PortSet>();
            let (a, b) = (set(&a), set(&b));
            prop_assert_eq!(a.without(&b).contains(port), a.contains(port) && !b.contains(port));
        }
    }
}
