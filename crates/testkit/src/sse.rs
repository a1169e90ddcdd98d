//! Reading server-sent events frame by frame, keeping the exact text.

use serde_json::Value;

/// One block of an event stream, up to its blank line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseFrame {
    /// The exact bytes of the frame as text, with its terminating blank line.
    pub raw: String,
    /// The `event:` field, if there was one.
    pub event: Option<String>,
    /// All `data:` lines joined by a line feed; `None` when there was none.
    pub data: Option<String>,
}

impl SseFrame {
    fn parse(raw: String) -> Self {
        let mut event = None;
        let mut data: Option<String> = None;
        for line in raw.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => event = Some(value.to_owned()),
                "data" => match &mut data {
                    Some(text) => {
                        text.push('\n');
                        text.push_str(value);
                    }
                    None => data = Some(value.to_owned()),
                },
                _ => {}
            }
        }
        Self { raw, event, data }
    }

    /// A frame that holds nothing but comment lines.
    pub fn is_comment(&self) -> bool {
        self.event.is_none() && self.data.is_none() && self.raw.starts_with(':')
    }

    /// Whether this is the `[DONE]` frame.
    pub fn is_done(&self) -> bool {
        self.data.as_deref() == Some("[DONE]")
    }

    /// The data as JSON; panics when it is none.
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_default();
        match serde_json::from_str(data) {
            Ok(value) => value,
            Err(error) => panic!("frame is not JSON ({error}): {:?}", self.raw),
        }
    }
}

/// Cuts a byte stream into frames, whatever the line ends and however the bytes are split.
#[derive(Debug, Default)]
pub struct SseParser {
    buffer: Vec<u8>,
}

impl SseParser {
    /// Adds bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next complete frame out, if there is one.
    pub fn next_frame(&mut self) -> Option<SseFrame> {
        let end = ["\n\n", "\r\n\r\n", "\r\r"]
            .iter()
            .filter_map(|mark| {
                let found = self.buffer.windows(mark.len()).position(|w| w == mark.as_bytes());
                found.map(|at| at + mark.len())
            })
            .min()?;
        let raw: Vec<u8> = self.buffer.drain(..end).collect();
        Some(SseFrame::parse(String::from_utf8_lossy(&raw).into_owned()))
    }

    /// What is left over: an unterminated frame, normally nothing.
    pub fn rest(&self) -> &[u8] {
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_bytes_are_split() {
        let text = "data: {\"a\":1}\n\n:\n\nevent: error\r\ndata: x\r\ndata: y\r\n\r\ndata: [DONE]\n\n";
        for size in 1..text.len() {
            let mut parser = SseParser::default();
            let mut frames = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                parser.push(piece);
                while let Some(frame) = parser.next_frame() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames.len(), 4, "split by {size}");
            assert_eq!(frames[0].json()["a"], 1);
            assert!(frames[1].is_comment() && frames[1].raw == ":\n\n");
            assert_eq!(frames[2].event.as_deref(), Some("error"));
            assert_eq!(frames[2].data.as_deref(), Some("x\ny"));
            assert!(frames[3].is_done());
            assert!(parser.rest().is_empty());
        }
    }
}
