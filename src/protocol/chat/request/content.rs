//! What the messages and inputs of a request hold besides text: images, recordings, files, and how much of the body they
//! are.
//!
//! It never decodes any of them, and copies none. What it does not understand it takes for input that is not in the body.
//!
//! Start reading in [`content_kinds`].

use std::fmt;
use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::{self, Finder};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::call::BodyProblem;
use crate::domain::estimate::MediaSize;
use crate::protocol::json::member::BodyField;

/// What content parts of any other type than text hold somewhere: their type, an id or an address, or, to hide it, an
/// escaped letter.
static SUSPECT: LazyLock<[Finder<'static>; 6]> =
    LazyLock::new(|| ["image", "file", "video", "audio", "_url", "\\u00"].map(Finder::new));

/// How much of the beginning of a file's text is looked at to tell whether it is encoded bytes.
const MAX_LOOK: usize = 512;

/// What messages hold besides text.
#[derive(Clone, Copy, Default)]
pub(super) struct ContentKinds {
    /// A content part is an image.
    pub(super) images: bool,
    /// A content part's tokens are bounded by nothing in the body: a file, a video, a kind we do not know.
    pub(super) elsewhere: bool,
    /// Media in the body, whose bytes are not their tokens.
    pub(super) media: MediaSize,
}

/// What content parts are. Words are looked for as plain text first, so that only messages that may hold
/// more than text are read, those with an escaped letter among them; a list that is not one of messages
/// holds no images: the provider will refuse it as it sees fit.
pub(super) fn content_kinds(messages: &BodyField<'_>) -> Result<ContentKinds, BodyProblem> {
    let Some(list) = messages.list()? else { return Ok(ContentKinds::default()) };
    let text = list.text.as_bytes();
    // Where no list is in the list, every content is a text: one search shows it, mostly.
    if memchr(b'[', &text[1..]).is_none() || !SUSPECT.iter().any(|word| word.find(text).is_some()) {
        return Ok(ContentKinds::default());
    }
    let messages = serde_json::from_str::<Vec<MessageContent>>(list.text);
    let all = |messages: Vec<MessageContent>| messages.iter().map(|message| message.content).collect();
    Ok(messages.map_or(ContentKinds::UNKNOWN, all))
}

/// Media among the `input` of embeddings: data URLs, and what is called an image.
pub(super) fn media_of_inputs(input: &str) -> MediaSize {
    let text = input.as_bytes();
    let may_hold = memchr(b'{', text).is_some() || memmem::find(text, BASE64).is_some();
    let media = may_hold.then(|| serde_json::from_str::<InputMedia>(input).ok()).flatten();
    media.unwrap_or_default().0
}

/// Before the encoded bytes of a data URL.
const BASE64: &[u8] = b";base64,";

impl ContentKinds {
    const UNKNOWN: Self = Self {
        images: false,
        elsewhere: true,
        media: MediaSize { images: 0, image_bytes: 0, recorded_bytes: 0, file_bytes: 0 },
    };
}

impl FromIterator<ContentKinds> for ContentKinds {
    fn from_iter<I: IntoIterator<Item = ContentKinds>>(all: I) -> Self {
        all.into_iter().fold(Self::default(), |all, one| Self {
            images: all.images | one.images,
            elsewhere: all.elsewhere | one.elsewhere,
            media: all.media.and(one.media),
        })
    }
}

#[derive(Deserialize)]
struct MessageContent {
    #[serde(default)]
    content: ContentKinds,
}

impl<'de> Deserialize<'de> for ContentKinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        if !raw.get().starts_with('[') {
            return Ok(Self::default());
        }
        let Ok(parts) = serde_json::from_str::<Vec<ContentPart>>(raw.get()) else { return Ok(Self::UNKNOWN) };
        Ok(parts.into_iter().map(|part| part.kinds()).collect())
    }
}

/// The types of content parts, by what they carry.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(field_identifier)]
enum ContentType {
    #[serde(rename = "text", alias = "input_text", alias = "refusal")]
    Text,
    #[serde(rename = "image_url", alias = "input_image")]
    Image,
    /// Its bytes are more than its tokens.
    #[serde(rename = "input_audio")]
    Audio,
    #[serde(rename = "audio_url", alias = "video_url", alias = "input_video", alias = "audio", alias = "video")]
    Recording,
    #[serde(rename = "file", alias = "input_file")]
    File,
    #[default]
    #[serde(other)]
    Unknown,
}

