//! [`Input`]: bytes read as what a target needs. Who changes how, changes what the corpora
//! mean.
//!
//! Nothing fails: at its end the input is zeros, and a number out of range wraps.

/// Frames of the protocol, in whole and in part, and such as come near to it: fewer than
/// [`LITERAL`].
const KNOWN: &[&[u8]] = &[
    b"",
    b"ICANHAZ?",
    b"STATUS?",
    b"KTHXBAI",
    b"HUGZ",
    b"HUGZ/a/",
    b"PEER?",
    b"RESUBMIT",
    b"UUIDS",
    b"PROMOTE?",
    b"DEMOTE?",
    b"\x01HUGZ",
    b"\x01HUGZ/a/",
    b"\x00HUGZ/a/",
    b"\x01HUGZ/a/b/",
    b"\x00HUGZ/a/b/",
    b"\x01STATUS?",
    b"\x00STATUS?",
    b"\x01",
    b"/a/",
    b"/b/",
    b"since=0\n",
    b"order=changes\nuuids=1\n",
    b"==\n",
    b"ttl=0\n",
    b"ttl=0.002\n",
    b"ttlms=7\n",
    b"ttl=-1\n",
    b"ttl=1e18\n",
    b"retry=3\n",
    b"why=expired\n",
    b"why=expired",
];

/// The first tag of a frame that is spelt out.
const LITERAL: u8 = 128;

pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&byte, rest)) => {
                self.0 = rest;
                byte
            }
            None => 0,
        }
    }

    /// Below `end`, which is at most 256.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(super) fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(super) fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// A time from nothing to 2^52 ns (52 days): half of the times are below 70 ms.
    pub(super) fn nanos(&mut self) -> u64 {
        let magnitude = self.below(53) as u32;
        let fraction = u64::from(self.byte());
        (1_u64 << magnitude) / 256 * fraction + (1 << magnitude >> 8)
    }

    /// One frame: known, spelt out, or of a kind that chance would not find.
    pub(super) fn frame(&mut self, base: u64) -> Vec<u8> {
        match self.byte() {
            tag if tag < LITERAL => KNOWN[usize::from(tag) % KNOWN.len()].to_vec(),
            // A sequence near to where a machine begins.
            240..=243 => (base + u64::from(self.short())).to_be_bytes().to_vec(),
            244 | 245 => vec![self.byte(); 16],
            246 => vec![b'k'; 200 + usize::from(self.byte())],
            247 | 248 => self.key(),
            249.. => self.properties(base),
            tag => self.bytes(usize::from(tag - LITERAL)).to_vec(),
        }
    }

    /// Up to eight frames.
    pub(super) fn frames(&mut self, base: u64) -> Vec<Vec<u8>> {
        (0..self.below(9)).map(|_| self.frame(base)).collect()
    }

    /// A key, one of few, so that they meet.
    pub(super) fn key(&mut self) -> Vec<u8> {
        let subtree = self.pick(&["/a/", "/a/b/", "/b/", "/", "HUG", ""]);
        format!("{subtree}{}", self.below(8)).into_bytes()
    }

    pub(super) fn value(&mut self) -> Vec<u8> {
        let length = self.below(24);
        self.bytes(length).to_vec()
    }

    /// Lines, some of which mean something to somebody.
    pub(super) fn properties(&mut self, base: u64) -> Vec<u8> {
        const NAMES: &[&str] = &[
            "chp",
            "role",
            "node",
            "hb",
            "stable",
            "published",
            "mode",
            "from",
            "count",
            "since",
            "applied",
            "refused",
            "retry",
            "ttl",
            "ttlms",
            "collector",
            "maxval",
            "maxkey",
            "pair",
            "seat",
            "of",
            "root",
            "lineage",
            "want",
            "handover",
            "floor",
            "forgotten",
            "standby",
            "policy",
            "fork",
            "base",
            "peer",
            "why",
            "order",
            "uuids",
            "known",
            "maxprop",
            "safe",
            "epoch",
            "prev",
        ];
        const WORDS: &[&str] = &[
            "active",
            "passive",
            "starting",
            "primary",
            "backup",
            "pull",
            "sub",
            "delta",
            "full",
            "live",
            "silent",
            "none",
            "syncing",
            "wait",
            "proceed",
            "handover",
            "yield",
            "changes",
            "expired",
            "malformed",
            "forgotten",
            "000000000000000b",
            "00abcdef01234567",
        ];
        let mut lines = Vec::new();
        for _ in 0..1 + self.below(8) {
            lines.extend_from_slice(self.pick(NAMES).as_bytes());
            lines.push(b'=');
            let value = match self.below(6) {
                0 => self.byte().to_string(),
                1 => (base + u64::from(self.byte())).to_string(),
                2 => format!("{}-000000000000000b", base + u64::from(self.byte())),
                3 => format!("{base}-{}", base + u64::from(self.byte())),
                _ => self.pick(WORDS).to_owned(),
            };
            lines.extend_from_slice(value.as_bytes());
            lines.push(b'\n');
        }
        lines
    }

    /// A sequence: most times the next one after `base`, else one around it.
    pub(super) fn near(&mut self, base: u64) -> u64 {
        match self.byte() {
            0..160 => base + 1,
            far => (base + u64::from(far % 32)).saturating_sub(8),
        }
    }

    /// The five frames of a message that can be decoded, most times.
    pub(super) fn kvmsg(&mut self, base: u64) -> Vec<Vec<u8>> {
        let kind = self.byte();
        let key = match kind & 7 {
            0 => self.pick(KNOWN).to_vec(),
            _ => self.key(),
        };
        let sequence = self.near(base).to_be_bytes().to_vec();
        let uuid = match kind & 8 != 0 {
            true if kind & 96 == 96 => numbered(self.byte()).to_vec(),
            true => vec![self.byte() % 32; 16],
            false => Vec::new(),
        };
        let properties = if kind & 16 != 0 { self.frame(base) } else { Vec::new() };
        vec![key, sequence, uuid, properties, self.value()]
    }
}

/// The uuid of a client that numbers its changes: one of two, its first 16.
fn numbered(byte: u8) -> [u8; 16] {
    let mut uuid = [0x70 | byte >> 4 & 1; 16];
    uuid[6] = 0x80;
    uuid[8..].copy_from_slice(&(1 << 63 | u64::from(byte & 15)).to_be_bytes());
    uuid
}

/// Who the sender of a change is, and its number, if it numbers them.
pub(super) fn numbering(uuid: &[u8]) -> Option<(&[u8], u64)> {
    let number = u64::from_be_bytes(uuid.get(8..16)?.try_into().ok()?);
    let is_numbered = uuid[6] >> 4 == 8 && number >> 62 == 0b10;
    // Of the second half the first bits are of the sender's, too; here all have the same.
    is_numbered.then(|| (&uuid[..8], number))
}

pub(super) fn refs(frames: &[Vec<u8>]) -> Vec<&[u8]> {
    frames.iter().map(Vec::as_slice).collect()
}
