//! Counter-based random numbers: every draw is a pure function of what it is for, never of what was drawn before.
//!
//! A draw depends on (seed, purpose, layer, time, index) alone, so any device can make any part of any sequence, and
//! a split or resumed run draws what the whole run draws. The generator is Philox4x32-10 (J. K. Salmon, M. A. Moraes,
//! R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): 128 counter bits and 64 key
//! bits give a block of four 32-bit words.
//!
//! # The exact layout
//!
//! Word `i` of a stream is lane `i % 4` of block `b = i / 4`. All numbers below are unsigned:
//!
//! ```text
//! key[0]     = seed & 0xffffffff              key[1]     = seed >> 32
//! counter[0] = b & 0xffffffff                 counter[1] = time & 0xffffffff
//! counter[2] = purpose << 24 | layer          counter[3] = (b >> 32) << 16 | time >> 32
//! ```
//!
//! with layer < 2^24, time < 2^48 and b < 2^48; [`Purpose`] gives the purposes' numbers. One round takes the counter
//! (c0, c1, c2, c3) and the key (k0, k1) to
//!
//! ```text
//! (hi(0xcd9e8d57 * c2) ^ c1 ^ k0,  lo(0xcd9e8d57 * c2),  hi(0xd2511f53 * c0) ^ c3 ^ k1,  lo(0xd2511f53 * c0))
//! ```
//!
//! where hi and lo are the halves of the 64-bit product. There are ten rounds; between two rounds the key grows by
//! (0x9e3779b9, 0xbb67ae85), each word modulo 2^32.
//!
//! # From words to numbers, in 64-bit floating point
//!
//! * uniform: `u(i) = (word(i) + 0.5) / 2^32`, exact, and strictly between 0 and 1;
//! * normal, of mean 0 and variance 1 (Box and Muller, 1958): with `j = 2 * (i / 2)`, `r = sqrt(-2 ln u(j))` and
//!   `a = 2 pi u(j + 1)`, it is `r cos(a)` where `i` is even and `r sin(a)` where it is odd;
//! * permutation of n: the indices 0..n in the order of their keys `word(2 i) << 32 | word(2 i + 1)`, equal keys by
//!   index.

use std::f64::consts::TAU;

/// What a draw is for. Draws for different purposes never meet, whatever their layers, times and indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights: layer; index is the element's position in the whole layer's weight.
    Weights = 1,
    /// Initial biases: layer; index is the element's position in the whole layer's bias.
    Biases = 2,
    /// Dropout masks: layer; time is the step; index is the position in the global batch times features, plus feature.
    Dropout = 3,
    /// The order of the examples: time is the epoch.
    Shuffle = 4,
    /// Random changes to images: time is the epoch; index begins at four times the example's index in the data set.
    Augment = 5,
    /// Made-up data: see [`crate::data::synthetic`].
    Synthetic = 6,
    /// Vectors that a parameter is multiplied with to compare it with another program's, without its values: layer;
    /// time is 2 n + 1 for vector n of the layer's bias and 2 n for that of its weight; see `scripts/parity_steps`.
    Probe = 7,
}

/// Blocks that a bulk fill computes side by side: enough independent work to fill the processor's vector units.
const WIDE: usize = 8;

/// An endless sequence of draws, addressed by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    /// The counter of block 0.
    counter: [u32; 4],
}

