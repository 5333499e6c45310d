//! The settings that topics need, and how those of a topic that exists differ from them.

use std::collections::BTreeMap;

/// The limit of a message: 17 MiB, for the largest record with its headers.
pub(super) const MAX_MESSAGE_BYTES: &str = "17825792";
/// A lower limit with which a topic still works: 8 MiB, the highest one of some services. A larger batch of records is
/// refused by the brokers, which its caller sees.
const USABLE_MESSAGE_BYTES: i64 = 8 << 20;

/// What a topic is used for, which decides about its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicUse {
    /// An event log that other producers may write too.
    Events,
    /// An event log that only Throng writes, such as the feed of frames.
    Frames,
    /// A [`KafkaTable`](crate::KafkaTable).
    Table,
    /// A [`KafkaQueue`](crate::KafkaQueue).
    Queue,
}

/// Which values of a setting that exists are as good as the one with which Throng creates a topic.
#[derive(Debug, Clone, Copy)]
enum Accepts {
    /// All: it decides about resources only.
    Any,
    /// This one.
    Same,
    /// Numbers that are not smaller, and negative ones: no limit.
    AtLeast,
    /// Numbers that are not greater.
    AtMost,
    /// A list without `compact`.
    NotCompacted,
}

/// A setting of a topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// Kafka's name, such as `retention.ms`.
    pub(super) name: &'static str,
    /// The value with which a topic is created.
    pub(super) value: &'static str,
    accepts: Accepts,
    /// Whether events or budgets would be wrong with another value.
    is_required: bool,
    /// From this number on another value is a warning, although the setting is required.
    usable_from: Option<i64>,
}

impl Setting {
    const fn required(name: &'static str, value: &'static str, accepts: Accepts) -> Self {
        Self { name, value, accepts, is_required: true, usable_from: None }
    }

    const fn preferred(name: &'static str, value: &'static str, accepts: Accepts) -> Self {
        Self { name, value, accepts, is_required: false, usable_from: None }
    }

    fn is_accepted(&self, found: &str) -> bool {
        let compared = || Some((found.parse::<i64>().ok()?, self.value.parse::<i64>().ok()?));
        match self.accepts {
            Accepts::Any => true,
            Accepts::Same => found == self.value,
            Accepts::AtLeast => {
                compared().is_some_and(|(found, needed)| found < 0 || found >= needed)
            }
            Accepts::AtMost => compared().is_some_and(|(found, needed)| found <= needed),
            Accepts::NotCompacted => found.split(',').all(|policy| policy.trim() != "compact"),
        }
    }

    /// Whether a topic cannot be used with a value that is not accepted.
    fn is_refused(&self, found: &str) -> bool {
        let is_usable = |least: i64| found.parse::<i64>().is_ok_and(|found| found >= least);
        self.is_required && !self.usable_from.is_some_and(is_usable)
    }

    /// What is needed at least, for a message.
    fn least(&self) -> String {
        self.usable_from.map_or_else(|| self.needed(), |least| format!("at least {least}"))
    }

    /// What should be, for a message.
    fn needed(&self) -> String {
        match self.accepts {
            Accepts::Any | Accepts::Same | Accepts::NotCompacted => self.value.to_owned(),
            Accepts::AtLeast => format!("at least {}", self.value),
            Accepts::AtMost => format!("at most {}", self.value),
        }
    }
}

/// The brokers refuse records without a key in a compacted topic, and delete all but one of those with the same key.
const NOT_COMPACTED: Setting = Setting::required("cleanup.policy", "delete", Accepts::NotCompacted);
const LARGE_MESSAGES: Setting = Setting {
    usable_from: Some(USABLE_MESSAGE_BYTES),
    ..Setting::required("max.message.bytes", MAX_MESSAGE_BYTES, Accepts::AtLeast)
};
/// The brokers' time. With that of a producer, a record with a time in the past would be deleted at once by
/// `retention.ms`, and an event without the header of its time would be rejected as too old.
const BROKERS_TIME: (&str, &str) = ("message.timestamp.type", "LogAppendTime");
const WEEK: Setting = Setting::preferred("retention.ms", "604800000", Accepts::AtLeast);
/// A broker's default may compress again what producers have compressed.
const AS_PRODUCED: Setting = Setting::preferred("compression.type", "producer", Accepts::Any);

