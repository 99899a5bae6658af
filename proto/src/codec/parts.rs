//! What several messages have in common: identities, lists of names, holders and acknowledgements, the ring.

use flatbuffers::{ForwardsUOffset, Vector, WIPOffset};

use super::{Builder, DecodeError};
use crate::check;
use crate::error::Refusal;
use crate::generated::ids as wire;
use crate::ids::{
    Address, ClusterId, CoreId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId,
    RingEpoch, Sequence, SessionId,
};
use crate::limits::TEXT_BYTES_MAX;
use crate::ring::{Member, Ring};

pub(super) type Names<'a> = Vector<'a, ForwardsUOffset<&'a str>>;
pub(super) type NamesOffset = WIPOffset<Vector<'static, ForwardsUOffset<&'static str>>>;
pub(super) type HoldersOffset = WIPOffset<Vector<'static, wire::Holder>>;
pub(super) type PlacesOffset = WIPOffset<Vector<'static, wire::InboxPlace>>;
pub(super) type MembersOffset = WIPOffset<Vector<'static, ForwardsUOffset<wire::Member<'static>>>>;

impl From<u128> for wire::U128 {
    fn from(value: u128) -> Self {
        wire::U128::new((value >> 64) as u64, value as u64)
    }
}

impl From<&wire::U128> for u128 {
    fn from(value: &wire::U128) -> Self {
        u128::from(value.high()) << 64 | u128::from(value.low())
    }
}

impl From<ClusterId> for wire::U128 {
    fn from(cluster: ClusterId) -> Self {
        cluster.0.into()
    }
}

impl From<&wire::U128> for ClusterId {
    fn from(value: &wire::U128) -> Self {
        ClusterId(value.into())
    }
}

impl From<ImageId> for wire::ImageId {
    fn from(image: ImageId) -> Self {
        wire::ImageId::new(image.session.0, image.sequence.0)
    }
}

impl From<&wire::ImageId> for ImageId {
    fn from(image: &wire::ImageId) -> Self {
        ImageId { session: SessionId(image.session()), sequence: Sequence(image.sequence()) }
    }
}

impl From<Fingerprint> for wire::Fingerprint {
    fn from(fingerprint: Fingerprint) -> Self {
        wire::Fingerprint::new(fingerprint.length, fingerprint.checksum)
    }
}

impl From<&wire::Fingerprint> for Fingerprint {
    fn from(fingerprint: &wire::Fingerprint) -> Self {
        Fingerprint { length: fingerprint.length(), checksum: fingerprint.checksum() }
    }
}

impl From<Address> for wire::Address {
    fn from(address: Address) -> Self {
        wire::Address::new(address.node.0, address.core.0)
    }
}

impl From<&wire::Address> for Address {
    fn from(address: &wire::Address) -> Self {
        Address { node: NodeId(address.node()), core: CoreId(address.core()) }
    }
}

impl From<Holder> for wire::Holder {
    fn from(holder: Holder) -> Self {
        wire::Holder::new(holder.address.node.0, holder.incarnation.0, holder.address.core.0)
    }
}

impl From<&wire::Holder> for Holder {
    fn from(holder: &wire::Holder) -> Self {
        Holder {
            address: Address { node: NodeId(holder.node()), core: CoreId(holder.core()) },
            incarnation: Incarnation(holder.incarnation()),
        }
    }
}

impl From<(InboxId, InboxSeq)> for wire::InboxPlace {
    fn from((inbox, seq): (InboxId, InboxSeq)) -> Self {
        wire::InboxPlace::new(inbox.0, seq.0)
    }
}

impl From<&wire::InboxPlace> for (InboxId, InboxSeq) {
    fn from(place: &wire::InboxPlace) -> Self {
        (InboxId(place.inbox()), InboxSeq(place.seq()))
    }
}

