//! What a run does, from its seed: every request and every answer, by number.
//!
//! Client and provider live in two processes and read the same script: the request's number travels in its
//! body. It must never use randomness or the clock. Start reading in [`Ask::of`], then [`Act::of`].

use crate::dialect::Dialect;
use tierway::domain::random::RandomValue;

/// Largest ceiling of output that is asked for, and that the models have.
pub const CEILING: u64 = 60;

/// One request.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Its number.
    pub tag: u64,
    /// Whose, by its place in [`KEYS`](crate::fixture::KEYS).
    pub key: usize,
    pub dialect: Dialect,
    /// Whether the dearer of the two models is asked.
    pub large: bool,
    pub stream: bool,
    pub max_tokens: u64,
    pub spelling: Spelling,
    /// Letters in the message.
    pub letters: usize,
    /// The client disconnects after so many bytes of the answer, or after a silence.
    pub leaves_after: Option<usize>,
}

/// What a body says of its ceiling. In chat, each of the two providers reads one of the names alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spelling {
    /// `max_tokens`
    Old,
    /// `max_completion_tokens`
    New,
    /// The ceiling by the one, and another one by the other.
    Both {
        new_is_first: bool,
        other: u64,
    },
    Null,
    Zero,
    Absent,
    /// Above what the model writes.
    Above,
}

/// What a provider writes at most that reads no ceiling, or a higher one.
pub const UNLIMITED: u64 = 5 * CEILING;

impl Spelling {
    fn of(draw: RandomValue) -> Self {
        match draw.salted(0).below(100) {
            0..40 => Self::Old,
            40..55 => Self::New,
            55..65 => {
                Self::Both { new_is_first: draw.salted(1).below(2) == 0, other: 1 + draw.salted(2).below(2 * CEILING) }
            }
            65..72 => Self::Null,
            72..79 => Self::Zero,
            79..90 => Self::Absent,
            _ => Self::Above,
        }
    }

    /// The same where a dialect has one name for it, and one that must have a ceiling has one.
    fn in_dialect(self, dialect: Dialect) -> Self {
        match (dialect, self) {
            (Dialect::Chat, any) => any,
            (_, Self::Above) => Self::Above,
            (Dialect::Responses, Self::Null | Self::Absent) => self,
            _ => Self::Old,
        }
    }