const EVENTS: &[Setting] = &[
    NOT_COMPACTED,
    LARGE_MESSAGES,
    Setting::required(BROKERS_TIME.0, BROKERS_TIME.1, Accepts::Same),
    WEEK,
    AS_PRODUCED,
];
const FRAMES: &[Setting] = &[
    NOT_COMPACTED,
    LARGE_MESSAGES,
    // Every frame has the header of its time.
    Setting::preferred(BROKERS_TIME.0, BROKERS_TIME.1, Accepts::Same),
    WEEK,
    AS_PRODUCED,
];
const TABLE: &[Setting] = &[
    // With `delete` too, the latest value of a key would be deleted.
    Setting::required("cleanup.policy", "compact", Accepts::Same),
    LARGE_MESSAGES,
    // Only closed segments are compacted, and a read reads the whole topic.
    Setting::preferred("segment.ms", "600000", Accepts::AtMost),
    Setting::preferred("min.cleanable.dirty.ratio", "0.1", Accepts::Any),
];
const QUEUE: &[Setting] = &[
    Setting::preferred("cleanup.policy", "delete", Accepts::NotCompacted),
    Setting::preferred(BROKERS_TIME.0, BROKERS_TIME.1, Accepts::Same),
    // A message that old was put on the queue again long ago.
    Setting::preferred("retention.ms", "86400000", Accepts::AtLeast),
];

/// The configuration of a topic: it is created with it, and compared with it if it exists.
#[derive(Debug, Clone, Copy)]
pub(super) struct TopicSettings {
    usage: TopicUse,
    /// The number of partitions, at least 1.
    pub(super) partitions: u32,
}

/// How an existing topic differs from what its use needs. Empty if it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicDifferences {
    /// With these, events or budgets would be wrong: a node does not start. Each with the setting, what was found
    /// and what is needed.
    pub refused: Vec<String>,
    /// With these, a node works.
    pub warnings: Vec<String>,
    /// What corrects all of them, as a sentence without its full stop; empty if there are none.
    pub help: String,
}

impl TopicSettings {
    pub(super) fn new(usage: TopicUse, partitions: u32) -> Self {
        Self { usage, partitions: partitions.max(1) }
    }

    pub(super) fn settings(&self) -> &'static [Setting] {
        match self.usage {
            TopicUse::Events => EVENTS,
            TopicUse::Frames => FRAMES,
            TopicUse::Table => TABLE,
            TopicUse::Queue => QUEUE,
        }
    }

    /// Compares a topic with the number of partitions and the settings that the brokers show; `None`: they do not show
    /// them to this user.
    pub(super) fn compare(
        &self,
        brokers: &str,
        topic: &str,
        partitions: u32,
        found: Option<&BTreeMap<String, String>>,
    ) -> TopicDifferences {
        let mut differences = TopicDifferences::default();
        let mut help = Vec::new();
        let needed = self.partitions;
        let tool = |name: &str| format!("{name} --bootstrap-server {brokers}");
        match self.usage {
            // The topic decides about the partitions of events, and its feed is compared with it elsewhere. Of a table
            // only the first partition is written and read.
            TopicUse::Events | TopicUse::Frames | TopicUse::Table => {}
            TopicUse::Queue if partitions >= needed => {}
            TopicUse::Queue => {
                let needed_text = format!("at least {needed}");
                differences.warnings.push(should_be(
                    "partitions",
                    &partitions.to_string(),
                    &needed_text,
                ));
                let alter = tool("kafka-topics.sh");
                help.push(format!("run `{alter} --alter --topic {topic} --partitions {needed}`"));
            }
        }
        let mut values = Vec::new();
        match found {
            Some(found) => {
                for setting in self.settings() {
                    let Some(value) = found.get(setting.name) else { continue };
                    if setting.is_accepted(value) {
                        continue;
                    }
                    values.push(format!("{}={}", setting.name, setting.value));
                    match setting.is_refused(value) {
                        true => {
                            let text = must_be(setting.name, value, &setting.least());
                            differences.refused.push(text);
                        }
                        false => {
                            let text = should_be(setting.name, value, &setting.needed());
                            differences.warnings.push(text);
                        }
                    }
                }
            }
            None => {
                let text =
                    "the brokers do not show its settings to this user, so they are not compared";
                differences.warnings.push(text.to_owned());
                help.push("grant the user DescribeConfigs on the topic".to_owned());
            }
        }
        if !values.is_empty() {
            let (alter, values) = (tool("kafka-configs.sh"), values.join(","));
            help.push(format!(
                "run `{alter} --alter --entity-type topics --entity-name {topic} --add-config {values}`"
            ));
        }
        differences.help = help.join(", and ");
        differences
    }
}

fn must_be(name: &str, found: &str, needed: &str) -> String {
    format!("{name} is {found} and must be {needed}")
}

