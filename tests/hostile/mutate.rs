//! Changes to an input, drawn from a counter: the same seed gives the same inputs on any machine.

/// Longer inputs are cut.
const LONGEST: usize = 64 << 10;
/// The most changes at once.
const MOST_CHANGES: u64 = 4;
/// The most times that a piece is repeated.
const MOST_TIMES: usize = 4096;
/// Bytes at borders.
const BYTES: [u8; 8] = [0, 1, 0x0a, 0x20, 0x7f, 0x80, 0xfe, 0xff];
/// Lengths and offsets at borders.
const NUMBERS: [u64; 10] = [0, 1, 0x7f, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, i64::MAX as u64, 1 << 63, u64::MAX];
/// The same as text.
const NUMERALS: [&str; 10] = [
    "0",
    "-1",
    "255",
    "4294967295",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "1e999",
    "1e-320",
    "0.1",
];

/// SplitMix64 (G. L. Steele, D. Lea and C. H. Flood, 2014).
pub struct Draws(pub u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> Option<&'a T> {
        if of.is_empty() { None } else { Some(of[self.below(of.len())]) }
    }
}

/// One of the seeds, changed in a few places.
pub fn mutated(draws: &mut Draws, seeds: &[Vec<u8>], tokens: &[&str]) -> Vec<u8> {
    let mut input = seeds[draws.below(seeds.len())].clone();
    for _ in 0..=draws.next() % MOST_CHANGES {
        change(draws, &mut input, seeds, tokens);
        input.truncate(LONGEST);
    }
    input
}

fn change(draws: &mut Draws, input: &mut Vec<u8>, seeds: &[Vec<u8>], tokens: &[&str]) {
    let at = draws.below(input.len() + 1);
    let length = draws.below(64.min(input.len() - at) + 1);
    match draws.below(11) {
        0 => flip(draws, input),
        1 => {
            let byte = BYTES[draws.below(BYTES.len())];
            input.splice(at..(at + 1).min(input.len()), [byte]);
        }
        2 => input.truncate(at),
        3 => drop(input.drain(at..at + length)),
        4 => {
            let piece = input[at..at + length].to_vec();
            input.splice(at..at, piece);
        }
        5 => {
            let piece = &input[at..at + length.min(16)];
            let piece = piece.repeat(draws.below(MOST_TIMES));
            input.splice(at..at, piece);
        }
        6 | 7 => {
            let token = draws.one(tokens).unwrap_or_default();
            input.splice(at..at + length, token.bytes());
        }
        8 => {
            let other = &seeds[draws.below(seeds.len())];
            input.truncate(at);
            input.extend(&other[draws.below(other.len())..]);
        }
        9 => number(draws, input, at),
        _ => numeral(draws, input, at),
    }
}

fn flip(draws: &mut Draws, input: &mut [u8]) {
    let at = draws.below(input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << draws.below(8);
    }
}

/// Writes a number at a border, of four or eight bytes, in either order.
fn number(draws: &mut Draws, input: &mut Vec<u8>, at: usize) {
    // Where formats have their lengths.
    let at = if draws.below(2) == 0 { at } else { draws.below(5) * 4 };
    let number = NUMBERS[draws.below(NUMBERS.len())];
    let bytes = match draws.below(4) {
        0 => number.to_le_bytes().to_vec(),
        1 => number.to_be_bytes().to_vec(),
        2 => (number as u32).to_le_bytes().to_vec(),
        _ => (number as u32).to_be_bytes().to_vec(),
    };
    let begin = at.min(input.len());
    let end = (begin + bytes.len()).min(input.len());
    input.splice(begin..end, bytes);
}

/// Writes another number in the place of the next one in a text.
fn numeral(draws: &mut Draws, input: &mut Vec<u8>, at: usize) {
    let Some(begin) = input[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
    let digits = input[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    input.splice(begin..begin + digits, NUMERALS[draws.below(NUMERALS.len())].bytes());
}