    /// Its members of the body.
    fn members(self, dialect: Dialect, most: u64) -> String {
        if dialect != Dialect::Chat {
            let name = dialect.ceiling_name(true);
            return match self {
                Self::Null => format!("\"{name}\":null,"),
                Self::Absent => String::new(),
                Self::Above => format!("\"{name}\":{},", most + 10 * CEILING),
                _ => format!("\"{name}\":{most},"),
            };
        }
        match self {
            Self::Old => format!(r#""max_tokens":{most},"#),
            Self::New => format!(r#""max_completion_tokens":{most},"#),
            Self::Both { new_is_first: true, other } => {
                format!(r#""max_completion_tokens":{most},"max_tokens":{other},"#)
            }
            Self::Both { new_is_first: false, other } => {
                format!(r#""max_tokens":{most},"max_completion_tokens":{other},"#)
            }
            Self::Null => r#""max_tokens":null,"#.to_owned(),
            Self::Zero => r#""max_completion_tokens":0,"#.to_owned(),
            Self::Absent => String::new(),
            Self::Above => format!(r#""max_tokens":{},"#, most + 10 * CEILING),
        }
    }
}

impl Ask {
    /// The `tag`th request of the run of `seed`.
    pub fn of(seed: u64, tag: u64) -> Self {
        let draw = RandomValue(seed).salted(tag);
        let below = |salt, bound| draw.salted(salt).below(bound);
        let large = below(1, 4) == 0;
        // More of the dearer model's, which begin at the provider that goes on.
        let leaving = if large { 36 } else { 12 };
        let leaves = match below(5, 100) {
            0..4 => Some(0),
            4.. if below(5, 100) < leaving => Some(below(6, 2_500) as usize),
            _ => None,
        };
        let dialect = match below(10, 4) {
            0..2 => Dialect::Chat,
            2 => Dialect::Messages,
            _ => Dialect::Responses,
        };
        let spelling = if tag < SLOW { Spelling::of(draw.salted(9)) } else { Spelling::Old };
        Self {
            tag,
            dialect,
            key: below(0, crate::fixture::KEYS.len() as u64) as usize,
            large,
            stream: below(2, 2) == 0,
            max_tokens: 1 + below(3, CEILING),
            spelling: spelling.in_dialect(dialect),
            letters: 100 + below(4, 900) as usize,
            leaves_after: leaves,
        }
    }

    /// The most tokens that may be held, asked for and served, where money is held.
    pub fn ceiling(&self) -> u64 {
        let asked = match self.spelling {
            Spelling::Old | Spelling::New => self.max_tokens,
            Spelling::Both { other, .. } => self.max_tokens.max(other),
            Spelling::Null | Spelling::Zero | Spelling::Absent | Spelling::Above => CEILING,
        };
        asked.min(CEILING)
    }

    /// Whether the provider stops in the middle and waits for the gateway to disconnect.
    fn is_held(&self, seed: u64) -> bool {
        // Of the dearer model's, which begin at the provider that goes on, all.
        let is_drawn = RandomValue(seed).salted(self.tag).salted(7).below(3) == 0;
        self.leaves_after.is_some() && (self.large || is_drawn)
    }

    /// The body, asking for `model`.
    pub fn body(&self, model: &str) -> String {
        let (tag, text, stream) = (self.tag, "x".repeat(self.letters), self.stream);
        let (ceiling, rest) = (self.spelling.members(self.dialect, self.max_tokens), self.dialect.members(tag, &text));
        format!(r#"{{"model":"{model}","stream":{stream},{ceiling}{rest}}}"#)
    }
}

/// How the provider reports usage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UsageReport {
    Once,
    /// First another count, then the right one.
    Twice,
    /// With every frame, as far as it is by then, where a dialect has a place for that.
    Always,
    /// After the end: too late.
    Late,
    Missing,
    Negative,
    Absurd,
}

/// How an answer ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Whole,
    /// By RST, or FIN, after so many parts in a hundred.
    Broken {
        rst: bool,
        percent: u64,
    },
    /// It waits in the middle until the gateway disconnects; a provider that goes on when it is left waits a while.
    Held {
        percent: u64,
    },
    /// Whole, with a pause before each frame.
    Slow,
}

/// What the provider does with one attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// An error before anything was done, which is not billed.
    Error(u16),
    /// A 200 that is no answer, billed like one.
    Garbage,
    /// The request is read, nothing is done and the connection is gone.
    Gone,
    /// The work is done and billed, and nothing is ever sent.
    Silent,
    Answer {
        report: UsageReport,
        end: End,
    },
}

/// Of each thousand tags, those for which one of the two providers is silent: enough for all clients to wait at once.
const SILENT: std::ops::Range<u64> = 300..340;

/// Tags from here on are not of the mix: a stream that lasts half a second.
pub const SLOW: u64 = 1 << 40;

impl Act {
    /// Whether the answer stops in the middle for a while.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Answer { end: End::Held { .. }, .. })
    }

    /// What happens to attempt `number`, counted from 1, of `ask`; `preferred`: at the first of the two providers.
    pub fn of(seed: u64, ask: &Ask, number: u64, preferred: bool) -> Self {
        if ask.tag >= SLOW {
            return Self::Answer { report: UsageReport::Once, end: End::Slow };
        }
        if preferred && SILENT.contains(&(ask.tag % 1_000)) {
            return Self::Silent;
        }
        let draw = RandomValue(seed).salted(ask.tag).salted(100 + number);
        let percent = 5 + draw.salted(2).below(95);
        let report = match draw.salted(1).below(100) {
            0..58 => UsageReport::Once,
            58..66 => UsageReport::Twice,
            66..76 => UsageReport::Always,
            76..82 => UsageReport::Late,
            82..92 => UsageReport::Missing,
            92..96 => UsageReport::Negative,
            _ => UsageReport::Absurd,
        };
        let held = ask.is_held(seed);
        match draw.salted(0).below(100) {
            0..3 => Self::Error(500),
            3..9 => Self::Error(503),
            9..11 => Self::Garbage,
            11..13 => Self::Gone,
            _ if held => Self::Answer { report, end: End::Held { percent } },
            13..20 => Self::Answer { report, end: End::Broken { rst: percent.is_multiple_of(2), percent } },
            _ => Self::Answer { report, end: End::Whole },
        }
    }
}

/// Whether attempt `number` of `ask` is begun late: later than a policy that hedges waits.
pub fn is_late(seed: u64, ask: &Ask, number: u64) -> bool {
    ask.tag < SLOW && number == 1 && RandomValue(seed).salted(ask.tag).salted(8).below(100) < 8
}

/// Tokens of one attempt as its provider counts them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tokens {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
}

impl Tokens {
    /// What an answer to `body_bytes` with at most `most` tokens would have, whole.
    pub fn of(seed: u64, tag: u64, number: u64, body_bytes: usize, most: u64) -> Self {
        let draw = RandomValue(seed).salted(tag).salted(200 + number);
        let bytes = body_bytes as u64;
        let input = bytes / 4 + draw.salted(0).below(bytes / 4);
        let cached = if draw.salted(1).below(3) == 0 { draw.salted(2).below(input) } else { 0 };
        Self { input, cached, output: 1 + draw.salted(3).below(most.max(1)) }
    }
}
