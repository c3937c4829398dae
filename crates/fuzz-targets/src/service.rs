//! What the service and its callers read of each other.

use stead_protocol::conversation::{Question, decode_answer, encode_answer};
use stead_protocol::frame::{Decoder, decode_reply};
use stead_protocol::{
    CreateProcess, Failure, GetStatus, ListSessions, LogOn, Method, Request, Strings, Text,
};

/// A decoder by its name.
type Named = (&'static str, fn(&[u8]));

/// The decoders, by name.
pub const TARGETS: &[Named] = &[
    ("service_call", call),
    ("service_stream", stream),
    ("service_reply", reply),
    ("service_conversation", conversation),
    ("service_strings", strings),
];

/// A method's name, a NUL, and its parameters.
fn call(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (method, parameters) = text.split_once('\0').unwrap_or((text, "{}"));
    if let Ok(request) = Request::decode(method, Some(parameters)) {
        assert_eq!(request.method(), method);
    }
    for method in Request::METHODS {
        let _ = Request::decode(method, Some(parameters));
    }
    if let Ok(text) = serde_json::from_str::<Text>(parameters) {
        assert!(!text.as_bytes().contains(&0));
        let again = serde_json::to_string(&text).unwrap_or_default();
        assert_eq!(serde_json::from_str::<Text>(&again).ok(), Some(text));
    }
}

/// A stream of messages: the first byte says in what pieces it comes.
fn stream(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let messages = |size: usize| {
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for piece in stream.chunks(size) {
            decoder.push(piece);
            while let Ok(Some(message)) = decoder.next_message() {
                found.push(message);
            }
        }
        found
    };
    assert_eq!(messages(usize::from(*size).max(1)), messages(stream.len().max(1)));
}

fn reply(data: &[u8]) {
    one::<GetStatus>(data);
    one::<LogOn>(data);
    one::<CreateProcess>(data);
    one::<ListSessions>(data);
}

fn one<M: Method>(data: &[u8]) {
    let Ok(reply) = decode_reply::<M>(data) else { return };
    if let Err(failure) = reply.result {
        let _ = failure.to_string();
        let again = serde_json::to_vec(&failure).unwrap_or_default();
        if let Ok(same) = serde_json::from_slice::<Failure>(&again) {
            assert_eq!(same.kind, failure.kind);
        }
    }
}

fn conversation(data: &[u8]) {
    if let Some(Some(answer)) = decode_answer(data) {
        let again = encode_answer(Some(&answer));
        assert_eq!(decode_answer(&again).flatten().as_deref(), Some(&*answer));
    }
    if let Ok(question) = Question::decode(data) {
        let again = question.encode();
        assert_eq!(Question::decode(&again[..again.len() - 1]).ok(), Some(question));
    }
}

/// What a caller passes in a memory file: it is what is written again of it.
fn strings(data: &[u8]) {
    if let Ok(strings) = Strings::decode(data) {
        assert_eq!(strings.encode().as_deref(), Ok(data));
    }
}
