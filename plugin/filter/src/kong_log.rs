//! Audit records as lines of Kong's error log: `toolgate audit {JSON}`, at level `info`.
//!
//! nginx cuts every line (at 2048 bytes, OpenResty's at 4096), and a client can make a record longer than that. Such a
//! record is written in pieces: `toolgate audit-part ID N/COUNT "PIECE"`, each a JSON string; the
//! pieces together are the record. A record is never cut.

use toolgate_core::AuditRecord;

/// Longest JSON in one line: what nginx adds before and after fits beside it.
const LONGEST: usize = 1800;

/// Longest piece in characters. A character of JSON text becomes at most four bytes in a string of it.
const PIECE: usize = 400;

/// Writes a record.
pub(crate) fn write(record: &AuditRecord) {
    let json = record.to_json();
    if json.len() <= LONGEST {
        log::info!("toolgate audit {json}");
        return;
    }
    let characters: Vec<char> = json.chars().collect();
    let pieces = characters.chunks(PIECE);
    let count = pieces.len();
    for (index, piece) in pieces.enumerate() {
        let piece = serde_json::Value::String(piece.iter().collect());
        log::info!("toolgate audit-part {} {}/{count} {piece}", record.record_id, index + 1);
    }
}
