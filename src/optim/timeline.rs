//! What changes at given times of a run: learning rates, weight decays and what is trained, of all parameters or of some.

use crate::model::kind::Multipliers;

/// From a time on, something is otherwise. What an event does not say stays as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The epochs that are done by then.
    pub epoch: f64,
    /// The parameters' names, like `conv1.weight`, with `*` for any characters; `None`: it is said of the run.
    pub parameters: Option<String>,
    /// What learning rates are multiplied with. What is said of the run and of a parameter are both multiplied with.
    pub lr_mult: Option<f64>,
    /// What weight decays are multiplied with.
    pub decay_mult: Option<f64>,
    /// Whether parameters, and their velocities, stay as they are.
    pub frozen: Option<bool>,
    /// How wide random colours are, of the colours of the training set; said of the run, at the start of an epoch.
    pub colour_noise: Option<f64>,
}

/// How a parameter is trained, besides what the model says of it and what is the same for the whole run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// Of its learning rate and weight decay.
    pub multipliers: Multipliers,
    /// Whether it is trained at all.
    pub trained: bool,
}

/// The events of a run, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    events: Vec<Event>,
}

impl Timeline {
    /// These events, of which those of one time come in the order in which they are given.
    pub fn new(mut events: Vec<Event>) -> Self {
        events.sort_by(|one, other| one.epoch.total_cmp(&other.epoch));
        Self { events }
    }

    /// How many events hold when `step` steps of `per_epoch` steps an epoch are done.
    pub fn passed(&self, step: u64, per_epoch: u64) -> usize {
        self.events.partition_point(|event| event.epoch * per_epoch as f64 <= step as f64)
    }

    /// What the run's learning rate is multiplied with once so many events hold.
    pub fn rate(&self, passed: usize) -> f64 {
        last(&self.events[..passed], |event| event.lr_mult.filter(|_| event.parameters.is_none())).unwrap_or(1.0)
    }

    /// How wide random colours are once so many epochs are done, where an event says so.
    pub fn colour_noise(&self, epochs: u64) -> Option<f64> {
        last(&self.events[..self.passed(epochs, 1)], |event| event.colour_noise)
    }

    /// Whether there are ever to be random colours because an event says so.
    pub fn begins_colour_noise(&self) -> bool {
        self.events.iter().any(|event| event.colour_noise.is_some_and(|scale| scale > 0.0))
    }

    /// How a parameter is trained once so many events hold.
    pub fn of(&self, passed: usize, parameter: &str) -> Tuning {
        let held = &self.events[..passed];
        let said = |of: &dyn Fn(&Event) -> Option<f64>| {
            let by_name = |event: &Event| {
                of(event).filter(|_| event.parameters.as_deref().is_some_and(|pattern| fits(pattern, parameter)))
            };
            last(held, by_name).unwrap_or(1.0)
        };
        let of_run = last(held, |event| event.decay_mult.filter(|_| event.parameters.is_none())).unwrap_or(1.0);
        let concerns = |event: &Event| event.parameters.as_deref().is_none_or(|pattern| fits(pattern, parameter));
        let frozen = last(held, |event| event.frozen.filter(|_| concerns(event))).unwrap_or(false);
        let multipliers =
            Multipliers { rate: said(&|event| event.lr_mult), decay: of_run * said(&|event| event.decay_mult) };
        Tuning { multipliers, trained: !frozen }
    }

    /// The first pattern that fits none of these parameters.
    pub fn stray<'t>(&'t self, parameters: &[String]) -> Option<&'t str> {
        let patterns = self.events.iter().filter_map(|event| event.parameters.as_deref());
        patterns.into_iter().find(|pattern| !parameters.iter().any(|name| fits(pattern, name)))
    }
}

fn last<T>(events: &[Event], said: impl Fn(&Event) -> Option<T>) -> Option<T> {
    events.iter().rev().find_map(said)
}

/// Whether a name is what a pattern says, in which `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    let (between, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in between.split('*') {
        // Where it fits first leaves most room for what follows: no other place has to be tried.
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(epoch: f64, parameters: Option<&str>) -> Event {
        let parameters = parameters.map(str::to_owned);
        Event { epoch, parameters, lr_mult: None, decay_mult: None, frozen: None, colour_noise: None }
    }

    #[test]
    fn the_last_that_was_said_counts() {
        let timeline = Timeline::new(vec![
            Event { lr_mult: Some(0.1), ..event(2.0, None) },
            Event { lr_mult: Some(0.5), decay_mult: Some(0.0), ..event(0.0, Some("*.bias")) },
            Event { lr_mult: Some(0.01), decay_mult: Some(2.0), ..event(4.0, None) },
            Event { frozen: Some(true), ..event(2.5, Some("conv1.*")) },
            Event { frozen: Some(false), ..event(6.0, None) },
        ]);
        let passed: Vec<usize> = [0, 19, 20, 25, 40, 59, 60].map(|step| timeline.passed(step, 10)).to_vec();
        assert_eq!(passed, [1, 1, 2, 3, 4, 4, 5]);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|passed| timeline.rate(passed)), [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]);
        let of = |passed, name| {
            let Tuning { multipliers: Multipliers { rate, decay }, trained } = timeline.of(passed, name);
            (rate, decay, trained)
        };
        assert_eq!(of(0, "conv1.bias"), (1.0, 1.0, true));
        assert_eq!(of(1, "conv1.bias"), (0.5, 0.0, true));
        assert_eq!(of(3, "conv1.bias"), (0.5, 0.0, false));
        assert_eq!(of(4, "conv1.weight"), (1.0, 2.0, false));
        assert_eq!(of(4, "conv12.weight"), (1.0, 2.0, true));
        assert_eq!(of(5, "conv1.weight"), (1.0, 2.0, true));
    }

    #[test]
    fn colours_change_between_epochs() {
        let timeline = Timeline::new(vec![
            Event { colour_noise: Some(0.0), ..event(3.0, None) },
            Event { colour_noise: Some(0.1), ..event(1.0, None) },
        ]);
        let expected = [None, Some(0.1), Some(0.1), Some(0.0), Some(0.0)];
        assert_eq!([0, 1, 2, 3, 4].map(|epochs| timeline.colour_noise(epochs)), expected);
        assert!(timeline.begins_colour_noise());
        assert!(!Timeline::new(vec![Event { colour_noise: Some(0.0), ..event(3.0, None) }]).begins_colour_noise());
    }

    #[test]
    fn a_star_is_any_characters() {
        for (pattern, name, expected) in [
            ("conv1.weight", "conv1.weight", true),
            ("conv1.*", "conv1.bias", true),
            ("conv1.*", "conv12.bias", false),
            ("*.bias", "fc.6.bias", true),
            ("*", "", true),
            ("c*v*.w*", "conv2.weight", true),
            ("c*v*.w", "conv2.weight", false),
            ("", "conv1.weight", false),
            ("ab*ba", "aba", false),
            ("*a*b*a", "abba", true),
            ("*é*", "café", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
        // Trying every place for every star would not end.
        assert!(!fits(&format!("{}*b", "*a".repeat(40)), &"a".repeat(80)));
        let timeline = Timeline::new(vec![event(0.0, Some("conv1.*")), event(1.0, Some("convl.*"))]);
        assert_eq!(timeline.stray(&["conv1.weight".into()]), Some("convl.*"));
    }
}
