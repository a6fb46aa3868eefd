//! Questions and answers on the wire (RFC 1035, section 4), and what of an answer counts.

use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record as WireRecord, RecordType as WireType};

use super::error::{Failure, ResolveError};
use super::record::{Data, Record, RecordType};

/// Bytes of a UDP answer that a server may send (RFC 9715: what passes without being cut in pieces).
const UDP_PAYLOAD: u16 = 1232;
/// Names that an alias may lead through, and how many records of an answer are kept.
pub(super) const ALIASES_MAX: usize = 16;
const RECORDS_MAX: usize = 256;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) kind: RecordType,
}

/// What a server says about a question.
#[derive(Debug)]
pub(super) enum Reply {
    /// Records of the name, or of what it is an alias of.
    Records(Vec<Record>),
    /// The name is an alias of this one, of which the server says nothing. The time is the least of the chain.
    Alias(Name, Duration),
    /// There is no such name, or no such record of it; and for how long that may be remembered.
    Nothing { name_exists: bool, remember: Option<Duration> },
}

/// A name out of text, with its root. Text of other scripts is encoded (RFC 5891).
pub(super) fn parse_name(text: &str) -> Result<Name, ResolveError> {
    let parsed = if text.is_ascii() { Name::from_ascii(text) } else { Name::from_utf8(text) };
    let mut name = parsed.map_err(|error| ResolveError::Name(format!("{}: {error}", text.escape_debug())))?;
    // With the root a name takes 255 bytes at most (RFC 1035, section 2.3.4).
    if name.iter().next().is_none() || name.len() > 254 {
        return Err(ResolveError::Name(format!("{}: empty or too long", text.escape_debug())));
    }
    name.set_fqdn(true);
    Ok(name)
}

/// A name as people write it: without the root, in ASCII, strange bytes escaped.
pub(super) fn text_of(name: &Name) -> String {
    let text = name.to_ascii();
    match text.strip_suffix('.') {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => text,
    }
}

impl Question {
    /// The message that asks.
    pub(super) fn encode(&self, id: u16, extended: bool) -> Result<Vec<u8>, Failure> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), wire_type(self.kind)));
        if extended {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD);
            message.set_edns(edns);
        }
        message.to_vec().map_err(|error| Failure::Malformed(error.to_string()))
    }

    /// Whether these bytes are an answer to this very question: id, kind and question must fit. Nothing more is
    /// believed of a message that does not.
    pub(super) fn decode(&self, id: u16, bytes: &[u8]) -> Result<Message, Failure> {
        // Before anything is taken apart: whose answer is it?
        if bytes.first_chunk::<2>() != Some(&id.to_be_bytes()) {
            return Err(Failure::Foreign);
        }
        let message = Message::from_vec(bytes).map_err(|error| Failure::Malformed(error.to_string()))?;
        let ours = message.metadata.message_type == MessageType::Response
            && message.metadata.op_code == OpCode::Query
            && matches!(&message.queries[..], [query] if query.name == self.name
                && query.query_type == wire_type(self.kind)
                && query.query_class == DNSClass::IN);
        if ours { Ok(message) } else { Err(Failure::Foreign) }
    }

    /// What an answer to this question says. Records of other names are dropped, whatever they claim.
    pub(super) fn read(&self, message: &Message) -> Result<Reply, Failure> {
        let name_exists = match message.metadata.response_code {
            ResponseCode::NoError => true,
            ResponseCode::NXDomain => false,
            other => return Err(Failure::Refused(other.to_str().to_owned())),
        };
        let (mut name, mut ttl) = (self.name.clone(), u32::MAX);
        let ours =
            |record: &&WireRecord, name: &Name| record.dns_class == DNSClass::IN && record.name == *name;
        for _ in 0..=ALIASES_MAX {
            let kind = wire_type(self.kind);
            let found = message.answers.iter().filter(|record| ours(record, &name));
            let found = found.filter(|record| record.record_type() == kind);
            let records: Vec<Record> =
                found.take(RECORDS_MAX).filter_map(|record| read(record, ttl)).collect();
            if !records.is_empty() {
                let contradiction =
                    || Failure::Malformed("a record of a name that it says is not there".to_owned());
                return if name_exists { Ok(Reply::Records(records)) } else { Err(contradiction()) };
            }
            let alias = message.answers.iter().filter(|record| ours(record, &name)).find_map(alias_of);
            match alias {
                Some((target, alias_ttl)) => (name, ttl) = (target.clone(), ttl.min(alias_ttl)),
                None if name == self.name || !name_exists => {
                    return Ok(Reply::Nothing { name_exists, remember: remember(message, &name) });
                }
                None => return Ok(Reply::Alias(name, Duration::from_secs(ttl.into()))),
            }
        }
        Err(Failure::Loop)
    }
}

fn alias_of(record: &WireRecord) -> Option<(&Name, u32)> {
    match &record.data {
        RData::CNAME(target) => Some((&target.0, ttl_of(record))),
        _ => None,
    }
}

/// How long it may be remembered that there is nothing (RFC 2308, section 5): the zone says so, if it is one of
/// this name's.
fn remember(message: &Message, name: &Name) -> Option<Duration> {
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) if record.name.zone_of(name) => {
            Some(Duration::from_secs(ttl_of(record).min(soa.minimum).into()))
        }
        _ => None,
    })
}

/// A time to live beyond 31 bits is none at all (RFC 2181, section 8).
fn ttl_of(record: &WireRecord) -> u32 {
    if i32::try_from(record.ttl).is_ok() { record.ttl } else { 0 }
}

fn wire_type(kind: RecordType) -> WireType {
    match kind {
        RecordType::A => WireType::A,
        RecordType::Aaaa => WireType::AAAA,
        RecordType::Cname => WireType::CNAME,
        RecordType::Mx => WireType::MX,
        RecordType::Ptr => WireType::PTR,
        RecordType::Srv => WireType::SRV,
        RecordType::Txt => WireType::TXT,
    }
}

fn read(record: &WireRecord, ttl: u32) -> Option<Record> {
    let data = match &record.data {
        RData::A(address) => Data::A(address.0),
        RData::AAAA(address) => Data::Aaaa(address.0),
        RData::CNAME(name) => Data::Cname(text_of(&name.0)),
        RData::PTR(name) => Data::Ptr(text_of(&name.0)),
        RData::MX(mx) => Data::Mx { preference: mx.preference, exchange: text_of(&mx.exchange) },
        RData::SRV(srv) => Data::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: text_of(&srv.target),
        },
        RData::TXT(txt) => Data::Txt(txt.txt_data.iter().map(|part| part.to_vec()).collect()),
        _ => return None,
    };
    let ttl = Duration::from_secs(ttl_of(record).min(ttl).into());
    Some(Record { name: text_of(&record.name), ttl, data })
}
