//! Which input channels a range of output channels reads, and where ownership passes straight through. Every exchange
//! of every plan follows from these two relations and from nothing else.

use super::{Channels, Kind, Shape};
use std::ops::Range;

/// The channels of input `which` (its position among the layer's inputs) that the output channels `out` read.
pub fn reads(kind: &Kind, inputs: &[Shape], which: usize, out: &Channels) -> Channels {
    let input = inputs[which];
    match kind {
        Kind::Conv(conv) => conv_segments(conv.groups, input.channels, conv.out_channels, out)
            .into_iter()
            .map(|segment| segment.input)
            .collect(),
        &Kind::LocalResponseNorm { norm, groups } => {
            window_segments(groups, input.channels, norm.size, out).into_iter().map(|segment| segment.input).collect()
        }
        Kind::Linear(_) | Kind::SoftmaxCrossEntropy => Channels::all(input.channels),
        Kind::Flatten => {
            let area = input.area();
            out.ranges().map(|range| range.start / area..range.end.div_ceil(area)).collect()
        }
        Kind::Concat => {
            let before = channels_before(inputs, which);
            let mine = Channels::from(before..before + input.channels).intersection(out);
            mine.ranges().map(|range| range.start - before..range.end - before).collect()
        }
        Kind::Relu
        | Kind::Sigmoid
        | Kind::Tanh
        | Kind::MaxPool(_)
        | Kind::AveragePool(_)
        | Kind::SameMapNorm(_)
        | Kind::Dropout { .. }
        | Kind::Add => out.clone(),
    }
}

/// The output channels that a rank gets for free by holding `held` of input `which`: those of a layer whose channels
/// each follow one input channel. `None` for layers that mix channels, whose outputs are shared out anew.
pub fn carries(kind: &Kind, inputs: &[Shape], which: usize, held: &Channels) -> Option<Channels> {
    match kind {
        Kind::Conv(_) | Kind::Linear(_) | Kind::SoftmaxCrossEntropy => None,
        Kind::Flatten => Some(held.scaled(inputs[which].area())),
        Kind::Concat => Some(held.shifted(channels_before(inputs, which))),
        Kind::Add if which > 0 => Some(Channels::none()),
        _ => Some(held.clone()),
    }
}

fn channels_before(inputs: &[Shape], which: usize) -> usize {
    inputs[..which].iter().map(|input| input.channels).sum()
}

/// A part of a layer that one kernel call can do: output channels of one group, or of several whole groups, and the input
/// channels that they read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Whole groups in the call; 1 where it does a part of a group.
    pub groups: usize,
    /// Input channels read, of the whole layer.
    pub input: Range<usize>,
    /// Output channels given, of the whole layer.
    pub output: Range<usize>,
}

/// The kernel calls that give the output channels `out` of a convolution with `groups` groups. Neighbouring whole
/// groups are done by one call.
pub fn conv_segments(groups: usize, in_channels: usize, out_channels: usize, out: &Channels) -> Vec<Segment> {
    let (group_in, group_out) = (in_channels / groups, out_channels / groups);
    let mut segments: Vec<Segment> = Vec::new();
    for range in out.ranges() {
        for group in range.start / group_out..range.end.div_ceil(group_out) {
            let output = range.start.max(group * group_out)..range.end.min((group + 1) * group_out);
            let input = group * group_in..(group + 1) * group_in;
            match segments.last_mut() {
                Some(last)
                    if output.len() == group_out
                        && last.output.len() == last.groups * group_out
                        && last.output.end == output.start =>
                {
                    last.groups += 1;
                    last.input.end = input.end;
                    last.output.end = output.end;
                }
                _ => segments.push(Segment { groups: 1, input, output }),
            }
        }
    }
    segments
}

/// The kernel calls that give the channels `out` of a layer each of whose channels reads a window of `size` channels around
/// it, inside its group. Two calls may read the same channel.
pub fn window_segments(groups: usize, channels: usize, size: usize, out: &Channels) -> Vec<Segment> {
    let of_group = channels / groups;
    let (before, after) = (size / 2, (size - 1) / 2);
    let of_range = |range: Range<usize>| {
        (range.start / of_group..range.end.div_ceil(of_group)).map(move |group| {
            let (first, end) = (group * of_group, (group + 1) * of_group);
            let output = range.start.max(first)..range.end.min(end);
            let input = output.start.saturating_sub(before).max(first)..(output.end + after).min(end);
            Segment { groups: 1, input, output }
        })
    };
    out.ranges().flat_map(of_range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kind::Norm;

    fn segment(groups: usize, input: Range<usize>, output: Range<usize>) -> Segment {
        Segment { groups, input, output }
    }

    #[test]
    fn whole_groups_are_one_call_and_parts_of_groups_one_each() {
        let calls = |out: Range<usize>| conv_segments(2, 96, 256, &out.into());
        assert_eq!(calls(0..256), [segment(2, 0..96, 0..256)]);
        assert_eq!(calls(0..128), [segment(1, 0..48, 0..128)]);
        assert_eq!(calls(86..171), [segment(1, 0..48, 86..128), segment(1, 48..96, 128..171)]);
        assert_eq!(calls(64..256), [segment(1, 0..48, 64..128), segment(1, 48..96, 128..256)]);
    }

    #[test]
    fn four_whole_groups_after_a_part_of_one() {
        let calls = conv_segments(4, 8, 16, &(2..16).into());
        assert_eq!(calls, [segment(1, 0..2, 2..4), segment(3, 2..8, 4..16)]);
    }

    #[test]
    fn a_window_of_channels_ends_where_its_tower_does() {
        let calls = |size, out: Range<usize>| window_segments(2, 12, size, &out.into());
        assert_eq!(calls(5, 0..12), [segment(1, 0..6, 0..6), segment(1, 6..12, 6..12)]);
        assert_eq!(calls(5, 0..3), [segment(1, 0..5, 0..3)]);
        assert_eq!(calls(5, 4..9), [segment(1, 2..6, 4..6), segment(1, 6..11, 6..9)]);
        // Of an even window one more lies before.
        assert_eq!(calls(4, 2..4), [segment(1, 0..5, 2..4)]);
        let norm = Norm { size: 5, alpha: 1.0, beta: 0.75, k: 1.0 };
        let kind = Kind::LocalResponseNorm { norm, groups: 2 };
        let out: Channels = [1..2, 5..7].into_iter().collect();
        assert_eq!(reads(&kind, &[Shape::image(12, 3, 3)], 0, &out), (0..9).into());
        assert_eq!(carries(&kind, &[Shape::image(12, 3, 3)], 0, &out), Some(out));
    }

    #[test]
    fn flatten_reads_every_channel_that_its_features_touch() {
        let inputs = [Shape::image(4, 3, 3)];
        assert_eq!(reads(&Kind::Flatten, &inputs, 0, &(8..19).into()), (0..3).into());
        assert_eq!(carries(&Kind::Flatten, &inputs, 0, &(1..3).into()), Some((9..27).into()));
    }

    #[test]
    fn concat_reads_each_input_where_it_lies() {
        let inputs = [Shape::flat(4), Shape::flat(6)];
        assert_eq!(reads(&Kind::Concat, &inputs, 0, &(3..7).into()), (3..4).into());
        assert_eq!(reads(&Kind::Concat, &inputs, 1, &(3..7).into()), (0..3).into());
        assert_eq!(carries(&Kind::Concat, &inputs, 1, &(0..3).into()), Some((4..7).into()));
    }
}
