//! Sets of channels as sorted, disjoint, non-empty ranges: the currency of plans. What a rank owns, what it reads and
//! what travels between ranks are all `Channels`, so that an exchange is set algebra.

use std::fmt;
use std::ops::Range;

/// A set of channel (or feature) indices of one activation: sorted, disjoint ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channels(Vec<(usize, usize)>);

impl Channels {
    /// The empty set.
    pub fn none() -> Self {
        Self::default()
    }

    /// All channels `0..count`.
    pub fn all(count: usize) -> Self {
        Self::from(0..count)
    }

    /// The number of channels in the set.
    pub fn len(&self) -> usize {
        self.ranges().map(|range| range.len()).sum()
    }

    /// Whether the set holds no channel.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges in ascending order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.0.iter().map(|&(start, end)| start..end)
    }

    /// The channels in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.ranges().chain(other.ranges()).collect()
    }

    /// The channels in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut mine, mut theirs, mut both) = (self.0.as_slice(), other.0.as_slice(), Vec::new());
        while let ([my, my_rest @ ..], [their, their_rest @ ..]) = (mine, theirs) {
            both.push(my.0.max(their.0)..my.1.min(their.1));
            // Nothing that comes later meets the one that ends first.
            if my.1 <= their.1 { mine = my_rest } else { theirs = their_rest }
        }
        both.into_iter().collect()
    }

    /// The channels of this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for range in self.ranges() {
            let mut start = range.start;
            for taken in other.ranges().filter(|taken| taken.end > range.start && taken.start < range.end) {
                left.push(start..taken.start.max(start));
                start = taken.end;
            }
            left.push(start..range.end.max(start));
        }
        left.into_iter().collect()
    }

    /// Whether every channel of `other` is in this set.
    pub fn contains(&self, other: &Self) -> bool {
        other.difference(self).is_empty()
    }

    /// Where `channel` lies in a tensor that holds exactly this set in ascending order, if it is in the set.
    pub fn position(&self, channel: usize) -> Option<usize> {
        let mut before = 0;
        for range in self.ranges() {
            if range.contains(&channel) {
                return Some(before + channel - range.start);
            }
            before += range.len();
        }
        None
    }

    /// The ranges of `part` as ranges of a tensor that holds exactly this set in ascending order.
    /// `None` if `part` holds a channel that this set does not.
    pub fn positions(&self, part: &Self) -> Option<Self> {
        part.ranges()
            .flat_map(|range| self.intersection(&Self::from(range)).0)
            .map(|(start, end)| self.position(start).map(|at| at..at + (end - start)))
            .collect::<Option<Self>>()
            .filter(|found| found.len() == part.len())
    }

    /// Every channel moved up by `offset`.
    #[must_use]
    pub fn shifted(&self, offset: usize) -> Self {
        self.ranges().map(|range| range.start + offset..range.end + offset).collect()
    }

    /// The features `channel * size .. (channel + 1) * size` of every channel: what flattening makes of the set.
    #[must_use]
    pub fn scaled(&self, size: usize) -> Self {
        self.ranges().map(|range| range.start * size..range.end * size).collect()
    }
}

impl From<Range<usize>> for Channels {
    fn from(range: Range<usize>) -> Self {
        std::iter::once(range).collect()
    }
}

impl FromIterator<Range<usize>> for Channels {
    fn from_iter<I: IntoIterator<Item = Range<usize>>>(ranges: I) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_by_key(|range| range.start);
        let mut merged: Vec<(usize, usize)> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some((_, end)) if *end >= range.start => *end = (*end).max(range.end),
                _ => merged.push((range.start, range.end)),
            }
        }
        Self(merged)
    }
}

impl fmt::Display for Channels {
    /// As half-open ranges: `0..48`, or `0..16+32..48`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return formatter.write_str("none");
        }
        for (index, range) in self.ranges().enumerate() {
            if index > 0 {
                formatter.write_str("+")?;
            }
            write!(formatter, "{}..{}", range.start, range.end)?;
        }
        Ok(())
    }
}

/// What rank `rank` of `ranks` has of `count` things: contiguous shares in rank order whose sizes differ by one at most,
/// the larger ones first. Channels are shared out like this over the model axis, and examples over the data axis.
pub fn share(count: usize, ranks: usize, rank: usize) -> Range<usize> {
    let (size, larger) = (count / ranks, count % ranks);
    let begin = |rank: usize| rank * size + rank.min(larger);
    begin(rank)..begin(rank + 1)
}

/// The shares of all ranks, as sets of channels.
pub fn shares(count: usize, ranks: usize) -> Vec<Channels> {
    (0..ranks).map(|rank| share(count, ranks, rank).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn members(channels: &Channels) -> BTreeSet<usize> {
        channels.ranges().flatten().collect()
    }

    fn channels() -> impl Strategy<Value = Channels> {
        prop::collection::vec((0usize..40, 0usize..9), 0..6)
            .prop_map(|ranges| ranges.into_iter().map(|(start, length)| start..start + length).collect())
    }

    proptest! {
        #[test]
        fn the_algebra_is_that_of_sets(a in channels(), b in channels()) {
            prop_assert_eq!(members(&a.union(&b)), &members(&a) | &members(&b));
            prop_assert_eq!(members(&a.intersection(&b)), &members(&a) & &members(&b));
            prop_assert_eq!(members(&a.difference(&b)), &members(&a) - &members(&b));
            prop_assert_eq!(a.contains(&b), members(&b).is_subset(&members(&a)));
            prop_assert_eq!(a.len(), members(&a).len());
        }

        #[test]
        fn positions_count_the_members_below(a in channels(), b in channels()) {
            let ordered: Vec<usize> = members(&a).into_iter().collect();
            let common = a.intersection(&b);
            let positions = a.positions(&common).expect("a part of the set");
            let expected: BTreeSet<usize> =
                members(&common).iter().map(|c| ordered.binary_search(c).expect("a member")).collect();
            prop_assert_eq!(members(&positions), expected);
            prop_assert_eq!(a.positions(&b).is_some(), a.contains(&b));
        }

        #[test]
        fn shares_are_contiguous_balanced_and_complete(count in 0usize..1000, ranks in 1usize..20) {
            let shares: Vec<_> = (0..ranks).map(|rank| share(count, ranks, rank)).collect();
            prop_assert_eq!((shares[0].start, shares[ranks - 1].end), (0, count));
            prop_assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
            prop_assert!(shares.iter().all(|share| share.len() == count / ranks || share.len() == count.div_ceil(ranks)));
        }
    }

    #[test]
    fn the_first_ranks_take_what_is_left_over() {
        assert_eq!([share(8, 3, 0), share(8, 3, 1), share(8, 3, 2)], [0..3, 3..6, 6..8]);
        assert_eq!([share(1, 3, 0), share(1, 3, 1), share(1, 3, 2)], [0..1, 1..1, 1..1]);
    }

    #[test]
    fn touching_ranges_merge_and_print_as_one() {
        let merged: Channels = [4..8, 0..4, 10..12].into_iter().collect();
        assert_eq!(merged.to_string(), "0..8+10..12");
        assert_eq!(merged.shifted(1).scaled(2).to_string(), "2..18+22..26");
    }
}
