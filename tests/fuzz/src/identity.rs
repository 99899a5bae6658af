//! The identity file.
//!
//! ```text
//! input  even, bytes    the file as it is; then once more with a right length and checksum
//!        odd, script    an identity, encoded; then with a flipped bit, and cut
//! ```
//! Properties: there is one encoding of each identity (what is decoded encodes to the same bytes), what was encoded is
//! decoded, and no flip or cut passes; memory in proportion to the file.

use logic::identity::{Identity, IdentityState, MemberIdentity, Membership};
use proto::ids::{ClusterId, Incarnation, NodeId};
use proto::limits::NODES_MAX;

use crate::memory;
use crate::script::Script;

const HEAP_PER_BYTE: usize = 4;
/// The lists are made for as many members as the file announces, at most `NODES_MAX`.
const HEAP_BYTES: usize = NODES_MAX * 64;

/// Runs one input.
pub fn check(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else { return };
    if form % 2 == 1 {
        return check_made(&mut Script::new(rest));
    }
    check_bytes(rest);
    let mut forged = rest.to_vec();
    if forged.len() >= 16 {
        let length = forged.len() as u32 + 4;
        forged[..8].copy_from_slice(b"HELIOIDY");
        forged[8..10].copy_from_slice(&1u16.to_le_bytes());
        forged[12..16].copy_from_slice(&length.to_le_bytes());
        let crc = crc32fast::hash(&forged);
        forged.extend_from_slice(&crc.to_le_bytes());
        check_bytes(&forged);
    }
}

fn decode(bytes: &[u8]) -> Option<Identity> {
    memory::within(HEAP_PER_BYTE * bytes.len() + HEAP_BYTES, || Identity::decode(bytes).ok())
}

fn check_bytes(bytes: &[u8]) {
    let Some(identity) = decode(bytes) else { return };
    assert_eq!(identity.encode(), bytes, "{identity:?}");
    assert!(identity.node.0 > 0 && identity.cores > 0);
    if let IdentityState::Member(membership) = &identity.state {
        assert!(identity.incarnation().0 > 0 && membership.cluster != ClusterId::UNKNOWN);
        assert!(membership.voters.len() <= membership.members.len());
    }
}

fn check_made(script: &mut Script<'_>) {
    let (node, cores) = (NodeId(1 + script.number(1 << 40)), 1 + script.below(256) as u16);
    let nonce = u128::from(script.number(u64::MAX)) << 64 | u128::from(script.number(u64::MAX));
    let state = if script.flag() {
        let members: Vec<MemberIdentity> = (1..=script.below(40) as u64)
            .map(|node| MemberIdentity {
                node: NodeId(node),
                nonce: u128::from(script.number(u64::MAX)),
                cores: 1 + script.below(256) as u16,
            })
            .collect();
        let voters = members.iter().map(|member| member.node).filter(|_| script.flag()).collect();
        let (cluster, incarnation) = (ClusterId(1 + u128::from(script.number(9))), Incarnation(1 + script.word() / 2));
        IdentityState::Member(Membership { cluster, incarnation, members, voters })
    } else {
        IdentityState::Empty
    };
    let identity = Identity { node, cores, nonce, state };
    let mut bytes = identity.encode();
    assert_eq!(decode(&bytes), Some(identity));
    let bit = script.below(bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    assert_eq!(decode(&bytes), None, "bit {bit} flipped and taken");
    bytes[bit / 8] ^= 1 << (bit % 8);
    let end = script.below(bytes.len());
    assert_eq!(decode(&bytes[..end]), None, "cut at {end} and taken");
}

/// An empty and a member's identity in both forms.
pub fn seeds() -> Vec<Vec<u8>> {
    let members = (1..=3u64).map(|n| MemberIdentity { node: NodeId(n), nonce: u128::from(n) << 90, cores: 4 });
    let membership = Membership {
        cluster: ClusterId(1 << 100),
        incarnation: Incarnation(1),
        members: members.collect(),
        voters: vec![NodeId(1), NodeId(3)],
    };
    let identities = [IdentityState::Empty, IdentityState::Member(membership)]
        .map(|state| Identity { node: NodeId(2), cores: 4, nonce: 0xfeed_beef, state }.encode());
    let raw = identities.iter().map(|bytes| [&[0], &bytes[..]].concat());
    let forged = identities.iter().map(|bytes| [&[0], &bytes[..bytes.len() - 4]].concat());
    let made = [vec![1], vec![1, 2, 3, 4, 5, 1, 3, 1, 1, 2, 2, 3, 3, 1, 0, 1, 5, 1, 0, 0, 0, 77]];
    raw.chain(forged).chain(made).collect()
}
