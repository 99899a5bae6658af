//! Addresses for the nodes of one cluster on loopback.
//!
//! Linux routes all of 127.0.0.0/8 to loopback. Each cluster takes an address of its own from it, because outgoing
//! connections leave from 127.0.0.1: so no connection of anybody can take a node's port while the node is down, and
//! clusters of tests that run side by side never meet.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

static CLUSTERS: AtomicU32 = AtomicU32::new(0);

/// An address in 127.0.0.0/8 that no other cluster of this process has, and hardly one of another process.
pub fn own_address() -> IpAddr {
    let count = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    // The process in the middle bytes, the cluster in the last; never 127.0.*, where everybody else is.
    let process = std::process::id();
    let (a, b) = (1 + (process >> 8) % 254, process % 256);
    IpAddr::V4(Ipv4Addr::new(127, a as u8, b as u8, 1 + (count % 254) as u8))
}

/// `count` ports that are free at `address` now, all different, found by binding port 0.
pub fn free_ports(address: IpAddr, count: usize) -> io::Result<Vec<u16>> {
    // All are held until the last is known, else the kernel might give one twice.
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind((address, 0))).collect::<io::Result<_>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{free_ports, own_address};

    #[test]
    fn clusters_have_addresses_of_their_own_and_distinct_ports() {
        let (one, other) = (own_address(), own_address());
        assert!(one.is_loopback() && other.is_loopback());
        assert_ne!(one, other);
        let mut ports = free_ports(one, 6).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
    }
}
