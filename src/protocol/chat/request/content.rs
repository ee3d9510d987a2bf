//! What the messages and inputs of a request hold besides text: images, recordings, files, and how much of the body they
//! are.
//!
//! It never decodes any of them, and copies none. What it does not understand it takes for input that is not in the body.
//! Messages are read as the body is read, in the same pass.
//!
//! Start reading in [`ContentReader::messages`].

use std::fmt;

use memchr::memchr;
use memchr::memmem;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::call::BodyProblem;
use crate::domain::estimate::MediaSize;
use crate::protocol::json::member::{FoundNames, MemberNames, unquoted};
use crate::protocol::json::scan::{JsonError, Scanner};
use crate::protocol::request_basics::ContentKinds;

/// How much of the beginning of a file's text is looked at to tell whether it is encoded bytes.
const MAX_LOOK: usize = 512;

/// What an address has, plainly or escaped, and base64 has not.
const ADDRESS_SIGNS: [&[u8]; 3] = [b"://", b":\\/", b"\\u"];

/// What is read of a message: its content, and what some hosts take input from beside it.
pub(super) const MESSAGE: MemberNames<5> = MemberNames::below(
    ["content", "audio", "images", "files", "attachments"],
    ["messages[].content", "messages[].audio", "messages[].images", "messages[].files", "messages[].attachments"],
);
const CONTENT: usize = 0;
/// What is read of a part of a message's content. Text counts as such, in a part of any type.
pub(super) const PART: MemberNames<2> =
    MemberNames::below(["type", "text"], ["messages[].content[].type", "messages[].content[].text"]);
const TYPE: usize = 0;

/// Reads messages or prompts at their place in the body.
pub(in crate::protocol) struct ContentReader<'a> {
    body: &'a str,
    /// What is read of a part.
    part: MemberNames<2>,
    kinds: ContentKinds,
    problem: Option<BodyProblem>,
}

impl<'a> ContentReader<'a> {
    pub(super) fn new(body: &'a str) -> Self {
        Self::of_parts(body, PART)
    }

    /// Of parts whose type and text are at the places of `part`.
    pub(in crate::protocol) fn of_parts(body: &'a str, part: MemberNames<2>) -> Self {
        Self { body, part, kinds: ContentKinds::default(), problem: None }
    }

    /// What was read.
    ///
    /// # Errors
    /// A member that is read and given twice, or in a spelling that only some providers take for it.
    pub(in crate::protocol) fn end(self) -> Result<ContentKinds, BodyProblem> {
        self.problem.map_or(Ok(self.kinds), Err)
    }

    /// Reads the messages. A list that is not one of messages holds no images: the provider will refuse it as it sees
    /// fit.
    pub(super) fn messages(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        match scanner.next() {
            Some(b'[') => scanner.list(|scanner| self.message(scanner)),
            _ => scanner.value(),
        }
    }

    /// Reads prompts of completions. One that is an object is no text.
    pub(super) fn prompts(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        match scanner.next() {
            Some(b'[') => scanner.list(|scanner| {
                self.kinds.elsewhere |= scanner.next() == Some(b'{');
                scanner.value()
            }),
            _ => scanner.value(),
        }
    }

    fn message(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        if scanner.next() != Some(b'{') {
            self.kinds.elsewhere = true;
            return scanner.value();
        }
        let body = self.body;
        let mut found = FoundNames::default();
        scanner.object(|scanner, name| {
            let index = unquoted(&body[name]).and_then(|name| MESSAGE.find(&name, &mut found, &mut self.problem));
            match (index, scanner.next()) {
                (Some(CONTENT), Some(b'[')) => scanner.list(|scanner| self.part(scanner)),
                (Some(CONTENT), first) => {
                    self.kinds.elsewhere |= first == Some(b'{');
                    scanner.value()
                }
                (Some(_), Some(b'{' | b'[')) => {
                    let value = scanner.value_span()?;
                    self.kinds.elsewhere |= body[value].len() > "[]".len();
                    Ok(())
                }
                _ => scanner.value(),
            }
        })
    }

    /// Reads one part of a content.
    pub(in crate::protocol) fn part(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        match scanner.next() {
            Some(b'{') => {}
            first => {
                self.kinds.elsewhere |= first != Some(b'"');
                return scanner.value();
            }
        }
        let body = self.body;
        let mut found = FoundNames::default();
        let mut part = ContentPart { kind: ContentType::Untold, bytes: 0, is_encoded: false, is_sound: false };
        scanner.object(|scanner, name| {
            let index = unquoted(&body[name]).and_then(|name| self.part.find(&name, &mut found, &mut self.problem));
            let value = &body[scanner.value_span()?];
            match index {
                Some(TYPE) => part.kind = ContentType::of(value),
                Some(_) => {}
                None => part.add(value),
            }
            Ok(())
        })?;
        self.kinds = self.kinds.and(part.kinds());
        Ok(())
    }
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

/// The types of content parts, by what they carry.
#[derive(Clone, Copy)]
enum ContentType {
    /// None is written.
    Untold,
    Text,
    Image,
    /// Its bytes are more than its tokens.
    Audio,
    Recording,
    File,
    Unknown,
}

impl ContentType {
    fn of(quoted: &str) -> Self {
        let Some(name) = unquoted(quoted) else { return Self::Unknown };
        match &*name {
            "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text" | "refusal" | "thinking"
            | "redacted_thinking" | "tool_use" => Self::Text,
            "image_url" | "input_image" => Self::Image,
            "input_audio" => Self::Audio,
            "audio_url" | "video_url" | "input_video" | "audio" | "video" => Self::Recording,
            "file" | "input_file" => Self::File,
            _ => Self::Unknown,
        }
    }
}

/// A content part: its type, and how long the rest of it is.
struct ContentPart {
    kind: ContentType,
    /// Bytes of JSON beside its type and its text.
    bytes: u64,
    /// Some of them are encoded bytes of something else.
    is_encoded: bool,
    /// They are sound in the body, and no address of it.
    is_sound: bool,
}

impl ContentPart {
    /// Another member of it.
    fn add(&mut self, value: &str) {
        let text = value.as_bytes();
        let start = &text[..text.len().min(MAX_LOOK)];
        let names = [BASE64, b"\"file_data\""];
        self.is_encoded |= names.iter().any(|name| memmem::find(start, name).is_some());
        let is_address = || ADDRESS_SIGNS.iter().any(|sign| memmem::find(text, sign).is_some());
        self.is_sound |= memmem::find(start, b"\"data\"").is_some() && !is_address();
        self.bytes += text.len() as u64;
    }

