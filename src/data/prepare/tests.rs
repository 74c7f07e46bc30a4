//! What the network sees of an image, by hand.

use super::*;

const SHAPE: [usize; 3] = [3, 5, 6];

/// The value at (channel, row, column) is 100 channel + 10 row + column.
fn image() -> Vec<f32> {
    (0..90).map(|at| (100 * (at / 30) + 10 * (at / 6 % 5) + at % 6) as f32).collect()
}

fn prepared(preparation: &Preparation, epoch: u64, example: u64) -> Vec<f32> {
    let size: usize = preparation.shape(SHAPE).iter().product();
    let mut views = vec![0.0; size * preparation.views.count()];
    preparation.apply(7, epoch, example, SHAPE, &mut image(), &mut views);
    views
}

fn cut(views: Views) -> Preparation {
    Preparation { window: Some([3, 2]), views, ..Preparation::default() }
}

/// The window at a place, mirrored or not.
fn window(top: usize, left: usize, mirrored: bool) -> Vec<f32> {
    let mut values = Vec::new();
    for channel in 0..3 {
        for row in top..top + 3 {
            let columns = if mirrored { [left + 1, left] } else { [left, left + 1] };
            values.extend(columns.map(|column| (100 * channel + 10 * row + column) as f32));
        }
    }
    values
}

#[test]
fn the_default_changes_nothing() {
    assert_eq!(prepared(&Preparation::default(), 1, 2), image());
}

#[test]
fn an_evaluation_sees_the_centre() {
    assert_eq!(prepared(&cut(Views::Centre), 3, 4), window(1, 2, false));
}

#[test]
fn ten_views_are_corners_and_centre_and_their_mirror_images() {
    let places = [(0, 0), (0, 4), (2, 0), (2, 4), (1, 2)];
    let expected: Vec<f32> = [false, true]
        .into_iter()
        .flat_map(|mirrored| places.into_iter().flat_map(move |(top, left)| window(top, left, mirrored)))
        .collect();
    assert_eq!(prepared(&cut(Views::Ten), 0, 0), expected);
}

#[test]
fn random_windows_reach_every_place_and_are_drawn_as_documented() {
    let mut seen = std::collections::BTreeSet::new();
    for example in 0..300 {
        let stream = Stream::new(7, Purpose::Augment, 1, 2);
        let top = (stream.uniform(4 * example) * 3.0) as usize;
        let left = (stream.uniform(4 * example + 1) * 5.0) as usize;
        seen.insert((top, left));
        assert_eq!(prepared(&cut(Views::Random), 2, example), window(top, left, false));
    }
    assert_eq!(seen.len(), 15);
    assert_ne!(prepared(&cut(Views::Random), 2, 0), prepared(&cut(Views::Random), 3, 0), "epochs repeat");
}

#[test]
fn the_mean_is_taken_away_where_the_image_lies_and_channels_are_multiplied() {
    let whole = Preparation { mean: Some(image().into()), ..cut(Views::Random) };
    assert_eq!(prepared(&whole, 0, 5), vec![0.0; 18]);
    let mirrored = Preparation { augmentation: Augmentation { flip: true, crop: 0 }, ..whole };
    assert!((0..20).all(|example| prepared(&mirrored, 0, example) == vec![0.0; 18]), "the mean before the flip");
    let by_channel = Preparation {
        mean: Some([0.0, 100.0, 200.0].into()),
        factor: Some([1.0, 0.5, 0.25].into()),
        ..cut(Views::Centre)
    };
    let expected: Vec<f32> = window(1, 2, false)
        .iter()
        .enumerate()
        .map(|(at, value)| (value - 100.0 * (at / 6) as f32) / [1.0, 2.0, 4.0][at / 6])
        .collect();
    assert_eq!(prepared(&by_channel, 0, 0), expected);
}

#[test]
fn colours_are_drawn_along_the_axes_and_added_before_channels_are_multiplied() {
    let noise = ColourNoise { scale: 0.1, axes: [[3.0, 0.0, 0.0], [0.0, 2.0, 2.0], [0.0, 1.0, -1.0]] };
    let preparation = Preparation { colour: Some(noise), factor: Some([0.5; 3].into()), ..Preparation::default() };
    let stream = Stream::new(7, Purpose::Augment, 2, 1);
    let draws = [12, 13, 14].map(|index| stream.normal(index));
    let added = [0.3 * draws[0], 0.2 * draws[1] + 0.1 * draws[2], 0.2 * draws[1] - 0.1 * draws[2]];
    for (at, (found, stored)) in prepared(&preparation, 1, 3).iter().zip(image()).enumerate() {
        let expected = (f64::from(stored) + added[at / 30]) / 2.0;
        assert!((f64::from(*found) - expected).abs() < 1e-4, "{found} in place of {expected}");
    }
    let mut draws: Vec<f32> = (0..4000).map(|example| noise.draw(1, 0, example)[0]).collect();
    let mean = draws.iter().sum::<f32>() / 4000.0;
    draws.iter_mut().for_each(|draw| *draw = (*draw - mean).powi(2));
    let deviation = (draws.iter().sum::<f32>() / 4000.0).sqrt();
    assert!(mean.abs() < 0.02 && (0.28..0.32).contains(&deviation), "{mean} {deviation}");
}