fn should_be(name: &str, found: &str, needed: &str) -> String {
    format!("{name} is {found} and should be {needed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings with which Throng creates a topic, with changes.
    fn described(wanted: &TopicSettings, changed: &[(&str, &str)]) -> BTreeMap<String, String> {
        let created = wanted.settings().iter().map(|setting| (setting.name, setting.value));
        let all = created.chain(changed.iter().copied());
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn compared(usage: TopicUse, partitions: u32, changed: &[(&str, &str)]) -> TopicDifferences {
        let wanted = TopicSettings::new(usage, if usage == TopicUse::Queue { 64 } else { 1 });
        let found = described(&wanted, changed);
        wanted.compare("kafka:9092", "throng.t", partitions, Some(&found))
    }

    #[test]
    fn topics_that_throng_created_have_no_differences() {
        for usage in [TopicUse::Events, TopicUse::Frames] {
            for partitions in [1, 4, 64] {
                let found = compared(usage, partitions, &[]);
                assert_eq!(found, TopicDifferences::default(), "{usage:?}");
            }
        }
        assert_eq!(compared(TopicUse::Table, 1, &[]), TopicDifferences::default());
        assert_eq!(compared(TopicUse::Queue, 64, &[]), TopicDifferences::default());
        assert_eq!(compared(TopicUse::Queue, 128, &[]), TopicDifferences::default());
        let larger = [("max.message.bytes", "20000000"), ("retention.ms", "-1")];
        assert_eq!(compared(TopicUse::Events, 4, &larger), TopicDifferences::default());
        // Lists may be empty since Kafka 4.
        let kept = [("cleanup.policy", ""), ("compression.type", "zstd")];
        assert_eq!(compared(TopicUse::Events, 4, &kept), TopicDifferences::default());
    }

    #[test]
    fn settings_with_which_events_would_be_wrong_are_refused_with_a_command() {
        let defaults = [
            ("cleanup.policy", "delete"),
            ("max.message.bytes", "1048588"),
            ("message.timestamp.type", "CreateTime"),
            ("segment.ms", "604800000"),
        ];
        let events = compared(TopicUse::Events, 4, &defaults);
        assert_eq!(
            events.refused,
            [
                "max.message.bytes is 1048588 and must be at least 8388608",
                "message.timestamp.type is CreateTime and must be LogAppendTime"
            ]
        );
        assert!(events.warnings.is_empty(), "{events:?}");
        assert_eq!(
            events.help,
            "run `kafka-configs.sh --bootstrap-server kafka:9092 --alter --entity-type topics --entity-name throng.t \
             --add-config max.message.bytes=17825792,message.timestamp.type=LogAppendTime`"
        );
        let frames = compared(TopicUse::Frames, 4, &defaults);
        assert_eq!(frames.refused.len(), 1, "{frames:?}");
        assert_eq!(frames.warnings.len(), 1, "{frames:?}");
        let table = compared(TopicUse::Table, 1, &defaults);
        assert_eq!(table.refused[0], "cleanup.policy is delete and must be compact");
        assert_eq!(table.refused.len(), 2, "{table:?}");
        assert_eq!(table.warnings, ["segment.ms is 604800000 and should be at most 600000"]);
        for policy in ["compact", "delete,compact", "compact, delete"] {
            let events = compared(TopicUse::Events, 4, &[("cleanup.policy", policy)]);
            assert_eq!(events.refused.len(), 1, "{policy}");
            let table = compared(TopicUse::Table, 1, &[("cleanup.policy", policy)]);
            assert_eq!(table.refused.is_empty(), policy == "compact", "{policy}");
        }
    }

    #[test]
    fn a_table_may_have_more_partitions_than_the_one_that_is_used() {
        assert_eq!(compared(TopicUse::Table, 4, &[]), TopicDifferences::default());
    }

    #[test]
    fn the_highest_limit_of_services_for_messages_is_a_warning() {
        for usage in [TopicUse::Events, TopicUse::Frames, TopicUse::Table] {
            let limited = compared(usage, 1, &[("max.message.bytes", "8388608")]);
            assert!(limited.refused.is_empty(), "{limited:?}");
            let text = "max.message.bytes is 8388608 and should be at least 17825792";
            assert_eq!(limited.warnings, [text]);
            let lower = compared(usage, 1, &[("max.message.bytes", "8388607")]);
            assert_eq!(lower.refused.len(), 1, "{lower:?}");
        }
    }

    #[test]
    fn other_differences_are_warnings() {
        let short = compared(TopicUse::Events, 4, &[("retention.ms", "3600000")]);
        assert!(short.refused.is_empty(), "{short:?}");
        assert_eq!(short.warnings, ["retention.ms is 3600000 and should be at least 604800000"]);
        let time = [("message.timestamp.type", "CreateTime")];
        let few = compared(TopicUse::Queue, 4, &time);
        assert!(few.refused.is_empty(), "{few:?}");
        assert_eq!(few.warnings[0], "partitions is 4 and should be at least 64");
        assert!(few.help.contains("--partitions 64`, and run `kafka-configs.sh"), "{few:?}");
        let hidden = TopicSettings::new(TopicUse::Events, 4).compare("k:1", "throng.t", 4, None);
        assert!(hidden.refused.is_empty() && hidden.warnings.len() == 1, "{hidden:?}");
        assert!(hidden.help.contains("DescribeConfigs"), "{hidden:?}");
    }
}