    fn kinds(self) -> ContentKinds {
        let Self { kind, bytes, is_encoded, is_sound } = self;
        let none = MediaSize::default();
        let media = match kind {
            ContentType::Image => MediaSize { images: 1, image_bytes: bytes, ..none },
            ContentType::Audio | ContentType::Recording => MediaSize { recorded_bytes: bytes, ..none },
            // One that is given as text is read as text.
            ContentType::File if is_encoded => MediaSize { file_bytes: bytes, ..none },
            ContentType::Untold | ContentType::Text | ContentType::File | ContentType::Unknown => none,
        };
        let (images, elsewhere) = match kind {
            ContentType::Image => (true, false),
            ContentType::Text => (false, false),
            ContentType::Audio => (false, !is_sound),
            // Some hosts go by what else it has.
            ContentType::Untold => (false, bytes > 0),
            ContentType::Recording | ContentType::File | ContentType::Unknown => (false, true),
        };
        ContentKinds { images, elsewhere, media }
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
    use crate::domain::body_member::ListedMembers;
    use crate::domain::call::Endpoint;
    use crate::protocol::chat::request::read_request;

    fn media(endpoint: Endpoint, body: &str) -> MediaSize {
        let call = read_request(endpoint, body.to_owned().into(), &ListedMembers::default());
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
        let call = read_request(Endpoint::Chat, body.into(), &ListedMembers::default()).expect("a chat request");
        let estimate = call.estimated_input_tokens(None);
        assert!((crate::domain::estimate::USUAL_IMAGE..2_000).contains(&estimate), "{estimate}");
        assert!(call.estimated_input_tokens(Some(7)) < estimate);
    }

    #[test]
    fn input_that_is_not_in_the_body_is_seen() {
        let check = |endpoint, members: &str, expected: bool| {
            let body = format!("{{\"model\":\"m\",{members}}}");
            let call = read_request(endpoint, body.into(), &ListedMembers::default());
            let call = call.unwrap_or_else(|problem| panic!("{members}: {problem:?}"));
            assert_eq!(call.metadata().cost_facts.input_elsewhere, expected, "{members}");
        };
        let message = |message: &str, expected| {
            check(
                Endpoint::Chat,
                &format!("\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}},{message}]"),
                expected,
            );
        };
        message(r#"{"role":"user","content":"{ [1] } image file"}"#, false);
        message(r#"{"role":"assistant","content":null,"audio":null,"attachments":[],"annotations":[{}]}"#, false);
        message(r#"{"role":"assistant","tool_calls":[{"type":"file","audio":{"id":"a"}}]}"#, false);
        message(r#"{"role":"assistant","audio":{"id":"audio_1"}}"#, true);
        message(r#"{"role":"user","content":"a","images":["AAAA"]}"#, true);
        message(r#"{"role":"user","content":{"parts":["a"]}}"#, true);
        message(r#"{"role":"user","content":[1]}"#, true);
        message("\"a\"", true);
        let part = |part: &str, expected| message(&format!("{{\"role\":\"user\",\"content\":[{part}]}}"), expected);
        part(r#"{"type":"text","text":"a"},"b",{"text":"c"}"#, false);
        part(r#"{"type":"thinking","thinking":"a","signature":"b"}"#, false);
        part(r#"{"type":"image_url","image_url":{"url":"https://a.example/b.png"}}"#, false);
        part(r#"{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}"#, false);
        part(r#"{"type":"input_audio","input_audio":{"data":"https://a.example/b.wav","format":"wav"}}"#, true);
        part(r#"{"type":"input_audio","input_audio":{"data":"https:\/\/a.example/b.wav"}}"#, true);
        part(r#"{"type":"input_audio","input_audio":{"id":"audio_1"}}"#, true);
        part(r#"{"type":"audio_url","audio_url":{"url":"https://a.example/b.wav"}}"#, true);
        part(r#"{"type":"document","source":{"type":"url","url":"https://a.example"}}"#, true);
        part(r#"{"type":"v\u0069deo_url","video_url":{"url":"https://a.example"}}"#, true);
        part(r#"{"IMAGE_URL":{"url":"https://a.example"}}"#, true);
        part(r#"{"type":7}"#, true);
        check(Endpoint::Completions, r#""prompt":["{", "a"]"#, false);
        check(Endpoint::Completions, r#""prompt":[{"prompt_string":"a","multimodal_data":["b"]}]"#, true);
        check(Endpoint::Embeddings, r#""input":["a"]"#, false);
        check(Endpoint::Embeddings, r#""input":[{"image_url":"b"}]"#, true);
    }
}
