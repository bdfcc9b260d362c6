//! The tree of known prefixes of sequences: a shared prefix is computed once, and kept for later sequences.
//!
//! A node is a token after all tokens above it, and its number is its slot in the [`Pool`](super::pool::Pool).
//! Sequences hold the nodes of their paths. A node that no sequence holds stays until its slot is needed; the least
//! recently used one is evicted first, and none before its descendants.

use std::collections::{BTreeSet, HashMap};

use super::generate::Scored;

/// Tree of known prefixes.
#[derive(Debug)]
pub(super) struct Prefixes {
    nodes: Vec<Node>,
    /// Node of a token after another node, or at the beginning.
    children: HashMap<(Option<usize>, u32), usize>,
    /// Leaves that no sequence holds, with the time at which they were released.
    idle: BTreeSet<(u64, usize)>,
    /// Maximum number of nodes.
    limit: usize,
    /// Number of nodes that some sequence holds.
    held: usize,
    clock: u64,
}

#[derive(Debug)]
struct Node {
    parent: Option<usize>,
    token: u32,
    children: usize,
    holders: usize,
    left: u64,
    /// Log-probability of the token given its prefix, if it was computed.
    scored: Option<Scored>,
}

impl Prefixes {
    /// An empty tree of at most `limit` nodes.
    pub(super) fn new(limit: usize) -> Self {
        Self { nodes: Vec::new(), children: HashMap::new(), idle: BTreeSet::new(), limit, held: 0, clock: 0 }
    }

    /// Number of slots that have been used so far.
    pub(super) fn places(&self) -> usize {
        self.nodes.len()
    }

    /// Number of further nodes that can be held.
    pub(super) fn room(&self) -> usize {
        self.limit - self.held
    }

    /// Returns the node of a token after another node, or at the beginning.
    pub(super) fn child(&self, parent: Option<usize>, token: u32) -> Option<usize> {
        self.children.get(&(parent, token)).copied()
    }

    /// Nodes of the longest known prefix of a sequence.
    pub(super) fn known(&self, tokens: &[u32]) -> Vec<usize> {
        let mut path: Vec<usize> = Vec::new();
        for token in tokens {
            match self.child(path.last().copied(), *token) {
                Some(node) => path.push(node),
                None => break,
            }
        }
        path
    }

    /// Number of nodes of a path that no sequence holds.
    pub(super) fn unheld(&self, path: &[usize]) -> usize {
        path.iter().filter(|node| self.nodes[**node].holders == 0).count()
    }

    /// Adds a node held by its caller; `None` if all slots are held.
    pub(super) fn add(&mut self, parent: Option<usize>, token: u32) -> Option<usize> {
        let place = if self.nodes.len() < self.limit { self.nodes.len() } else { self.forget_oldest()? };
        let node = Node { parent, token, children: 0, holders: 1, left: 0, scored: None };
        match self.nodes.get_mut(place) {
            Some(old) => *old = node,
            None => self.nodes.push(node),
        }
        self.held += 1;
        self.children.insert((parent, token), place);
        if let Some(parent) = parent {
            self.nodes[parent].children += 1;
        }
        Some(place)
    }

    /// Adds a holder to a node. The holder must already hold all nodes above it.
    pub(super) fn hold(&mut self, node: usize) {
        let Node { children, holders, left, .. } = &mut self.nodes[node];
        *holders += 1;
        if *holders == 1 {
            self.held += 1;
            if *children == 0 {
                self.idle.remove(&(*left, node));
            }
        }
    }

    /// Removes a holder from all nodes of a path.
    pub(super) fn leave(&mut self, path: &[usize]) {
        self.clock += 1;
        for index in path.iter().rev() {
            let node = &mut self.nodes[*index];
            node.holders -= 1;
            node.left = self.clock;
            if node.holders == 0 {
                self.held -= 1;
                if node.children == 0 {
                    self.idle.insert((self.clock, *index));
                }
            }
        }
    }

    /// Log-probability of a node's token, if it was computed with at least `top` most probable tokens.
    pub(super) fn scored(&self, node: usize, top: usize) -> Option<&Scored> {
        self.nodes[node].scored.as_ref().filter(|scored| scored.top.len() >= top)
    }

    /// Stores the log-probability of a node's token, unless the stored one has more of the most probable tokens.
    pub(super) fn keep(&mut self, node: usize, scored: &Scored) {
        if self.scored(node, scored.top.len()).is_none() {
            self.nodes[node].scored = Some(scored.clone());
        }
    }

    fn forget_oldest(&mut self) -> Option<usize> {
        let (_, place) = self.idle.pop_first()?;
        let Node { parent, token, .. } = self.nodes[place];
        self.children.remove(&(parent, token));
        if let Some(parent) = parent {
            let above = &mut self.nodes[parent];
            above.children -= 1;
            if above.children == 0 && above.holders == 0 {
                self.idle.insert((above.left, parent));
            }
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grow(prefixes: &mut Prefixes, tokens: &[u32]) -> Option<Vec<usize>> {
        let mut path = prefixes.known(tokens);
        path.iter().for_each(|node| prefixes.hold(*node));
        for token in &tokens[path.len()..] {
            path.push(prefixes.add(path.last().copied(), *token)?);
        }
        Some(path)
    }

    #[test]
    fn what_sequences_share_is_there_once() {
        let mut prefixes = Prefixes::new(10);
        let one = grow(&mut prefixes, &[1, 2, 3]).unwrap();
        let other = grow(&mut prefixes, &[1, 2, 4]).unwrap();
        assert_eq!(one[..2], other[..2]);
        assert_ne!(one[2], other[2]);
        assert_eq!((prefixes.places(), prefixes.room()), (4, 6));
        assert_eq!(prefixes.known(&[1, 2, 5]), one[..2]);
        assert!(prefixes.known(&[2]).is_empty());
    }

    #[test]
    fn the_place_that_was_left_longest_ago_is_taken_and_never_one_that_is_held() {
        let mut prefixes = Prefixes::new(4);
        let old = grow(&mut prefixes, &[1, 2]).unwrap();
        let new = grow(&mut prefixes, &[1, 3]).unwrap();
        prefixes.leave(&old);
        prefixes.leave(&new);
        let held = grow(&mut prefixes, &[5]).unwrap();
        // All four slots are used: the older of the two unheld leaves is evicted first, then the other, then the node
        // above.
        for left in [&[1, 3][..], &[1], &[]] {
            assert!(grow(&mut prefixes, &[6, 7, 8][..3 - left.len()]).is_some());
            assert_eq!(prefixes.known(&[1, 3]).len(), left.len());
            assert_eq!(prefixes.known(&[1, 2]).len(), left.len().min(1));
        }
        assert_eq!(prefixes.known(&[5]), held);
        assert_eq!(prefixes.room(), 0);
        assert_eq!(prefixes.add(None, 9), None);
    }

    #[test]
    fn more_that_is_known_of_a_token_is_not_forgotten_for_less() {
        let mut prefixes = Prefixes::new(1);
        let node = prefixes.add(None, 3).unwrap();
        let less = Scored { token: 3, log_prob: -1.0, top: Vec::new() };
        let more = Scored { top: vec![(3, -1.0)], ..less.clone() };
        assert_eq!(prefixes.scored(node, 0), None);
        prefixes.keep(node, &more);
        prefixes.keep(node, &less);
        assert_eq!(prefixes.scored(node, 1), Some(&more));
        assert_eq!(prefixes.scored(node, 2), None);
    }
}
