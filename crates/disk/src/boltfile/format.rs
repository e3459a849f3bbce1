//! Bytes on disk: page headers, meta pages and elements. The table is in the parent module's documentation.

/// Bytes of a page before its elements.
pub(super) const HEADER_LEN: usize = 16;
/// Bytes of one element of a leaf or branch page.
pub(super) const ELEMENT_LEN: usize = 16;
/// Bytes of a bucket's header: root page and sequence.
pub(super) const BUCKET_LEN: usize = 16;
/// Bytes of a meta page that mean something: the header and the meta itself.
pub(super) const META_LEN: usize = HEADER_LEN + 64;

pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META: u16 = 0x04;
pub(super) const FREELIST: u16 = 0x10;

/// The flag of a leaf element whose value is a bucket.
pub(super) const ELEMENT_BUCKET: u32 = 0x01;

/// In place of a freelist's page: there is none, whatever is not reachable is free.
pub(super) const NO_FREELIST: u64 = u64::MAX;
/// A freelist of this count or more has its true count as its first element.
pub(super) const COUNT_IN_LIST: u16 = 0xffff;

/// The freelist of a file that is written here.
pub(super) const FREELIST_PAGE: u64 = 2;

/// Longest key, bytes.
pub(super) const KEY_LEN_MAX: usize = 32_768;
/// Longest value, bytes.
pub(super) const VALUE_LEN_MAX: usize = (1 << 31) - 2;

/// The page sizes that a file may have, bytes: what bbolt itself looks for, and half of its smallest.
pub(super) const PAGE_SIZE_MIN: u32 = 512;
pub(super) const PAGE_SIZE_MAX: u32 = 16 << 20;

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;

pub(super) fn is_page_size(size: u32) -> bool {
    size.is_power_of_two() && (PAGE_SIZE_MIN..=PAGE_SIZE_MAX).contains(&size)
}

/// The first bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub id: u64,
    pub flags: u16,
    pub count: u16,
    /// How many more pages the run has.
    pub overflow: u32,
}

impl PageHeader {
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(&self.id.to_le_bytes());
        out[8..10].copy_from_slice(&self.flags.to_le_bytes());
        out[10..12].copy_from_slice(&self.count.to_le_bytes());
        out[12..].copy_from_slice(&self.overflow.to_le_bytes());
        out
    }

    /// `bytes` holds at least a header.
    pub fn decode(bytes: &[u8]) -> PageHeader {
        PageHeader {
            id: get_u64(bytes, 0),
            flags: u16::from_le_bytes([bytes[8], bytes[9]]),
            count: u16::from_le_bytes([bytes[10], bytes[11]]),
            overflow: get_u32(bytes, 12),
        }
    }
}

/// What a meta page says of the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub page_size: u32,
    pub root: u64,
    pub sequence: u64,
    /// The freelist's page, or [`NO_FREELIST`].
    pub freelist: u64,
    /// How many pages the file uses, free ones too.
    pub pages: u64,
    pub txid: u64,
}

impl Meta {
    /// The meta page `id`, without the zeros behind it.
    pub fn encode(&self, id: u64) -> [u8; META_LEN] {
        let mut out = [0; META_LEN];
        out[..HEADER_LEN].copy_from_slice(&PageHeader { id, flags: META, count: 0, overflow: 0 }.encode());
        let meta = &mut out[HEADER_LEN..];
        meta[..4].copy_from_slice(&MAGIC.to_le_bytes());
        meta[4..8].copy_from_slice(&VERSION.to_le_bytes());
        meta[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        let numbers = [self.root, self.sequence, self.freelist, self.pages, self.txid];
        for (to, number) in meta[16..56].chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        let sum = fnv_1a(&meta[..56]);
        meta[56..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Checks what a meta page can be checked for by itself, in the order in which bbolt does. The page's header has
    /// no sum and is not looked at, as in bbolt.
    pub fn decode(page: &[u8]) -> Result<Meta, String> {
        let Some(meta) = page.get(HEADER_LEN..META_LEN) else {
            return Err("the file ends before it".to_owned());
        };
        if get_u32(meta, 0) != MAGIC {
            return Err("wrong magic".to_owned());
        }
        let version = get_u32(meta, 4);
        if version != VERSION {
            return Err(format!("format version {version}, this program reads {VERSION}"));
        }
        if get_u64(meta, 56) != fnv_1a(&meta[..56]) {
            return Err("the checksum does not match".to_owned());
        }
        let decoded = Meta {
            page_size: get_u32(meta, 8),
            root: get_u64(meta, 16),
            sequence: get_u64(meta, 24),
            freelist: get_u64(meta, 32),
            pages: get_u64(meta, 40),
            txid: get_u64(meta, 48),
        };
        if !is_page_size(decoded.page_size) {
            return Err(format!("a page size of {} bytes", decoded.page_size));
        }
        Ok(decoded)
    }
}

/// Sets magic, version, page size and sum of a meta page right, and leaves the rest as it is.
pub(super) fn seal_meta(page: &mut [u8], page_size: u32) {
    let Some(meta) = page.get_mut(HEADER_LEN..META_LEN) else { return };
    meta[..4].copy_from_slice(&MAGIC.to_le_bytes());
    meta[4..8].copy_from_slice(&VERSION.to_le_bytes());
    meta[8..12].copy_from_slice(&page_size.to_le_bytes());
    let sum = fnv_1a(&meta[..56]);
    meta[56..].copy_from_slice(&sum.to_le_bytes());
}

/// An element of a leaf page: `position` counts from the element's own first byte.
pub(super) fn leaf_element(flags: u32, position: u32, key: u32, value: u32) -> [u8; ELEMENT_LEN] {
    let mut out = [0; ELEMENT_LEN];
    for (to, number) in out.chunks_exact_mut(4).zip([flags, position, key, value]) {
        to.copy_from_slice(&number.to_le_bytes());
    }
    out
}

/// An element of a branch page: `position` counts from the element's own first byte.
pub(super) fn branch_element(position: u32, key: u32, child: u64) -> [u8; ELEMENT_LEN] {
    let mut out = [0; ELEMENT_LEN];
    out[..4].copy_from_slice(&position.to_le_bytes());
    out[4..8].copy_from_slice(&key.to_le_bytes());
    out[8..].copy_from_slice(&child.to_le_bytes());
    out
}

pub(super) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// FNV-1a of 64 bits.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
