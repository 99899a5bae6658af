//! What went wrong with which node, for errors that end a wait: the last words of each address, not just of the last one.

use proto::error::Refusal;
use proto::ring::Ring;

use crate::limits::TROUBLES_MAX;
use crate::session::Trouble;

/// The last trouble with each address, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    list: Vec<Trouble>, // no address twice, at most TROUBLES_MAX
    no_majority: bool,  // as far as the ring of `judge` and these troubles tell
}

impl Troubles {
    /// All of them, the latest first.
    pub fn list(&self) -> &[Trouble] {
        &self.list
    }

    /// The latest.
    pub fn last(&self) -> Option<&Trouble> {
        self.list.first()
    }

    /// The refusal that explains best why nothing came of it; `None` if no node said any.
    ///
    /// A node that is not the home, or not ready, may be so because there is no leader; so these count least.
    pub fn cause(&self) -> Option<Refusal> {
        let mut refusals = self.list.iter().filter_map(|trouble| trouble.refusal);
        if self.no_majority {
            return Some(Refusal::NoLeader);
        }
        let first = refusals.clone().next();
        refusals.find(|refusal| !matches!(refusal, Refusal::NotHome | Refusal::NotReady)).or(first)
    }

    /// Notes a trouble; it replaces what was known of its address.
    pub(crate) fn note(&mut self, trouble: Trouble) {
        self.list.retain(|other| other.address != trouble.address);
        self.list.insert(0, trouble);
        self.list.truncate(TROUBLES_MAX);
    }

    /// Notes a trouble unless something newer is known of its address.
    pub(crate) fn note_unless_newer(&mut self, trouble: Trouble) {
        if self.list.iter().all(|other| other.address != trouble.address) {
            self.note(trouble);
        }
    }

    /// The node did what was asked.
    pub(crate) fn forget(&mut self, address: &str) {
        self.list.retain(|trouble| trouble.address != address);
    }

    /// The node can be reached: whatever it refused may still hold.
    pub(crate) fn on_reached(&mut self, address: &str) {
        self.list.retain(|trouble| trouble.address != address || trouble.refusal.is_some());
    }

    /// Says, from the members as last known, whether most voters cannot be reached.
    pub(crate) fn judge(mut self, ring: &Ring) -> Troubles {
        let voters = || ring.members().iter().filter(|member| member.voter);
        let can_be_reached = |address: &str, up: bool| {
            self.list.iter().find(|trouble| trouble.address == address).map_or(up, |trouble| trouble.refusal.is_some())
        };
        let reached = voters().filter(|member| can_be_reached(&member.client_address, member.up)).count();
        let all = voters().count();
        // Without any trouble nothing was tried.
        self.no_majority = !self.list.is_empty() && all > 0 && reached * 2 <= all;
        self
    }
}

impl FromIterator<Trouble> for Troubles {
    fn from_iter<I: IntoIterator<Item = Trouble>>(troubles: I) -> Troubles {
        let mut all = Troubles::default();
        troubles.into_iter().for_each(|trouble| all.note(trouble));
        all
    }
}

#[cfg(test)]
mod tests {
    use proto::error::Refusal;
    use proto::ring::Ring;

    use super::Troubles;
    use crate::limits::TROUBLES_MAX;
    use crate::scripted::ring;
    use crate::session::Trouble;

    fn trouble(address: &str, refusal: Option<Refusal>) -> Trouble {
        Trouble { address: address.to_owned(), refusal, text: "no".to_owned() }
    }

    fn check(ring: &Ring, found: &[(&str, Option<Refusal>)], expected: Option<Refusal>) {
        let troubles: Troubles = found.iter().map(|(address, refusal)| trouble(address, *refusal)).collect();
        assert_eq!(troubles.judge(ring).cause(), expected, "{found:?}");
    }

    #[test]
    fn cause_is_what_explains_best() {
        let (all, none) = (ring(1, &[]), Ring::default());
        check(&all, &[], None);
        check(&all, &[("a", None)], None);
        check(&all, &[("a", None), ("b", None)], Some(Refusal::NoLeader));
        check(&none, &[("a", None), ("b", None)], None);
        check(&all, &[("a", None), ("b", Some(Refusal::Busy))], Some(Refusal::Busy));
        check(&all, &[("b", Some(Refusal::Busy)), ("a", None)], Some(Refusal::Busy));
        check(&all, &[("a", Some(Refusal::NoLeader)), ("b", Some(Refusal::NotHome))], Some(Refusal::NoLeader));
        check(&all, &[("a", Some(Refusal::NotHome)), ("b", None)], Some(Refusal::NotHome));
        check(&all, &[("a", Some(Refusal::NotHome)), ("b", None), ("c", None)], Some(Refusal::NoLeader));
        // One was down already when the other one fell; the third answers.
        check(&ring(2, &[2]), &[("a", None), ("c", Some(Refusal::NotReady))], Some(Refusal::NoLeader));
        check(&ring(2, &[2]), &[("b", Some(Refusal::Busy)), ("c", Some(Refusal::NotReady))], Some(Refusal::Busy));
    }

    #[test]
    fn each_address_has_its_last_words_and_their_number_is_bounded() {
        let mut troubles: Troubles =
            ["a", "b", "a"].iter().map(|address| trouble(address, Some(Refusal::Busy))).collect();
        troubles.note(trouble("c", None));
        let addresses = |troubles: &Troubles| troubles.list().iter().map(|t| t.address.clone()).collect::<Vec<_>>();
        assert_eq!(addresses(&troubles), ["c", "a", "b"]);
        troubles.on_reached("c");
        troubles.on_reached("a");
        assert_eq!(addresses(&troubles), ["a", "b"]);
        troubles.forget("a");
        assert_eq!(addresses(&troubles), ["b"]);
        (0..2 * TROUBLES_MAX).for_each(|number| troubles.note(trouble(&number.to_string(), None)));
        assert_eq!(troubles.list().len(), TROUBLES_MAX);
    }
}