/// Writes `names`. `offsets` is memory to be used again; it is left empty.
pub(super) fn put_names(builder: &mut Builder, offsets: &mut Vec<u32>, names: &[String]) -> NamesOffset {
    offsets.clear();
    for name in names {
        offsets.push(builder.create_string(name).value());
    }
    let list = builder.create_vector_from_iter(offsets.iter().map(|&offset| WIPOffset::<&'static str>::new(offset)));
    offsets.clear();
    list
}

pub(super) fn take_names(names: Names<'_>) -> Vec<String> {
    names.iter().map(str::to_owned).collect()
}

pub(super) fn put_holders(builder: &mut Builder, holders: &[Holder]) -> HoldersOffset {
    builder.create_vector_from_iter(holders.iter().map(|&holder| wire::Holder::from(holder)))
}

pub(super) fn put_indexes(builder: &mut Builder, indexes: &[LogIndex]) -> WIPOffset<Vector<'static, u64>> {
    builder.create_vector_from_iter(indexes.iter().map(|index| index.0))
}

pub(super) fn take_indexes(indexes: Vector<'_, u64>) -> Vec<LogIndex> {
    indexes.iter().map(LogIndex).collect()
}

pub(super) fn take_holders(holders: Vector<'_, wire::Holder>) -> Vec<Holder> {
    holders.iter().map(Holder::from).collect()
}

pub(super) fn put_places(builder: &mut Builder, upto: &[(InboxId, InboxSeq)]) -> PlacesOffset {
    builder.create_vector_from_iter(upto.iter().map(|&place| wire::InboxPlace::from(place)))
}

pub(super) fn take_places(upto: Vector<'_, wire::InboxPlace>) -> Vec<(InboxId, InboxSeq)> {
    upto.iter().map(<(InboxId, InboxSeq)>::from).collect()
}

/// Writes `bytes`. A byte string is a vector of bytes with a zero behind it, and is copied in one piece; the builder
/// pushes the items of other vectors one by one.
pub(super) fn put_bytes(builder: &mut Builder, bytes: &[u8]) -> WIPOffset<Vector<'static, u8>> {
    WIPOffset::new(builder.create_byte_string(bytes).value())
}

pub(super) fn take_bytes(bytes: Vector<'_, u8>) -> Vec<u8> {
    bytes.bytes().to_vec()
}

/// Writes a text for people, cut to `TEXT_BYTES_MAX`.
pub(super) fn put_text(builder: &mut Builder, text: &str) -> WIPOffset<&'static str> {
    builder.create_string(&text[..text.floor_char_boundary(TEXT_BYTES_MAX)])
}

pub(super) fn take_text(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

pub(super) fn take_refusal(code: u16) -> Result<Refusal, DecodeError> {
    Refusal::from_code(code).ok_or(DecodeError::CodeUnknown { field: "refusal", code: code.into() })
}

pub(super) fn put_members(builder: &mut Builder, offsets: &mut Vec<u32>, members: &[Member]) -> MembersOffset {
    offsets.clear();
    for member in members {
        let client_address = builder.create_string(&member.client_address);
        let peer_address = builder.create_string(&member.peer_address);
        let args = wire::MemberArgs {
            node: member.node.0,
            incarnation: member.incarnation.0,
            cores: member.cores,
            up: member.up,
            voter: member.voter,
            client_address: Some(client_address),
            peer_address: Some(peer_address),
        };
        offsets.push(wire::Member::create(builder, &args).value());
    }
    let list =
        builder.create_vector_from_iter(offsets.iter().map(|&offset| WIPOffset::<wire::Member<'static>>::new(offset)));
    offsets.clear();
    list
}

pub(super) fn take_members(members: Vector<'_, ForwardsUOffset<wire::Member<'_>>>) -> Vec<Member> {
    let take = |member: wire::Member<'_>| Member {
        node: NodeId(member.node()),
        incarnation: Incarnation(member.incarnation()),
        cores: member.cores(),
        up: member.up(),
        voter: member.voter(),
        client_address: member.client_address().to_owned(),
        peer_address: member.peer_address().to_owned(),
    };
    members.iter().map(take).collect()
}

pub(super) fn put_ring(builder: &mut Builder, offsets: &mut Vec<u32>, ring: &Ring) -> WIPOffset<wire::Ring<'static>> {
    let members = put_members(builder, offsets, ring.members());
    wire::Ring::create(builder, &wire::RingArgs { epoch: ring.epoch().0, members: Some(members) })
}

/// Checks the members here, since a `Ring` no longer shows that one was there twice, and costs much to make.
pub(super) fn take_ring(ring: wire::Ring<'_>) -> Result<Ring, DecodeError> {
    let members = take_members(ring.members());
    check::members(&members, 0)?;
    Ok(Ring::new(RingEpoch(ring.epoch()), members))
}
