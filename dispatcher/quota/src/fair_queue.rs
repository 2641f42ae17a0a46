//! Queue of the calls that wait for an account's next permit: urgent flows first, the other flows in turn.

use std::collections::VecDeque;

/// Longest series of urgent calls while other calls wait.
const URGENT_IN_A_ROW: u32 = 4;

/// Waiting calls, urgent ones separate from the others.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    urgent: VecDeque<T>,
    /// Queues by flow; the front one is served next.
    usual: VecDeque<(String, VecDeque<T>)>,
    in_a_row: u32,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { urgent: VecDeque::new(), usual: VecDeque::new(), in_a_row: 0 }
    }
}

impl<T> FairQueue<T> {
    pub(crate) fn push(&mut self, flow: &str, urgent: bool, who: T) {
        if urgent {
            return self.urgent.push_back(who);
        }
        match self.usual.iter_mut().find(|(name, _)| name == flow) {
            Some((_, queue)) => queue.push_back(who),
            None => self.usual.push_back((flow.to_owned(), VecDeque::from([who]))),
        }
    }

    /// Removes and returns the next call.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let others_turn = self.in_a_row >= URGENT_IN_A_ROW && !self.usual.is_empty();
        if !others_turn && let Some(who) = self.urgent.pop_front() {
            self.in_a_row += 1;
            return Some(who);
        }
        self.in_a_row = 0;
        let (flow, mut queue) = self.usual.pop_front()?;
        let who = queue.pop_front();
        if !queue.is_empty() {
            self.usual.push_back((flow, queue));
        }
        who
    }

    pub(crate) fn any_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.urgent.len() + self.usual.iter().map(|(_, queue)| queue.len()).sum::<usize>()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.usual.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn popped(waiting: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| waiting.pop()).collect()
    }

    #[test]
    fn flows_take_turns() {
        let mut waiting = FairQueue::default();
        for who in ["a1", "a2", "a3"] {
            waiting.push("a", false, who);
        }
        waiting.push("b", false, "b1");
        assert_eq!(waiting.len(), 4);
        assert_eq!(popped(&mut waiting), ["a1", "b1", "a2", "a3"]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn urgent_ones_go_first_and_starve_nobody() {
        let mut waiting = FairQueue::default();
        for who in ["a1", "a2"] {
            waiting.push("a", false, who);
        }
        for who in ["u1", "u2", "u3", "u4", "u5", "u6"] {
            waiting.push("u", true, who);
        }
        assert!(waiting.any_urgent());
        assert_eq!(popped(&mut waiting), ["u1", "u2", "u3", "u4", "a1", "u5", "u6", "a2"]);
    }
}
