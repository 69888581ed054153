//! Changes inputs at random, from a seed.

/// Texts that mean something to one of the parsers.
const TOKENS: &[&str] = &[
    "\n",
    "\n\n",
    ",",
    ";",
    "=",
    "\"",
    "\\",
    "\\\"",
    "<",
    ">",
    "/",
    "//",
    "..",
    "%",
    "%2F",
    " ",
    "\t",
    "*",
    "*/*",
    "q=0.5",
    "q=1.000",
    "wait=",
    "respond-async",
    "bytes=",
    "-",
    "W/",
    "rel=monitor",
    "anchor=",
    "0",
    "00",
    "9",
    "18446744073709551615",
    "99999999999999999999999",
    "/jobs/",
    ": ",
    "GMT",
    "null",
    "{",
    "}",
    "[",
    "]",
    "\u{e9}",
    "\u{100}",
];

/// The maximum size of a changed input, in bytes.
const MAX_INPUT_BYTES: usize = 1024;

/// A source of changed inputs. The same seed makes the same inputs.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// Creates a source of inputs from a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns a changed copy of one of the inputs.
    pub fn mutate(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.pick(inputs).cloned().unwrap_or_default();
        for _ in 0..=self.below(6) {
            self.change(&mut input, inputs);
        }
        input.truncate(MAX_INPUT_BYTES);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(8) {
            0 => input.insert(at, self.next() as u8),
            // Printable bytes pass the checks of field values.
            1 => input.insert(at, b' ' + self.below(95) as u8),
            2 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            3 => {
                let token = TOKENS[self.below(TOKENS.len())];
                input.splice(at..at, token.bytes());
            }
            4 => {
                let end = at + self.below(8).min(input.len() - at);
                input.drain(at..end);
            }
            5 => {
                let end = at + self.below(16).min(input.len() - at);
                let part = input[at..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, part);
            }
            6 => {
                let end = at + self.below(4).min(input.len() - at);
                let token = TOKENS[self.below(TOKENS.len())];
                input.splice(at..end, token.bytes());
            }
            _ => {
                // The start of this input, and the end of another.
                if let Some(other) = self.pick(inputs) {
                    let from = self.below(other.len() + 1);
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
            }
        }
    }

    fn pick<'a>(&mut self, inputs: &'a [Vec<u8>]) -> Option<&'a Vec<u8>> {
        let index = self.below(inputs.len().max(1));
        inputs.get(index)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// `SplitMix64`, which has no bad seeds.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}