/// A content part: its type, and how long the rest of it is.
struct ContentPart {
    kind: ContentType,
    /// Bytes of JSON beside its type and its text.
    bytes: u64,
    /// Some of them are encoded bytes of something else.
    is_encoded: bool,
}

impl ContentPart {
    fn kinds(self) -> ContentKinds {
        let Self { kind, bytes, is_encoded } = self;
        let none = MediaSize::default();
        let media = match kind {
            ContentType::Image => MediaSize { images: 1, image_bytes: bytes, ..none },
            ContentType::Audio | ContentType::Recording => MediaSize { recorded_bytes: bytes, ..none },
            // One that is given as text is read as text.
            ContentType::File if is_encoded => MediaSize { file_bytes: bytes, ..none },
            ContentType::Text | ContentType::File | ContentType::Unknown => none,
        };
        let (images, elsewhere) = match kind {
            ContentType::Image => (true, false),
            ContentType::Text | ContentType::Audio => (false, false),
            ContentType::Recording | ContentType::File | ContentType::Unknown => (false, true),
        };
        ContentKinds { images, elsewhere, media }
    }
}

#[derive(Deserialize)]
#[serde(field_identifier)]
enum PartMember {
    #[serde(rename = "type")]
    Type,
    /// Text counts as such, in a part of any type.
    #[serde(rename = "text")]
    Text,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for ContentPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PartVisitor;

        impl<'de> Visitor<'de> for PartVisitor {
            type Value = ContentPart;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a content part")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ContentPart, A::Error> {
                let mut part = ContentPart { kind: ContentType::default(), bytes: 0, is_encoded: false };
                while let Some(member) = map.next_key::<PartMember>()? {
                    match member {
                        PartMember::Type => part.kind = map.next_value()?,
                        PartMember::Text => drop(map.next_value::<IgnoredAny>()?),
                        PartMember::Other => {
                            let text = map.next_value::<&RawValue>()?.get().as_bytes();
                            let start = &text[..text.len().min(MAX_LOOK)];
                            let names = [BASE64, b"\"file_data\""];
                            part.is_encoded |= names.iter().any(|name| memmem::find(start, name).is_some());
                            part.bytes += text.len() as u64;
                        }
                    }
                }
                Ok(part)
            }
        }

        deserializer.deserialize_map(PartVisitor)
    }
}

/// Media anywhere in the input of embeddings.
#[derive(Clone, Copy, Default)]
struct InputMedia(MediaSize);