impl Stream {
    /// The stream of `seed` for one purpose, `layer` (below 2^24) and `time` (a step or an epoch, below 2^48). What a
    /// purpose has no use for is 0.
    pub fn new(seed: u64, purpose: Purpose, layer: u32, time: u64) -> Self {
        debug_assert!(layer < 1 << 24, "layer {layer} would run into the purpose");
        debug_assert!(time < 1 << 48, "time {time} would run into the block");
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [0, time as u32, (purpose as u32) << 24 | layer, (time >> 32) as u32],
        }
    }

    /// The 32 random bits of draw `index` (below 2^50).
    pub fn word(&self, index: u64) -> u32 {
        self.blocks::<1>(index / 4)[0][(index % 4) as usize]
    }

    /// Draw `index`, uniform in the open interval (0, 1).
    pub fn uniform(&self, index: u64) -> f64 {
        uniform(self.word(index))
    }

    /// Draw `index`, normal with mean 0 and variance 1.
    pub fn normal(&self, index: u64) -> f64 {
        let even = index & !1;
        let [cosine, sine] = box_muller(self.uniform(even), self.uniform(even + 1));
        if index == even { cosine } else { sine }
    }

    /// Sets `out[k]` to `convert(word(first + k))`, each block computed once.
    pub fn fill<T>(&self, first: u64, out: &mut [T], convert: impl Fn(u32) -> T) {
        let lane = (first % 4) as usize;
        let (head, body) = out.split_at_mut(out.len().min((4 - lane) % 4));
        let write = |slots: &mut [T], words: &[u32]| {
            for (slot, &word) in slots.iter_mut().zip(words) {
                *slot = convert(word);
            }
        };
        if !head.is_empty() {
            write(head, &self.blocks::<1>(first / 4)[0][lane..]);
        }
        let mut block = first.div_ceil(4);
        let mut wide = body.chunks_exact_mut(4 * WIDE);
        for chunk in &mut wide {
            write(chunk, self.blocks::<WIDE>(block).as_flattened());
            block += WIDE as u64;
        }
        for chunk in wide.into_remainder().chunks_mut(4) {
            write(chunk, &self.blocks::<1>(block)[0]);
            block += 1;
        }
    }

    /// Sets `out[k]` to `uniform(first + k)`.
    pub fn fill_uniform(&self, first: u64, out: &mut [f64]) {
        self.fill(first, out, uniform);
    }

    /// Sets `out[k]` to `normal(first + k)`.
    pub fn fill_normal(&self, first: u64, out: &mut [f64]) {
        // An odd start or end cuts a pair in two: that half alone is drawn by itself.
        let (head, body) = out.split_at_mut(out.len().min((first % 2) as usize));
        for slot in head {
            *slot = self.normal(first);
        }
        let start = first.next_multiple_of(2);
        let last = start + (body.len() as u64).saturating_sub(1);
        self.fill_uniform(start, body);
        let mut pairs = body.chunks_exact_mut(2);
        for pair in &mut pairs {
            pair.copy_from_slice(&box_muller(pair[0], pair[1]));
        }
        for slot in pairs.into_remainder() {
            *slot = self.normal(last);
        }
    }

    /// A random permutation of `0..n`.
    pub fn permutation(&self, n: u32) -> Vec<u32> {
        let mut words = vec![0; 2 * n as usize];
        self.fill(0, &mut words, |word| word);
        // With the index as the last part of the key no two keys are equal, so an unstable sort is stable.
        let mut keyed: Vec<(u32, u32, u32)> =
            words.chunks_exact(2).zip(0..n).map(|(key, i)| (key[0], key[1], i)).collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, _, index)| index).collect()
    }

    /// The `N` blocks that begin with block `first`.
    fn blocks<const N: usize>(&self, first: u64) -> [[u32; 4]; N] {
        debug_assert!(first + N as u64 <= 1 << 48, "block {first} would run into the time");
        let mut counters = self.counter.map(|word| [word; N]);
        for (n, block) in (first..).take(N).enumerate() {
            counters[0][n] = block as u32;
            counters[3][n] |= (block >> 32 << 16) as u32;
        }
        let lanes = philox(counters, self.key);
        std::array::from_fn(|n| [lanes[0][n], lanes[1][n], lanes[2][n], lanes[3][n]])
    }
}

