//! Random numbers that are a function of what they are for, so that a seed gives the same run whatever the threads do.

/// A number drawn for `key`: the same key gives the same number.
///
/// Each word goes through the finalizer of SplitMix64, which spreads neighbouring keys over all 64 bits.
pub fn draw(key: &[u64]) -> u64 {
    key.iter().fold(0x9E37_79B9_7F4A_7C15, |state, &word| {
        let mixed = (state ^ word).wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    })
}

/// What a number is drawn for, so that two purposes with the same key do not give the same number.
#[derive(Clone, Copy)]
pub enum Purpose {
    /// How long a stream waits before an operation.
    Delay = 1,
    /// How often a communicator must be polled.
    Polls = 2,
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn the_same_key_gives_the_same_number_and_another_key_another() {
        assert_eq!(draw(&[1, 2, 3]), draw(&[1, 2, 3]));
        assert_ne!(draw(&[1, 2, 3]), draw(&[1, 2, 4]));
        assert_ne!(draw(&[1, 2, 3]), draw(&[2, 1, 3]));
        assert_ne!(draw(&[0]), draw(&[0, 0]));
    }

    #[test]
    fn neighbouring_keys_fill_the_range() {
        let mut seen = [false; 16];
        for number in 0..256 {
            seen[(draw(&[7, number]) % 16) as usize] = true;
        }
        assert!(seen.iter().all(|&was| was));
    }
}
