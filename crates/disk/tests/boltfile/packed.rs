//! Golden files as they are kept. The simulator's golden directories are packed so too.

/// Takes a golden file apart: database files are mostly zeros, so they are kept as a row of (length, 4 bytes,
/// little-endian; that many bytes; a byte; how often it follows, 4 bytes).
pub fn unpack(mut packed: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    while let Some((len, rest)) = packed.split_first_chunk() {
        let (literal, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        let (&fill, rest) = rest.split_first().expect("a byte follows");
        let (times, rest) = rest.split_first_chunk().expect("four bytes follow");
        file.extend_from_slice(literal);
        file.resize(file.len() + u32::from_le_bytes(*times) as usize, fill);
        packed = rest;
    }
    file
}

/// What [`unpack`] takes apart.
pub fn pack(file: &[u8]) -> Vec<u8> {
    const RUN_MIN: usize = 12;
    let mut packed = Vec::new();
    let mut literal = Vec::new();
    for run in file.chunk_by(|one, other| one == other) {
        let mut times = 0;
        if run.len() < RUN_MIN {
            literal.extend_from_slice(run);
        } else {
            times = run.len();
        }
        if times > 0 {
            packed.extend((literal.len() as u32).to_le_bytes());
            packed.append(&mut literal);
            packed.push(run[0]);
            packed.extend((times as u32).to_le_bytes());
        }
    }
    if !literal.is_empty() {
        packed.extend((literal.len() as u32).to_le_bytes());
        packed.append(&mut literal);
        packed.extend([0; 5]);
    }
    packed
}