/// Philox4x32-10 of `N` counters: `counters[w][n]` is word w of counter n. Words first, so that each line of a round
/// is one operation on `N` numbers and compiles to vector instructions.
fn philox<const N: usize>(mut counters: [[u32; N]; 4], mut key: [u32; 2]) -> [[u32; N]; 4] {
    for _ in 0..10 {
        let [c0, c1, c2, c3] = counters;
        for n in 0..N {
            let (first, second) = (0xd251_1f53 * u64::from(c0[n]), 0xcd9e_8d57 * u64::from(c2[n]));
            counters[0][n] = (second >> 32) as u32 ^ c1[n] ^ key[0];
            counters[1][n] = second as u32;
            counters[2][n] = (first >> 32) as u32 ^ c3[n] ^ key[1];
            counters[3][n] = first as u32;
        }
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counters
}

/// A word as a number in the open interval (0, 1).
pub fn uniform(word: u32) -> f64 {
    (f64::from(word) + 0.5) / 4_294_967_296.0
}

/// Two independent normal numbers from two uniform ones.
fn box_muller(radius: f64, angle: f64) -> [f64; 2] {
    let radius = (-2.0 * radius.ln()).sqrt();
    let (sine, cosine) = (TAU * angle).sin_cos();
    [radius * cosine, radius * sine]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PURPOSES: [Purpose; 7] = [
        Purpose::Weights,
        Purpose::Biases,
        Purpose::Dropout,
        Purpose::Shuffle,
        Purpose::Augment,
        Purpose::Synthetic,
        Purpose::Probe,
    ];

    /// The three `philox4x32 10` lines of Random123's `tests/kat_vectors`: counter, key, answer.
    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        let known = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, answer) in known {
            assert_eq!(philox(counter.map(|word| [word]), key), answer.map(|word: u32| [word]));
            assert_eq!(philox(counter.map(|word| [word; WIDE]), key), answer.map(|word| [word; WIDE]));
        }
    }

    /// The expected values are those of a Python program written from the module's documentation alone.
    #[test]
    fn streams_are_laid_out_as_documented() {
        let stream = Stream::new(0x0123_4567_89ab_cdef, Purpose::Dropout, 7, 0x1234_5678_9abc);
        let expected = [
            (0, 0x556e_a132, 0.33371932490263134, -0.6397168093600064),
            (1, 0xadcf_0107, 0.6789398806868121, -1.336290526649744),
            (2, 0xa2ba_677c, 0.635656803031452, 0.7874876631769839),
            (3, 0xe7b1_1b1c, 0.9050461716251448, -0.5348421623904389),
            (4, 0xdd0b_7b68, 0.8634564523817971, -0.0011369493228199736),
            ((1 << 35) + 2, 0xc218_f534, 0.7581933262990788, 0.3895190079482875),
        ];
        for (index, word, uniform, normal) in expected {
            assert_eq!(stream.word(index), word, "word {index}");
            assert_eq!(stream.uniform(index), uniform, "uniform {index}");
            assert!((stream.normal(index) - normal).abs() < 1e-14, "normal {index}");
        }
        assert_eq!(Stream::new(1, Purpose::Shuffle, 0, 2).permutation(10), [9, 7, 4, 8, 1, 3, 6, 0, 5, 2]);
        assert_eq!(PURPOSES.map(|purpose| purpose as u32), [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn every_part_of_the_key_makes_another_stream() {
        let mut counters: Vec<_> = PURPOSES.map(|purpose| Stream::new(1, purpose, 0, 0)).to_vec();
        for (seed, layer, time) in
            [(2, 0, 0), (1 << 32 | 1, 0, 0), (1, 1, 0), (1, 1 << 23, 0), (1, 0, 1), (1, 0, 1 << 32)]
        {
            counters.push(Stream::new(seed, Purpose::Weights, layer, time));
        }
        // Block 2^32 of a stream differs from its block 0 and from another time.
        let mut words: Vec<u32> = counters.iter().flat_map(|stream| [stream.word(0), stream.word(1 << 34)]).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 2 * counters.len());
    }

    #[test]
    fn uniform_stays_inside_the_open_interval() {
        assert_eq!(uniform(0), 0.5 / 4_294_967_296.0);
        assert_eq!(uniform(u32::MAX), 1.0 - 0.5 / 4_294_967_296.0);
    }

    #[test]
    fn normal_draws_have_the_moments_of_the_normal_distribution() {
        let mut draws = vec![0.0; 100_000];
        Stream::new(1, Purpose::Weights, 0, 0).fill_normal(0, &mut draws);
        let moment = |power| draws.iter().map(|draw: &f64| draw.powi(power)).sum::<f64>() / draws.len() as f64;
        for (power, expected, bound) in [(1, 0.0, 0.015), (2, 1.0, 0.02), (3, 0.0, 0.05), (4, 3.0, 0.15)] {
            assert!((moment(power) - expected).abs() < bound, "moment {power} is {}", moment(power));
        }
    }

    proptest! {
        #[test]
        fn bulk_fills_equal_single_draws(seed: u64, first in 0u64..1 << 40, offset in 0u64..8, length in 0usize..100) {
            let stream = Stream::new(seed, Purpose::Weights, 3, 5);
            let first = first + offset;
            let (mut words, mut uniforms, mut normals) = (vec![0; length], vec![0.0; length], vec![0.0; length]);
            stream.fill(first, &mut words, |word| word);
            stream.fill_uniform(first, &mut uniforms);
            stream.fill_normal(first, &mut normals);
            for (k, index) in (first..).take(length).enumerate() {
                prop_assert_eq!(words[k], stream.word(index));
                prop_assert_eq!(uniforms[k], stream.uniform(index));
                prop_assert_eq!(normals[k], stream.normal(index));
            }
        }

        #[test]
        fn a_permutation_holds_every_index_once_in_the_order_of_the_keys(seed: u64, n in 0u32..500) {
            let stream = Stream::new(seed, Purpose::Shuffle, 0, 0);
            let permutation = stream.permutation(n);
            let key = |index: u32| (stream.word(2 * u64::from(index)), stream.word(2 * u64::from(index) + 1), index);
            prop_assert!(permutation.is_sorted_by_key(|&index| key(index)));
            let mut sorted = permutation;
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..n).collect::<Vec<_>>());
        }
    }
}
