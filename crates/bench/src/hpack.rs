//! HPACK (RFC 7541), as much as a gRPC client needs: a whole decoder, and one request's headers encoded once.
//!
//! Requests are encoded as Go's client does: the first on a connection puts its headers into the server's dynamic
//! table, the others name them by index. So a server under load does the work that it does for real clients, not
//! more. The decoder keeps a dynamic table for the same reason: a table of size zero would make every server spell
//! out every trailer.

use std::collections::VecDeque;
use std::sync::LazyLock;

use crate::http2::ProtocolError;

/// Octets of table space before any SETTINGS: ours, and what we assume of the peer.
pub const TABLE_BYTES_DEFAULT: usize = 4096;

/// What an entry occupies beside its name and value (RFC 7541, 4.1).
const ENTRY_OVERHEAD_BYTES: usize = 32;

/// Reads header blocks in the order in which a peer sent them.
#[derive(Debug)]
pub struct Decoder {
    /// Newest first: index 62 is the front.
    dynamic: VecDeque<Entry>,
    /// Sum of the entries' sizes; never above `bytes_max`.
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Entry {
    fn size(&self) -> usize {
        self.name.len() + self.value.len() + ENTRY_OVERHEAD_BYTES
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { dynamic: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES_DEFAULT }
    }
}

impl Decoder {
    /// Calls `visit` with the name and value of each field of one complete block.
    ///
    /// # Errors
    /// When the block is malformed; the connection can't be used any more, since the tables may differ.
    pub fn decode(&mut self, block: &[u8], mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), ProtocolError> {
        let mut input = block;
        while let Some(&first) = input.first() {
            if first & 0x80 != 0 {
                let index = integer(&mut input, 7)?;
                let (name, value) = self.entry(index)?;
                visit(name, value);
            } else if first & 0xe0 == 0x20 {
                let bytes_max = integer(&mut input, 5)?;
                if bytes_max > TABLE_BYTES_DEFAULT {
                    return Err(ProtocolError::Hpack("table larger than announced"));
                }
                self.bytes_max = bytes_max;
                self.evict();
            } else {
                // Incremental indexing has a six-bit index, both forms without indexing a four-bit one.
                let indexed = first & 0x40 != 0;
                let index = integer(&mut input, if indexed { 6 } else { 4 })?;
                let name = if index == 0 { string(&mut input)? } else { self.entry(index)?.0.to_vec() };
                let value = string(&mut input)?;
                visit(&name, &value);
                if indexed {
                    self.insert(Entry { name, value });
                }
            }
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), ProtocolError> {
        match index {
            0 => Err(ProtocolError::Hpack("index zero")),
            1..=61 => {
                let (name, value) = STATIC_TABLE[index - 1];
                Ok((name.as_bytes(), value.as_bytes()))
            }
            _ => self
                .dynamic
                .get(index - 62)
                .map(|entry| (entry.name.as_slice(), entry.value.as_slice()))
                .ok_or(ProtocolError::Hpack("index beyond the table")),
        }
    }

    fn insert(&mut self, entry: Entry) {
        self.bytes += entry.size();
        self.dynamic.push_front(entry);
        // An entry larger than the table empties it, itself included (RFC 7541, 4.4).
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > self.bytes_max {
            let Some(entry) = self.dynamic.pop_back() else { break };
            self.bytes -= entry.size();
        }
    }
}

/// The header block of one gRPC method, encoded for its first and for its later uses on a connection.
#[derive(Clone, Debug)]
pub struct RequestHeaders {
    /// Puts the fields into the peer's dynamic table.
    pub first: Vec<u8>,
    /// Names them by index; right only after `first`, with nothing inserted since.
    pub later: Vec<u8>,
    /// Uses no dynamic table at all, for a peer that allows none.
    pub plain: Vec<u8>,
}

impl RequestHeaders {
    /// A POST of gRPC to `path` at `authority`.
    pub fn new(path: &str, authority: &str) -> RequestHeaders {
        let user_agent = concat!("quorate-bench/", env!("CARGO_PKG_VERSION"));
        // Static indices of the names; 0 is a name of our own.
        let fields = [
            (4, ":path", path),
            (1, ":authority", authority),
            (31, "content-type", "application/grpc"),
            (58, "user-agent", user_agent),
            (0, "te", "trailers"),
        ];
        // :method POST and :scheme http are in the static table.
        let start = vec![0x83, 0x86];
        let (mut first, mut later, mut plain) = (start.clone(), start.clone(), start);
        for (place, (index, name, value)) in fields.into_iter().enumerate() {
            put_literal(&mut first, 0x40, 6, index, name, value);
            put_literal(&mut plain, 0x00, 4, index, name, value);
            // The last one inserted is 62.
            put_integer(&mut later, 0x80, 7, 62 + fields.len() - 1 - place);
        }
        RequestHeaders { first, later, plain }
    }
}

fn put_literal(out: &mut Vec<u8>, pattern: u8, prefix_bits: u32, index: usize, name: &str, value: &str) {
    put_integer(out, pattern, prefix_bits, index);
    if index == 0 {
        put_integer(out, 0, 7, name.len());
        out.extend_from_slice(name.as_bytes());
    }
    put_integer(out, 0, 7, value.len());
    out.extend_from_slice(value.as_bytes());
}

fn put_integer(out: &mut Vec<u8>, pattern: u8, prefix_bits: u32, value: usize) {
    let limit = (1usize << prefix_bits) - 1;
    if value < limit {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | limit as u8);
    let mut rest = value - limit;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn integer(input: &mut &[u8], prefix_bits: u32) -> Result<usize, ProtocolError> {
    let truncated = ProtocolError::Hpack("block ends inside an integer");
    let limit = (1usize << prefix_bits) - 1;
    let Some((&first, rest)) = input.split_first() else { return Err(truncated) };
    *input = rest;
    let mut value = usize::from(first) & limit;
    if value < limit {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let Some((&byte, rest)) = input.split_first() else { return Err(truncated) };
        *input = rest;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ProtocolError::Hpack("integer too large"))
}

fn string(input: &mut &[u8]) -> Result<Vec<u8>, ProtocolError> {
    let huffman = input.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(input, 7)?;
    if length > input.len() {
        return Err(ProtocolError::Hpack("block ends inside a string"));
    }
    let (text, rest) = input.split_at(length);
    *input = rest;
    if huffman { huffman_decode(text) } else { Ok(text.to_vec()) }
}

/// The code is canonical, so the lengths say it all: codes of one length are consecutive numbers, in the order of
/// their symbols.
struct HuffmanTable {
    /// By length: the first code, and where its symbol stands in `symbols`.
    first: [(u32, usize); 31],
    count: [u32; 31],
    symbols: Vec<u8>,
}

static HUFFMAN: LazyLock<HuffmanTable> = LazyLock::new(|| {
    let mut table = HuffmanTable { first: [(0, 0); 31], count: [0; 31], symbols: Vec::with_capacity(256) };
    let mut code = 0u32;
    for length in 1..=30u8 {
        code <<= 1;
        table.first[usize::from(length)] = (code, table.symbols.len());
        for symbol in 0..=255u8 {
            if HUFFMAN_BITS[usize::from(symbol)] == length {
                table.symbols.push(symbol);
                code += 1;
            }
        }
        table.count[usize::from(length)] = code - table.first[usize::from(length)].0;
    }
    table
});

fn huffman_decode(input: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    let table = &*HUFFMAN;
    let mut text = Vec::with_capacity(input.len() * 8 / 5);
    let (mut code, mut length) = (0u32, 0usize);
    for bit in input.iter().flat_map(|byte| (0..8).rev().map(move |shift| u32::from(byte >> shift & 1))) {
        code = code << 1 | bit;
        length += 1;
        if length > 30 {
            return Err(ProtocolError::Hpack("no such Huffman code"));
        }
        let (first, place) = table.first[length];
        if code >= first && code - first < table.count[length] {
            text.push(table.symbols[place + (code - first) as usize]);
            (code, length) = (0, 0);
        }
    }
    // What is left is padding: the start of the code that ends a string, which is all ones.
    if length > 7 || code != (1 << length) - 1 {
        return Err(ProtocolError::Hpack("bad Huffman padding"));
    }
    Ok(text)
}

/// Bits of each octet's Huffman code (RFC 7541, appendix B).
#[rustfmt::skip]
const HUFFMAN_BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The static table (RFC 7541, appendix A); index 1 is the first.
#[rustfmt::skip]
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""),
    ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""),
    ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""),
    ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""),
    ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""),
    ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""),
    ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, ProtocolError> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.decode(block, |name, value| fields.push(format!("{}: {}", text(name), text(value))))?;
        Ok(fields)
    }

    #[test]
    fn static_entries_have_the_numbers_of_the_rfc() {
        let block = [0x82, 0x87, 0x88, 0x80 | 61];
        let expected = [":method: GET", ":scheme: https", ":status: 200", "www-authenticate: "];
        assert_eq!(fields(&mut Decoder::default(), &block).expect("a good block"), expected);
    }

    /// RFC 7541, C.4: Huffman-coded requests on one connection.
    #[test]
    fn requests_of_the_rfc_decode() {
        let mut decoder = Decoder::default();
        let first = bytes("828684418cf1e3c2e5f23a6ba0ab90f4ff");
        let common = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        assert_eq!(fields(&mut decoder, &first).expect("first"), common);
        let second = fields(&mut decoder, &bytes("828684be5886a8eb10649cbf")).expect("second");
        assert_eq!(
            (&second[..4], second[4].as_str()),
            (&common.map(str::to_owned)[..], "cache-control: no-cache")
        );
        let third = bytes("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf");
        let third = fields(&mut decoder, &third).expect("third");
        assert_eq!(third[3..], [":authority: www.example.com", "custom-key: custom-value"]);
        assert_eq!(decoder.bytes, 164);
    }

    /// RFC 7541, C.5: a table of 256 octets, so that entries leave it.
    #[test]
    fn a_small_table_evicts_the_oldest() {
        let mut decoder = Decoder::default();
        // 0x3f 0xe1 0x01: the table's size becomes 256.
        let first = "3fe101 4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a32\
                     3120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d";
        fields(&mut decoder, &bytes(first)).expect("first");
        assert_eq!((decoder.bytes, decoder.dynamic.len()), (222, 4));
        let second = fields(&mut decoder, &bytes("4803333037c1c0bf")).expect("second");
        assert_eq!(second[..2], [":status: 307", "cache-control: private"]);
        assert_eq!((decoder.bytes, decoder.dynamic.len()), (222, 4), ":status 302 made room");
    }

    #[test]
    fn every_octet_survives_huffman() {
        let huffman = &*HUFFMAN;
        assert_eq!(huffman.symbols.len(), 256);
        for octet in 0..=255u8 {
            let bits = u32::from(HUFFMAN_BITS[usize::from(octet)]);
            let (first, place) = huffman.first[bits as usize];
            let rank = huffman.symbols[place..].iter().position(|symbol| *symbol == octet).expect("a symbol");
            // Left-aligned in five octets, the padding all ones.
            let code = u64::from(first + rank as u32) << (40 - bits) | ((1 << (40 - bits)) - 1);
            let encoded = &code.to_be_bytes()[3..][..bits.div_ceil(8) as usize];
            assert_eq!(huffman_decode(encoded).expect("one code"), [octet]);
        }
    }

    #[test]
    fn malformed_blocks_are_errors() {
        let bad = [
            "80",
            "be",
            "40",
            "ff",
            "ffffffffffff7f",
            "4003",
            "7f",
            "3fe21f",
            "0081ff81ff00",
            "008100",
            "0082ffff",
        ];
        for block in bad {
            let result = fields(&mut Decoder::default(), &bytes(block));
            assert!(result.is_err(), "{block} decodes to {result:?}");
        }
    }

    #[test]
    fn later_requests_name_what_the_first_inserted() {
        let headers = RequestHeaders::new("/etcdserverpb.KV/Put", "127.0.0.1:2379");
        let mut decoder = Decoder::default();
        let first = fields(&mut decoder, &headers.first).expect("first");
        assert_eq!(fields(&mut decoder, &headers.later).expect("later"), first);
        assert_eq!(fields(&mut Decoder::default(), &headers.plain).expect("plain"), first);
        assert_eq!(headers.later.len(), 7);
        assert_eq!(first[2], ":path: /etcdserverpb.KV/Put");
        assert!(fields(&mut Decoder::default(), &headers.later).is_err());
    }
}