#[derive(Deserialize)]
#[serde(field_identifier)]
enum InputMember {
    #[serde(rename = "image", alias = "image_url", alias = "image_base64", alias = "input_image")]
    Image,
    #[serde(rename = "text", alias = "type")]
    Text,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for InputMedia {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InputVisitor;

        impl<'de> Visitor<'de> for InputVisitor {
            type Value = InputMedia;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<InputMedia, E> {
                Ok(InputMedia::default())
            }

            fn visit_bool<E>(self, _: bool) -> Result<InputMedia, E> {
                Ok(InputMedia::default())
            }

            fn visit_u64<E>(self, _: u64) -> Result<InputMedia, E> {
                Ok(InputMedia::default())
            }

            fn visit_i64<E>(self, _: i64) -> Result<InputMedia, E> {
                Ok(InputMedia::default())
            }

            fn visit_f64<E>(self, _: f64) -> Result<InputMedia, E> {
                Ok(InputMedia::default())
            }

            fn visit_str<E>(self, text: &str) -> Result<InputMedia, E> {
                let start = &text.as_bytes()[..text.len().min(MAX_LOOK)];
                let is_image = start.starts_with(b"data:") && memmem::find(start, BASE64).is_some();
                Ok(if is_image { image(text) } else { InputMedia::default() })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<InputMedia, A::Error> {
                let mut all = InputMedia::default();
                while let Some(one) = list.next_element::<InputMedia>()? {
                    all.0 = all.0.and(one.0);
                }
                Ok(all)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InputMedia, A::Error> {
                let mut all = InputMedia::default();
                while let Some(member) = map.next_key::<InputMember>()? {
                    let one = match member {
                        InputMember::Image => image(map.next_value::<&RawValue>()?.get()),
                        InputMember::Text => map.next_value::<IgnoredAny>().map(|_| InputMedia::default())?,
                        InputMember::Other => map.next_value()?,
                    };
                    all.0 = all.0.and(one.0);
                }
                Ok(all)
            }
        }

        deserializer.deserialize_any(InputVisitor)
    }
}

/// One image, written in so much text.
fn image(text: &str) -> InputMedia {
    InputMedia(MediaSize { images: 1, image_bytes: text.len() as u64, ..MediaSize::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::Endpoint;
    use crate::protocol::chat::request::read_request;

    fn media(endpoint: Endpoint, body: &str) -> MediaSize {
        let call = read_request(endpoint, body.to_owned().into());
        call.unwrap_or_else(|problem| panic!("{body}: {problem:?}")).metadata().cost_facts.media
    }

    #[test]
    fn media_in_messages_are_measured_and_text_is_not() {
        let check = |part: &str, expected: [u64; 4]| {
            let body = format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":"image file audio"}},{part}]}}]}}"#
            );
            let MediaSize { images, image_bytes, recorded_bytes, file_bytes } = media(Endpoint::Chat, &body);
            assert_eq!([images.into(), image_bytes, recorded_bytes, file_bytes], expected, "{part}");
        };
        let data = "A".repeat(1000);
        check(
            &format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}"#),
            [1, 1032, 0, 0],
        );
        check(&format!(r#"{{"image_url":"data:image/png;base64,{data}","type":"input_image"}}"#), [1, 1024, 0, 0]);
        check(r#"{"type":"image_url","image_url":{"url":"https://a.example/b.png"}}"#, [1, 33, 0, 0]);
        check(r#"{"type":"image_url","text":"and text","image_url":{"url":"https://a.example/b.png"}}"#, [1, 33, 0, 0]);
        check(
            &format!(r#"{{"type":"input_audio","input_audio":{{"data":"{data}","format":"mp3"}}}}"#),
            [0, 0, 1026, 0],
        );
        check(
            &format!(r#"{{"type":"video_url","video_url":{{"url":"data:video/mp4;base64,{data}"}}}}"#),
            [0, 0, 1032, 0],
        );
        check(&format!(r#"{{"type":"file","file":{{"file_data":"{data}"}}}}"#), [0, 0, 0, 1016]);
        check(r#"{"type":"file","file":{"file_id":"f-1"}}"#, [0; 4]);
        // Text stays text, whatever it looks like.
        check(&format!(r#"{{"type":"text","text":"data:image/png;base64,{data}"}}"#), [0; 4]);
        check(&format!(r#"{{"type":"thinking","thinking":"image {data}"}}"#), [0; 4]);
    }

    #[test]
    fn media_among_inputs_are_measured() {
        let check = |input: &str, expected: [u64; 2]| {
            let body = format!(r#"{{"model":"m","input":{input}}}"#);
            let MediaSize { images, image_bytes, .. } = media(Endpoint::Embeddings, &body);
            assert_eq!([images.into(), image_bytes], expected, "{input}");
        };
        check(r#""plain""#, [0, 0]);
        check(r#"["a","data:image/png;base64,AAAA"]"#, [1, 26]);
        check(r#"[{"image":"AAAA"},{"text":"image"},{"image_url":{"url":"b"}}]"#, [2, 17]);
        check(r#"[{"content":[{"type":"image_url","image_url":{"url":"b"}}]}]"#, [1, 11]);
        check(r#""see ;base64, in the manual""#, [0, 0]);
        check("[1,2,3]", [0, 0]);
    }

    #[test]
    fn media_cost_their_usual_size_and_not_their_bytes() {
        let data = "A".repeat(4_000_000);
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]}}]}}"#
        );
        let call = read_request(Endpoint::Chat, body.into()).expect("a chat request");
        let estimate = call.estimated_input_tokens(None);
        assert!((crate::domain::estimate::USUAL_IMAGE..2_000).contains(&estimate), "{estimate}");
        assert!(call.estimated_input_tokens(Some(7)) < estimate);
    }
}
